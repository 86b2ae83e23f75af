"""CIFAR-10 and CIFAR-100 in their original files, read without running anything that those files say."""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resdomains.training.folders import existing_folder

from .augment import Augment
from .data import InMemoryData, Pictures

_PIXELS = 3 * 32 * 32

# Folder of each version: its class names, its training files and its test file.
_LAYOUTS = {
    "cifar-10-batches-bin": (
        "batches.meta.txt",
        [f"data_batch_{i}.bin" for i in range(1, 6)],
        "test_batch.bin",
    ),
    "cifar-10-batches-py": ("batches.meta", [f"data_batch_{i}" for i in range(1, 6)], "test_batch"),
    "cifar-100-binary": ("fine_label_names.txt", ["train.bin"], "test.bin"),
    "cifar-100-python": ("meta", ["train"], "test"),
}


class _Array:
    """Stands for a numpy array in a pickle; takes its bytes and nothing else."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], Any, bool, bytes]) -> None:
        _, self.shape, self.dtype, self.fortran, self.values = state


class _Dtype:
    """Stands for a numpy data type in a pickle."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: Any) -> None:
        """Ignore the byte order and field layout: only single bytes are accepted."""


class _Unpickler(pickle.Unpickler):
    """Reads the pickled dictionaries of CIFAR: numbers, text, lists, dictionaries and byte arrays.

    A pickle is a program. The only functions it may call here are stand-ins that keep bytes.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of an admitted name.

        Raises:
            pickle.UnpicklingError: For every other name, before it is imported.
        """

        # Python 3 writes bytes so, always in latin1; the encoding that is asked for does not count.
        def latin1(text: str, encoding: str) -> bytes:
            return text.encode("latin1")

        admitted: dict[tuple[str, str], Callable[..., Any] | object] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numpy", "ndarray"): object(),
            ("numpy", "dtype"): lambda *arguments: _Dtype(*arguments),
            ("_codecs", "encode"): latin1,
        }
        if (module, name) not in admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return admitted[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of CIFAR's python version.

    Returns:
        Keys as text; `data`, where there is one, as an (N, 3072) uint8 tensor.

    Raises:
        ValueError: If the file is damaged, or asks for anything beyond plain values and byte arrays.
    """
    try:
        program = path.read_bytes()
        _check_memo(program)
        content = _Unpickler(io.BytesIO(program), encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, not a dictionary")
        result = {
            key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()
        }
        if "data" in result:
            result["data"] = _bytes(result["data"])
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"{path}: refused as a CIFAR file: {error}") from error
    return result


def _check_memo(program: bytes) -> None:
    """Refuse a pickle that numbers what it keeps far beyond its size: memory is taken up to that number.

    Raises:
        pickle.UnpicklingError: If it does.
    """
    for operation, argument, _ in pickletools.genops(program):
        number = argument if isinstance(argument, int) else 0
        if operation.name.endswith("PUT") and number > len(program):
            raise pickle.UnpicklingError(f"it keeps a value as number {number:,}")


def _bytes(array: Any) -> Tensor:
    if (
        not isinstance(array, _Array)
        or not isinstance(array.dtype, _Dtype)
        or array.dtype.name != "u1"
    ):
        raise pickle.UnpicklingError("its data are not an array of unsigned bytes")
    rows, columns = array.shape
    if columns != _PIXELS or array.fortran or len(array.values) != math.prod(array.shape):
        raise pickle.UnpicklingError(
            f"its data are {len(array.values)} bytes for {rows} x {columns}, not rows of {_PIXELS}"
        )
    return torch.frombuffer(bytearray(array.values), dtype=torch.uint8).view(rows, columns)


def read_binary(path: Path, labels: int) -> tuple[Tensor, Tensor]:
    """Read a file of CIFAR's binary version: records of label bytes and 3,072 pixels.

    Args:
        path: The file.
        labels: Label bytes of a record; the last of them counts (CIFAR-100 has the coarse class first).

    Returns:
        (N, 3072) uint8 pixels and (N,) class numbers.

    Raises:
        ValueError: If the file's size is not a whole number of records.
    """
    content = bytearray(path.read_bytes())
    record = labels + _PIXELS
    if not content or len(content) % record:
        raise ValueError(
            f"{path}: its {len(content):,} bytes are not a whole number of records of {record:,}; "
            "the file is damaged, copy it again"
        )
    rows = torch.frombuffer(content, dtype=torch.uint8).view(-1, record)
    return rows[:, labels:], rows[:, labels - 1].long()


class Cifar(InMemoryData):
    """CIFAR-10 or CIFAR-100, 32 x 32, colour (Krizhevsky 2009), whichever lies in the folder.

    The python version is pickled, and a pickle can run code: it is read by an unpickler that admits byte arrays and
    plain values only.

    Args:
        root: One of the folders `cifar-10-batches-bin`, `cifar-10-batches-py`, `cifar-100-binary`,
            `cifar-100-python`, or a folder that holds just one of them.
        batch_size: Samples of a batch over all processes together.
        val_fraction: Share of the training part, its end, that validates; 0 for none.
        augment: Random changes of training batches, in order.
        balance: How far classes are drawn equally often, from 0 to 1.
        num_workers: Loader processes; 0, reading in the training process, is the fastest for most.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        root: str,
        batch_size: int,
        val_fraction: float = 0.1,
        augment: list[Augment] | None = None,
        balance: float = 0.0,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            val_fraction=val_fraction,
            augment=augment,
            balance=balance,
            num_workers=num_workers,
            seed=seed,
        )
        self.root = root

    def read(self) -> Pictures:
        """Read the files of whichever version is there."""
        folder, layout = self._find()
        names, train, test = _LAYOUTS[layout]
        missing = [name for name in (names, *train, test) if not (folder / name).is_file()]
        if missing:
            raise ValueError(
                f"root: {folder} lacks {', '.join(missing)}; unpack the original archive again"
            )
        parts = [self._file(folder / name, layout) for name in train]
        images, targets = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        test_images, test_targets = self._file(folder / test, layout)
        return Pictures(
            _pictures(images),
            targets,
            _pictures(test_images),
            test_targets,
            self._classes(folder / names, layout),
        )

    def _find(self) -> tuple[Path, str]:
        root = existing_folder(self.root)
        inside = [(root / name, name) for name in _LAYOUTS if (root / name).is_dir()]
        if len(inside) > 1:
            raise ValueError(
                f"root: {root} holds {' and '.join(name for _, name in inside)}; give one of these folders"
            )
        if inside:
            return inside[0]
        for name, (names, _, test) in _LAYOUTS.items():
            if (root / names).is_file() and (root / test).is_file():
                return root, name
        raise ValueError(
            f"root: {root} is not one of CIFAR's folders and holds none; give {', '.join(_LAYOUTS)} as unpacked"
        )

    @staticmethod
    def _file(path: Path, layout: str) -> tuple[Tensor, Tensor]:
        if "bin" in layout:
            return read_binary(path, 2 if "100" in layout else 1)
        content = read_pickle(path)
        key = "fine_labels" if "100" in layout else "labels"
        labels = content.get(key)
        if (
            "data" not in content
            or not isinstance(labels, list)
            or not all(isinstance(x, int) for x in labels)
        ):
            raise ValueError(f"{path}: holds no 'data' with a list of whole numbers as {key!r}")
        if len(labels) != len(content["data"]):
            raise ValueError(
                f"{path}: holds {len(labels)} labels for {len(content['data'])} pictures"
            )
        return content["data"], torch.tensor(labels, dtype=torch.long)

    @staticmethod
    def _classes(path: Path, layout: str) -> list[str]:
        if "bin" in layout:
            return path.read_text(encoding="utf-8").split()
        key = "fine_label_names" if "100" in layout else "label_names"
        names = read_pickle(path).get(key)
        if not isinstance(names, list):
            raise ValueError(f"{path}: holds no list {key!r}")
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _pictures(rows: Tensor) -> Tensor:
    """Return (N, 3072) rows of red, green and blue planes as (N, 32, 32, 3)."""
    return rows.view(-1, 3, 32, 32).permute(0, 2, 3, 1).contiguous()
