import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resdomains_tasks.image_classification import Cifar
from resdomains_tasks.image_classification.cifar import read_binary, read_pickle

LAYOUTS = ["cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python"]


def rows(count: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write(root: Path, layout: str, count: int = 3) -> Path:
    """Write a data set of `count` samples a file, sample i of class i."""
    folder = root / layout
    folder.mkdir(parents=True)
    hundred, binary = "100" in layout, "bin" in layout
    names = [f"class{i}" for i in range(100 if hundred else 10)]
    parts = (
        ["train", "test"] if hundred else [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    )
    for seed, part in enumerate(parts):
        pixels, labels = rows(count, seed), list(range(count))
        if binary:
            first = [7] if hundred else []
            records = [
                bytes([*first, k]) + row.tobytes() for k, row in zip(labels, pixels, strict=True)
            ]
            (folder / f"{part}.bin").write_bytes(b"".join(records))
        else:
            content: dict[bytes, Any] = {
                b"data": pixels,
                (b"fine_labels" if hundred else b"labels"): labels,
            }
            (folder / part).write_bytes(pickle.dumps(content, protocol=2))
    if binary:
        (folder / ("fine_label_names.txt" if hundred else "batches.meta.txt")).write_text(
            "\n".join(names) + "\n"
        )
    else:
        key = b"fine_label_names" if hundred else b"label_names"
        meta = {key: [name.encode() for name in names]}
        (folder / ("meta" if hundred else "batches.meta")).write_bytes(
            pickle.dumps(meta, protocol=2)
        )
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("inside", [True, False])
def test_every_original_layout_is_read(tmp_path: Path, layout: str, inside: bool) -> None:
    folder = write(tmp_path, layout)
    data = Cifar(root=str(folder if inside else tmp_path), batch_size=2, val_fraction=0.0)
    assert len(data.spec["classes"]) == (100 if "100" in layout else 10)
    assert (data.spec["channels"], data.spec["height"]) == (3, 32)
    train = data.ready_dataset("train")
    assert len(train) == (3 if "100" in layout else 15)  # type: ignore[arg-type]
    sample = train[1]
    assert int(sample["target"]) == 1
    # A row is the red plane, then green, then blue, each row by row.
    assert torch.equal(sample["image"], torch.from_numpy(rows(3, 0)[1].reshape(3, 32, 32)))


def test_the_binary_and_the_python_version_hold_the_same(tmp_path: Path) -> None:
    for kind in ("10-batches", "100"):
        ends = ("bin", "py") if kind.startswith("10-") else ("binary", "python")
        both = [
            Cifar(root=str(write(tmp_path, f"cifar-{kind}-{end}")), batch_size=2).ready()
            for end in ends
        ]
        for split in ("train", "test"):
            a, b = (data.ready_dataset(split) for data in both)
            assert torch.equal(a.images, b.images)  # type: ignore[attr-defined]
            assert torch.equal(a.targets, b.targets)  # type: ignore[attr-defined]


class Runs:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "the pickle ran")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, protocol: int
) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Runs(trace)}, protocol=protocol))
    with pytest.raises(
        ValueError, match=r"data_batch_1: refused as a CIFAR file: it asks for \S+, which no"
    ):
        read_pickle(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the same file does run where nothing refuses it
    assert trace.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        b"ccopyreg\n__newobj__\n.",
        b"Pid\n.",
    ],
)
def test_every_other_name_is_refused(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "data"
    path.write_bytes(program)
    with pytest.raises(
        ValueError, match=r"data: refused as a CIFAR file: (it asks for|.*persistent)"
    ):
        read_pickle(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds a list, not a dictionary"),
        ({b"data": [1, 2]}, "not an array of unsigned bytes"),
        ({b"data": np.zeros((2, 3072), np.float32)}, "not an array of unsigned bytes"),
        ({b"data": np.zeros((2, 99), np.uint8)}, "198 bytes for 2 x 99"),
        ({b"data": np.asfortranarray(rows(2, 0))}, "6144 bytes for 2 x 3072, not rows"),
        ({b"data": OrderedDict()}, "it asks for collections.OrderedDict"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, reason: str) -> None:
    path = tmp_path / "data"
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=reason):
        read_pickle(path)


def test_a_truncated_pickle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(pickle.dumps({b"data": rows(2, 0)}, protocol=2)[:-2000])
    with pytest.raises(ValueError, match="data: refused as a CIFAR file"):
        read_pickle(path)


@pytest.mark.parametrize("count", [0, 3072, 3074])
def test_a_binary_file_of_half_records_is_named(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(count))
    with pytest.raises(
        ValueError, match=r"a\.bin: its [\d,]+ bytes are not a whole number of records of 3,073"
    ):
        read_binary(path, 1)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="is not one of CIFAR's folders and holds none; give cifar-10-batches-bin"
    ):
        Cifar(root=str(tmp_path), batch_size=2).ready()
    folder = write(tmp_path, LAYOUTS[0])
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"root: .* lacks data_batch_3\.bin; unpack"):
        Cifar(root=str(folder), batch_size=2).ready()
    write(tmp_path, LAYOUTS[3])
    with pytest.raises(
        ValueError, match="holds cifar-10-batches-bin and cifar-100-python; give one of these"
    ):
        Cifar(root=str(tmp_path), batch_size=2).ready()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({b"data": rows(2, 0)}, "holds no 'data' with a list of whole numbers as 'labels'"),
        ({b"data": rows(2, 0), b"labels": [0]}, "holds 1 labels for 2 pictures"),
        ({b"data": rows(2, 0), b"labels": [0, "x"]}, "whole numbers"),
        ({b"data": rows(2, 0), b"labels": [0, 11]}, "has label 11, but there are 10 classes"),
    ],
)
def test_wrong_labels_are_refused(tmp_path: Path, content: Any, reason: str) -> None:
    folder = write(tmp_path, LAYOUTS[1])
    (folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=reason):
        Cifar(root=str(folder), batch_size=2).ready()
