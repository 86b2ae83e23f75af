"""Data sets in the format of MNIST: four idx files, gzipped or not."""

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from resdomains.training.folders import existing_folder

from .augment import Augment
from .data import InMemoryData, Pictures

_UNSIGNED_BYTE = 0x08
_PIECE = 2**24
_SPARE, _RATIO = 2**28, 100  # of gzip: pictures shrink to a fifth, and zeros to a thousandth


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an idx file of unsigned bytes (LeCun's format: magic, sizes as big-endian 32-bit, values).

    Args:
        path: The file; gzipped if its name ends in `.gz`.
        dimensions: How many dimensions it must have.

    Returns:
        uint8 tensor of the sizes that the header states.

    Raises:
        ValueError: If the file is no such idx file, or holds more or fewer values than its header states.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes(
                (0, 0, _UNSIGNED_BYTE, dimensions)
            ):
                raise ValueError(
                    f"{path}: not an idx file of unsigned bytes in {dimensions} dimensions "
                    f"(it begins with {header[:4].hex(' ') or 'nothing'}, "
                    f"expected 00 00 08 {dimensions:02x})"
                )
            sizes = [int.from_bytes(header[i : i + 4], "big") for i in range(4, len(header), 4)]
            wanted = math.prod(sizes)
            if path.suffix == ".gz" and wanted > max(_SPARE, _RATIO * path.stat().st_size):
                raise ValueError(
                    f"{path}: its header states {wanted:,} values, more than {_RATIO} for each of its bytes; "
                    "the file is damaged, copy it again"
                )
            # One byte more than stated shows a file that is too long without reading all of it. In pieces, because
            # a damaged header can state any size.
            values = bytearray()
            while len(values) <= wanted and (
                piece := file.read(min(wanted + 1 - len(values), _PIECE))
            ):
                values += piece
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged or unreadable ({error})") from error
    if len(values) != wanted:
        found = f"only {len(values):,}" if len(values) < wanted else "more"
        raise ValueError(
            f"{path}: its header states {' x '.join(map(str, sizes))} = {wanted:,} values, but it holds {found}; "
            "the file is damaged, copy it again"
        )
    return (
        torch.frombuffer(values, dtype=torch.uint8).view(sizes)
        if wanted
        else torch.empty(sizes, dtype=torch.uint8)
    )


class MnistFiles(InMemoryData):
    """MNIST, Fashion-MNIST, KMNIST and others of the same four files (LeCun et al. 1998; Xiao et al. 2017).

    Args:
        root: The folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
            `t10k-labels-idx1-ubyte`, each with or without `.gz`.
        batch_size: Samples of a batch over all processes together.
        class_names: Names of the labels from 0; the numbers themselves if not given.
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
        class_names: list[str] | None = None,
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
        self.class_names = class_names

    def read(self) -> Pictures:
        """Read the four files."""
        train, train_targets = self._part("train")
        test, test_targets = self._part("t10k")
        if train.shape[1:] != test.shape[1:]:
            raise ValueError(
                f"root: in {self.root} training pictures are {tuple(train.shape[1:3])} pixels and "
                f"test pictures {tuple(test.shape[1:3])}; the files belong to different data sets"
            )
        most = int(torch.cat((train_targets, test_targets)).max())
        classes = (
            self.class_names if self.class_names is not None else [str(i) for i in range(most + 1)]
        )
        return Pictures(train, train_targets, test, test_targets, list(classes))

    def _part(self, prefix: str) -> tuple[Tensor, Tensor]:
        images = read_idx(self._find(f"{prefix}-images", 3), 3)[..., None]
        path = self._find(f"{prefix}-labels", 1)
        targets = read_idx(path, 1).long()
        if len(images) != len(targets):
            raise ValueError(f"{path}: holds {len(targets):,} labels for {len(images):,} pictures")
        if not len(images):
            raise ValueError(f"{path}: holds no samples")
        return images, targets

    def _find(self, stem: str, dimensions: int) -> Path:
        root = existing_folder(self.root)
        # The original archive unpacks with a dash or, with some tools, a dot before idx.
        names = [f"{stem}{dash}idx{dimensions}-ubyte{end}" for dash in "-." for end in ("", ".gz")]
        for name in names:
            if (root / name).is_file():
                return root / name
        raise ValueError(
            f"root: {root} holds no {names[0]} (nor {names[1]}); give the folder with the four idx files"
        )
