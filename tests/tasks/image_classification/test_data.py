import pytest
import torch

from resdomains.training import BadSample
from resdomains.training.randomness import uniforms
from resdomains.vision import denormalise, normalise
from resdomains_tasks.image_classification import (
    Augment,
    CutMix,
    Mixup,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    TrivialAugment,
)
from resdomains_tasks.image_classification.data import check_labels, measure

from .support import Squares, fetch, memory, ready, squares


def test_the_last_training_samples_validate_and_no_sample_is_in_two_splits() -> None:
    data = ready(Squares(val_fraction=0.2))
    images, _ = squares(72)
    parts = [data.dataset(split).images for split in ("train", "val", "test")]  # type: ignore[union-attr]
    assert [len(part) for part in parts] == [48, 12, 12]
    assert torch.equal(torch.cat(parts), images)


def test_without_a_validation_share_there_is_no_such_split() -> None:
    data = Squares(val_fraction=0.0)
    assert not data.has("val")
    assert len(data.ready_dataset("train")) == 60  # type: ignore[arg-type]


def test_mean_and_std_are_those_of_the_training_split() -> None:
    spec = Squares(val_fraction=0.2).spec
    pixels = squares(48)[0].double() / 255
    assert spec["mean"] == pytest.approx(pixels.mean((0, 1, 2)).tolist())
    assert spec["std"] == pytest.approx(pixels.std((0, 1, 2), correction=0).tolist())


def test_measure_equals_numpy_on_every_channel() -> None:
    images = torch.randint(0, 256, (7, 3, 5, 2), dtype=torch.uint8)
    mean, std = measure(images)
    assert mean == pytest.approx((images.numpy() / 255).mean((0, 1, 2)).tolist())
    assert std == pytest.approx((images.numpy() / 255).std((0, 1, 2)).tolist())


def test_a_batch_equals_its_items() -> None:
    data = memory()
    batch = data.__getitems__([3, 11, 0])
    items = [data[i] for i in (3, 11, 0)]
    for key in ("image", "target", "index"):
        assert torch.equal(batch[key], torch.stack([item[key] for item in items]))
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)


def test_evaluation_normalises_and_does_nothing_else() -> None:
    data = ready(Squares(augment=[RandomCrop(4), RandomErasing(1.0), Mixup()]))
    batch = fetch(data, "val", [0, 1, 2])
    result = data.transform(batch, "val")
    assert torch.allclose(
        denormalise(result["image"], data.image_spec) * 255, batch["image"].float(), atol=1e-3
    )
    assert torch.equal(result["target"], batch["target"])
    assert result["image"].dtype == torch.float32
    assert result["image"].is_contiguous(memory_format=torch.channels_last)


def test_training_samples_are_augmented_alike_in_every_batch_and_process() -> None:
    parts = [RandomCrop(2), RandomFlip(), TrivialAugment(), RandomErasing(0.5)]
    data = ready(Squares(augment=parts, seed=3))
    whole = data.transform(fetch(data, "train", list(range(48))), "train")["image"]
    for rank in (0, 1):
        share = data.transform(fetch(data, "train", list(range(rank, 48, 2))), "train")["image"]
        assert torch.equal(share, whole[rank::2])
    for seed in (3, 4):
        again = ready(Squares(augment=parts, seed=seed))
        one = again.transform(fetch(again, "train", [5]), "train")["image"]
        assert torch.equal(one[0], whole[5]) == (seed == 3)


def test_every_part_draws_numbers_of_its_own() -> None:
    parts: list[Augment] = [RandomCrop(3), RandomCrop(3)]
    data, batch = ready(Squares(augment=parts)), memory().__getitems__([0, 1, 2, 3])
    u = uniforms(0, 0, batch["index"], 4)
    once = parts[0](batch["image"], batch["target"], u[:, :2])[0]
    twice = parts[1](once, batch["target"], u[:, 2:])[0]
    assert torch.equal(data.transform(batch, "train")["image"], normalise(twice, data.image_spec))


def test_adding_a_part_at_the_end_leaves_what_the_others_draw() -> None:
    one = ready(Squares(augment=[RandomCrop(2)]))
    two = ready(Squares(augment=[RandomCrop(2), RandomErasing(0.0)]))
    batch = memory().__getitems__([0, 1, 2, 3])
    assert torch.equal(
        one.transform(batch, "train")["image"], two.transform(batch, "train")["image"]
    )


@pytest.mark.parametrize("part", [Mixup(), CutMix()])
def test_mixing_turns_class_numbers_into_shares(part: Mixup | CutMix) -> None:
    data = ready(Squares(augment=[part]))
    targets = data.transform(memory().__getitems__(list(range(24))), "train")["target"]
    assert targets.shape == (24, 3)
    assert torch.allclose(targets.sum(1), torch.ones(24))


def test_parts_in_an_impossible_order_are_refused() -> None:
    with pytest.raises(ValueError, match="RandomCrop works on pixels and must come before Mixup"):
        Squares(augment=[Mixup(), RandomCrop()])


def test_balance_draws_classes_equally_often() -> None:
    class Uneven(Squares):
        def train_targets(self) -> torch.Tensor:
            return torch.tensor([0] * 8 + [1] * 2 + [2])

    assert Uneven(balance=0.0).sample_weights() is None
    targets = torch.tensor([0] * 8 + [1] * 2 + [2])
    for balance, shares in ((1.0, [1, 1, 1]), (0.5, [8**0.5, 2**0.5, 1])):
        weights = Uneven(balance=balance).sample_weights()
        assert weights is not None
        sums = torch.stack([weights[targets == k].sum() for k in range(3)])
        assert (sums / sums[2]).tolist() == pytest.approx(shares)


def test_multi_label_samples_weigh_as_their_rarest_label() -> None:
    class Labelled(Squares):
        def train_targets(self) -> torch.Tensor:
            return torch.tensor([[1, 0], [1, 0], [1, 1], [1, 0], [0, 0], [0, 0]]).float()

    weights = Labelled(balance=1.0).sample_weights()
    assert weights is not None
    assert weights.tolist() == pytest.approx([1 / 4, 1 / 4, 1, 1 / 4, 1 / 2, 1 / 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 1.0}, r"val_fraction is a share and must lie in \[0, 1\), got 1"),
        ({"val_fraction": 0.999}, "val_fraction 0.999 leaves none of the 60 pictures"),
        ({"balance": 2.0}, r"balance must lie in \[0, 1\], got 2"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Squares(**options).ready()  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [-1, 3, 250])
def test_a_label_out_of_range_is_named_with_its_place(label: int) -> None:
    targets = torch.tensor([0, 1, label, 2])
    with pytest.raises(
        ValueError,
        match=rf"sample 2 of the training part has label {label}, but there are 3 classes",
    ):
        check_labels(targets, ["a", "b", "c"], "the training part")


def test_a_bad_sample_is_a_value_error() -> None:
    assert issubclass(BadSample, ValueError)
