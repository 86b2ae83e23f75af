import pytest
import torch
from sklearn.datasets import load_digits

from resdomains_tasks.image_classification import Digits


@pytest.fixture(scope="module")
def data() -> Digits:
    return Digits(batch_size=64).ready()


def test_the_first_scans_validate_and_the_last_test(data: Digits) -> None:
    scans = load_digits()
    train, val, test = (data.dataset(split) for split in ("train", "val", "test"))
    assert train is not None
    assert val is not None
    assert test is not None
    assert [len(part) for part in (train, val, test)] == [1293, 144, 360]
    images = torch.cat([val.images.flip(0), train.images.flip(0), test.images])
    targets = torch.cat([val.targets.flip(0), train.targets.flip(0), test.targets])
    assert torch.equal(targets, torch.from_numpy(scans.target))
    assert torch.equal((images[..., 0].double() * 16 / 255).round(), torch.from_numpy(scans.images))


def test_the_spec_says_what_the_digits_are(data: Digits) -> None:
    spec = data.spec
    assert (spec["channels"], spec["height"], spec["width"]) == (1, 8, 8)
    assert spec["classes"] == list("0123456789")
