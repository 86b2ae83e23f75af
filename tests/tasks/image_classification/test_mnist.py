import gzip
import struct
from pathlib import Path

import pytest
import torch

from resdomains_tasks.image_classification import MnistFiles
from resdomains_tasks.image_classification.mnist import read_idx


def idx(*sizes: int, values: bytes | None = None, magic: bytes = b"\0\0\x08") -> bytes:
    count = 1
    for size in sizes:
        count *= size
    content = values if values is not None else bytes(i % 251 for i in range(count))
    return magic + bytes((len(sizes),)) + struct.pack(f">{len(sizes)}I", *sizes) + content


def write(
    root: Path, end: str = "", dash: str = "-", train: int = 20, test: int = 6, most: int = 3
) -> Path:
    pack = gzip.compress if end else bytes
    for prefix, count in (("train", train), ("t10k", test)):
        (root / f"{prefix}-images{dash}idx3-ubyte{end}").write_bytes(pack(idx(count, 5, 4)))
        labels = bytes(i % (most + 1) for i in range(count))
        (root / f"{prefix}-labels{dash}idx1-ubyte{end}").write_bytes(
            pack(idx(count, values=labels))
        )
    return root


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("dash", ["-", "."])
def test_the_four_files_are_read_gzipped_or_not(tmp_path: Path, end: str, dash: str) -> None:
    data = MnistFiles(root=str(write(tmp_path, end, dash)), batch_size=4, val_fraction=0.25)
    assert (data.spec["height"], data.spec["width"], data.spec["classes"]) == (
        5,
        4,
        ["0", "1", "2", "3"],
    )
    sizes = [len(data.ready_dataset(split)) for split in ("train", "val", "test")]  # type: ignore[arg-type]
    assert sizes == [15, 5, 6]
    first = data.ready_dataset("train")[0]
    assert first["image"].flatten().tolist() == list(range(20))


def test_class_names_name_the_labels(tmp_path: Path) -> None:
    data = MnistFiles(root=str(write(tmp_path)), batch_size=4, class_names=["a", "b", "c", "d"])
    assert data.spec["classes"] == ["a", "b", "c", "d"]


def test_labels_beyond_the_class_names_are_refused(tmp_path: Path) -> None:
    data = MnistFiles(root=str(write(tmp_path)), batch_size=4, class_names=["a", "b", "c"])
    with pytest.raises(
        ValueError, match=r"sample 3 of the training part .* has label 3, but there are 3 classes"
    ):
        data.ready()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an idx file .* begins with nothing"),
        (b"hello, world, this is text", "not an idx file"),
        (
            idx(2, 3, 4)[:-5],
            r"states 2 x 3 x 4 = 24 values, but it holds only 19; .* copy it again",
        ),
        (idx(2, 3, 4) + b"x", "but it holds more"),
        (idx(2, 3), "not an idx file of unsigned bytes in 3 dimensions"),
        (idx(2, 3, 4, magic=b"\0\0\x0d"), "not an idx file of unsigned bytes"),
    ],
)
def test_a_malformed_file_is_named_with_what_is_wrong(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    for name, stored in (("a", content), ("a.gz", gzip.compress(content))):
        path = tmp_path / name
        path.write_bytes(stored)
        with pytest.raises(ValueError, match=rf"{name}: .*{reason}"):
            read_idx(path, 3)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-12], lambda b: b"no gzip", lambda b: b[:20] + b"\xff\xff" + b[22:]]
)
def test_a_damaged_gzip_file_is_named(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(damage(gzip.compress(idx(2, 3, 4))))  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"a\.gz: (damaged or unreadable|its header|not an idx)"):
        read_idx(path, 3)


def test_a_header_that_claims_far_too_much_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**31, 2**31) + b"few")
    with pytest.raises(ValueError, match="but it holds only 3"):
        read_idx(path, 3)


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"root: .*absent does not exist; set --data\.root"):
        MnistFiles(root=str(tmp_path / "absent"), batch_size=4).ready()
    with pytest.raises(ValueError, match=r"root: .* holds no train-images-idx3-ubyte"):
        MnistFiles(root=str(tmp_path), batch_size=4).ready()
    write(tmp_path)
    with pytest.raises(ValueError, match=r"root: .* is a file"):
        MnistFiles(root=str(tmp_path / "train-labels-idx1-ubyte"), batch_size=4).ready()


def test_as_many_labels_as_pictures_are_needed(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(19))
    with pytest.raises(
        ValueError, match="train-labels-idx1-ubyte: holds 19 labels for 20 pictures"
    ):
        MnistFiles(root=str(tmp_path), batch_size=4).ready()


def test_fashion_mnist_as_it_ships(shared_data: Path) -> None:
    data = MnistFiles(root=str(shared_data / "fashion_mnist"), batch_size=256, val_fraction=0.0)
    spec = data.spec
    assert (spec["channels"], spec["height"], spec["width"]) == (1, 28, 28)
    assert spec["mean"] == pytest.approx([0.2860], abs=1e-4)  # as its SOURCE.md states
    assert spec["std"] == pytest.approx([0.3530], abs=1e-4)
    for split, each in (("train", 6000), ("test", 1000)):
        targets = data.ready_dataset(split).targets  # type: ignore[arg-type, attr-defined]
        assert torch.bincount(targets).tolist() == [each] * 10
