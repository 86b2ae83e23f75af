"""Recorded observations: files that nobody has checked, and what is said of each row."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resdomains.training import BadSample
from resdomains_tasks.rl_policy.recordings import Recording, collate, read_recordings, records

NUMBERS = {"observation": {"layout": "vector", "shape": [4], "dtype": "float32", "scale": 1.0}}
PICTURES = {
    "observation": {"layout": "picture", "shape": [3, 5, 6], "dtype": "uint8", "scale": 255.0}
}


def read(path: Path, observations: Any = NUMBERS) -> list[Recording | BadSample]:
    return list(read_recordings([str(path)], observations))


def reasons(path: Path, observations: Any = NUMBERS) -> list[str]:
    found = read(path, observations)
    assert all(isinstance(item, BadSample) for item in found), found
    return [str(item) for item in found]


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


GOOD = saved(np.arange(8.0).reshape(2, 4))


def with_shape(text: bytes) -> bytes:
    """The good file with a header that states another shape."""
    old = b"(2, 4), }"
    return GOOD[:128].replace(old + b" " * (len(text) - len(old)), text) + GOOD[128:]


@pytest.mark.parametrize("kind", ["<f8", "<f4", "<f2", "<i8", "|u1", ">f4", "?"])
def test_rows_of_any_numbers_are_observations_by_name(tmp_path: Path, kind: str) -> None:
    rows = np.array([[0, 1, 0, 1], [1, 1, 0, 0]])
    path = tmp_path / "walk.npy"
    path.write_bytes(saved(np.asfortranarray(rows.astype(kind))))
    found = read(path)
    assert [item.source for item in found] == [f"{path}[0]", f"{path}[1]"]
    batch = collate([item for item in found if isinstance(item, Recording)], NUMBERS)
    assert list(batch) == ["observation"]
    assert batch["observation"].dtype == torch.float32
    assert batch["observation"].tolist() == rows.tolist()


def test_pictures_may_have_their_channels_last(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 6), np.uint8)
    np.save(tmp_path / "a.npy", pictures)
    np.save(tmp_path / "b.npy", pictures.transpose(0, 2, 3, 1).astype(float))
    found = [item for item in read(tmp_path, PICTURES) if isinstance(item, Recording)]
    batch = collate(found, PICTURES)["observation"]
    assert batch.dtype == torch.uint8
    assert torch.equal(batch, torch.from_numpy(np.concatenate([pictures, pictures])))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GOOD[:-3], "no .npy file of numbers (ValueError: mmap length is greater than file"),
        (GOOD[:60], "no .npy file of numbers (ValueError: EOF: reading array header"),
        (b"", "no .npy file of numbers (ValueError: EOF: reading magic string"),
        (b"hello, there", "no .npy file of numbers (ValueError: the magic string is not correct"),
        (GOOD[:10] + b"(" * 118, "no .npy file of numbers (TokenError"),
        (with_shape(b"(99999999999999, 4), }"), "no .npy file of numbers (ValueError: mmap leng"),
        (with_shape(b"(-2, 4), }"), "no .npy file of numbers (ValueError: negative dimensions"),
        (
            saved(np.array([{"a": 1}] * 2, dtype=object), allow_pickle=True),
            "no .npy file of numbers (ValueError: Array can't be memory-mapped: Python objects",
        ),
        (saved(np.zeros((2, 5))), "its shape is (2, 5), but observations are (N, 4)"),
        (saved(np.zeros(4)), "its shape is (4,), but observations are (N, 4)"),
        (saved(np.zeros((0, 4))), "holds no observation"),
        (saved(np.zeros((2, 4), complex)), "holds complex128, not numbers"),
        (saved(np.array([["a"] * 4])), "holds <U1, not numbers"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    (found,) = reasons(path)
    assert found.startswith(f"{path}: {reason}")
    assert len(found) < len(str(path)) + 160


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert reasons(tmp_path / "no.npy") == [f"{tmp_path}/no.npy: no such file or folder"]
    assert reasons(tmp_path) == [f"{tmp_path}: a folder without .npy files"]
    (tmp_path / "a.npy").mkdir()
    assert reasons(tmp_path) == [f"{tmp_path}/a.npy: a folder, not a file"]
    two = {"camera": PICTURES["observation"], "vector": NUMBERS["observation"]}
    assert reasons(tmp_path, two)[0].endswith(
        "an observation has the parts camera, vector; recordings are read of one part only"
    )


def test_a_row_that_cannot_be_used_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    rows = [[1, 2, 3, 4], [1, np.nan, 3, 4], [np.inf, 0, 0, 0], [0, 0, 0, 1e300]]
    np.save(path, np.array(rows))
    kept, *bad = read(path)
    assert isinstance(kept, Recording)
    assert [str(item) for item in bad] == [
        f"{path}[{row}]: holds what is no finite number" for row in (1, 2, 3)
    ]
    pictures = np.zeros((4, 3, 5, 6))
    pictures[1, 0, 0, 0], pictures[2, 0, 0, 0], pictures[3, 0, 0, 0] = 256, -1, 0.5
    np.save(path, pictures)
    kept, *bad = read(path, PICTURES)
    assert isinstance(kept, Recording)
    assert [str(item) for item in bad] == [
        f"{path}[{row}]: holds what is no whole number of 0 to 255" for row in (1, 2, 3)
    ]


def test_a_record_says_action_value_and_how_sure() -> None:
    given = (["a[0]"], np.array([1]), torch.tensor([2.5]))
    parameters = torch.tensor([[0.0, math.log(3)]])
    discrete = {"kind": "discrete", "sizes": [2]}
    (record,) = records(*given, parameters, discrete)
    assert record == {
        "source": "a[0]",
        "action": 1,
        "value": 2.5,
        "probabilities": pytest.approx([0.25, 0.75]),
    }


def test_a_record_of_several_choices_has_the_probabilities_of_each() -> None:
    parameters = torch.tensor([[0.0, math.log(3), 0, 0, 0], [math.log(9), 0.0, 0, 0, 0]])
    several = {"kind": "multi_discrete", "sizes": [2, 3]}
    found = records(["a", "b"], np.array([[1, 0], [0, 2]]), torch.zeros(2), parameters, several)
    assert [record["action"] for record in found] == [[1, 0], [0, 2]]
    for record, first in zip(found, ([0.25, 0.75], [0.9, 0.1]), strict=True):
        one, other = record["probabilities"]
        assert one == pytest.approx(first)
        assert other == pytest.approx([1 / 3] * 3)


def test_a_record_of_numbers_has_mean_and_spread() -> None:
    parameters = torch.tensor([[1.5, -4.0, 0.0, math.log(0.5)]])
    actions = np.array([[1.0, -1.0]], np.float32)
    (record,) = records(["a"], actions, torch.zeros(1), parameters, {"kind": "continuous"})
    assert (record["action"], record["mean"]) == ([1.0, -1.0], [1.5, -4.0])
    assert record["std"] == pytest.approx([1.0, 0.5])
