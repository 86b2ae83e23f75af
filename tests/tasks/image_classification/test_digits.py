import pytest
import torch
from sklearn.datasets import load_digits

from resdomains_tasks.image_classification import Digits


@pytest.fixture(scope="module")
def data() -> Digits:
    return Digits(batch_size=64).ready()  # type: ignore[return-value]


def test_the_split_is_the_files_order(data: Digits) -> None:
    scans = load_digits()
    parts = [data.dataset(split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts if part is not None] == [1293, 144, 360]
    images = torch.cat([part.images for part in parts if part is not None])
    targets = torch.cat([part.targets for part in parts if part is not None])
    assert torch.equal(targets, torch.from_numpy(scans.target))
    assert torch.equal((images[..., 0].double() * 16 / 255).round(), torch.from_numpy(scans.images))


def test_the_spec_says_what_the_digits_are(data: Digits) -> None:
    spec = data.spec
    assert (spec["channels"], spec["height"], spec["width"]) == (1, 8, 8)
    assert spec["classes"] == list("0123456789")
