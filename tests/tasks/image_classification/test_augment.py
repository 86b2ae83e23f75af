"""Laws of the batched augmentation; where PIL does the same to one picture, PIL is the judge."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from resdomains.training.randomness import uniforms
from resdomains_tasks.image_classification import (
    Augment,
    CutMix,
    Mixup,
    OneOf,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    TrivialAugment,
)
from resdomains_tasks.image_classification.augment import check_augment

from .support import squares

PIXELS: list[Augment] = [
    RandomCrop(2),
    RandomFlip(),
    RandomAffine(20.0, 0.2, (0.8, 1.2), 10.0),
    TrivialAugment(),
    OneOf([RandomFlip(1.0), RandomCrop(3)]),
]
ERASING = RandomErasing(1.0)
MIXING: list[Augment] = [Mixup(0.4), CutMix(), OneOf([Mixup(), CutMix()])]


def pixels(count: int = 12, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, 9, 7), generator=generator, dtype=torch.uint8)


def floats(count: int = 12) -> Tensor:
    return pixels(count).float() / 64 - 2


def one_hot(count: int = 12) -> Tensor:
    return torch.nn.functional.one_hot(torch.arange(count) % 4, 4).float()


def drawn(part: Augment, count: int = 12, epoch: int = 0) -> Tensor:
    return uniforms(0, epoch, torch.arange(count), part.draws)


def name(part: Augment) -> str:
    return type(part).__name__


@pytest.mark.parametrize("part", [*PIXELS, ERASING], ids=name)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_changes_alike_in_every_batch(part: Augment, channels: int) -> None:
    images = pixels(channels=channels) if part.stage == "pixels" else floats()
    targets, u = torch.arange(12), drawn(part)
    whole = part(images, targets, u)[0]
    assert whole.shape == images.shape
    assert whole.dtype == images.dtype
    for rows in (torch.tensor([7]), torch.tensor([11, 2, 5])):
        assert torch.equal(part(images[rows], targets[rows], u[rows])[0], whole[rows])


@pytest.mark.parametrize("part", [*PIXELS, ERASING, *MIXING], ids=name)
def test_the_input_stays_as_it_was_and_epochs_differ(part: Augment) -> None:
    images = pixels(64) if part.stage == "pixels" else floats(64)
    kept, targets = images.clone(), one_hot(64)
    first = part(images, targets, drawn(part, 64))[0]
    assert torch.equal(images, kept)
    assert torch.equal(targets, one_hot(64))
    assert torch.equal(first, part(images, targets, drawn(part, 64))[0])
    assert not torch.equal(first, part(images, targets, drawn(part, 64, epoch=1))[0])


def test_a_crop_without_padding_changes_nothing() -> None:
    images = pixels()
    assert torch.equal(RandomCrop(0)(images, torch.arange(12), torch.rand(12, 2))[0], images)


def test_a_crop_shows_a_window_of_the_padded_picture() -> None:
    images = pixels()
    u = torch.rand(12, 2, generator=torch.Generator().manual_seed(0))
    cropped = RandomCrop(2)(images, torch.arange(12), u)[0]
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    for i in range(12):
        top, left = int(u[i, 0] * 5), int(u[i, 1] * 5)
        assert torch.equal(cropped[i], padded[i, :, top : top + 9, left : left + 7])


def test_a_crop_reaches_every_place() -> None:
    u = uniforms(0, 0, torch.arange(2000), 2)
    image = pixels(1)
    image[:] = torch.arange(9 * 7).view(9, 7) + 1
    cropped = RandomCrop(1)(image.expand(2000, -1, -1, -1), torch.zeros(2000), u)[0]
    corners, counts = torch.unique(cropped[:, 0, 4, 3], return_counts=True)
    assert len(corners) == 9
    assert counts.min() > 150


@pytest.mark.parametrize(("probability", "flipped"), [(0.0, False), (1.0, True)])
def test_a_flip_mirrors_left_and_right(probability: float, flipped: bool) -> None:
    images = pixels()
    result = RandomFlip(probability)(images, torch.arange(12), torch.rand(12, 1))[0]
    assert torch.equal(result, images.flip(3) if flipped else images)


def test_an_affine_change_of_nothing_is_the_identity() -> None:
    images = pixels()
    part = RandomAffine(degrees=0.0, translate=0.0, scale=(1.0, 1.0))
    assert torch.equal(part(images, torch.arange(12), torch.rand(12, 5))[0], images)


def test_an_affine_move_shifts_by_whole_pixels_and_fills_with_zeros() -> None:
    images = pixels(2)
    # The largest move, 2/7 of the width, is two pixels.
    u = torch.tensor([[0.5, 0.5, 0.5, 1.0, 0.5], [0.5, 0.5, 0.5, 0.0, 0.5]])
    right, left = RandomAffine(0.0, 2 / 7, (1.0, 1.0))(images, torch.arange(2), u)[0]
    assert torch.equal(right[:, :, 2:], images[0, :, :, :-2])
    assert not right[:, :, :2].any()
    assert torch.equal(left[:, :, :-2], images[1, :, :, 2:])


def test_a_quarter_turn_is_a_rotation_of_the_pixels() -> None:
    image = pixels(1)[:, :, :7, :7].contiguous()
    u = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.5]])
    turned = RandomAffine(90.0, 0.0, (1.0, 1.0))(image, torch.zeros(1), u)[0]
    assert torch.equal(turned, image.rot90(-1, (2, 3)))


def test_a_quarter_turn_does_not_stretch_a_picture_that_is_not_square() -> None:
    image = pixels(1)
    u = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.5]])
    turned = RandomAffine(90.0, 0.0, (1.0, 1.0))(image, torch.zeros(1), u)[0]
    assert torch.equal(turned[:, :, 1:8], image[:, :, 1:8].rot90(-1, (2, 3)))


def test_erasing_sets_one_rectangle_of_the_stated_size_to_the_mean() -> None:
    images = floats(500) + 10
    part = RandomErasing(0.5, area=(0.1, 0.3), ratio=(0.5, 2.0))
    erased = part(images, torch.zeros(500), drawn(part, 500))[0] == 0
    hit = erased.flatten(1).any(1)
    assert 200 < hit.sum() < 300
    for sample in erased[hit]:
        rows, columns = sample[0].any(1).nonzero()[:, 0], sample[0].any(0).nonzero()[:, 0]
        assert sample[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert int(sample[0].sum()) == len(rows) * len(columns)
        assert 0.1 * 63 - 5 <= len(rows) * len(columns) <= 0.3 * 63 + 5


@pytest.mark.parametrize("part", MIXING, ids=name)
def test_mixed_targets_sum_to_one_and_follow_the_pixels(part: Augment) -> None:
    # Pictures of one value each: the mean value of a mixed picture tells the true shares.
    values = torch.arange(12.0)
    images = values.view(-1, 1, 1, 1).expand(-1, 3, 9, 7).contiguous()
    identity = torch.eye(12)
    mixed, targets = part(images, identity, drawn(part))
    assert torch.allclose(targets.sum(1), torch.ones(12))
    assert torch.allclose(mixed.mean((1, 2, 3)), targets @ values, atol=1e-4)
    assert (targets.max(1).values < 1).any()
    neighbours = identity + identity.roll(1, 0)
    assert bool((targets[neighbours == 0] == 0).all())


@pytest.mark.parametrize("part", [Mixup(probability=0.0), CutMix(probability=0.0)], ids=name)
def test_probability_zero_mixes_nothing(part: Augment) -> None:
    images, targets = floats(), one_hot()
    mixed, shares = part(images, targets, torch.rand(12, part.draws))
    assert torch.equal(mixed, images)
    assert torch.equal(shares, targets)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 2.5])
def test_mixup_draws_its_share_from_the_beta_distribution(alpha: float) -> None:
    u = uniforms(0, 0, torch.arange(20_000), 2)
    targets = torch.eye(2).repeat(10_000, 1)
    own = Mixup(alpha)(torch.zeros(20_000, 1, 1, 1), targets, u)[1].gather(
        1, (torch.arange(20_000) % 2)[:, None]
    )
    drawn_by_numpy = np.random.default_rng(0).beta(alpha, alpha, 20_000)
    quantiles = np.linspace(0.02, 0.98, 25)
    assert np.quantile(own.numpy(), quantiles) == pytest.approx(
        np.quantile(drawn_by_numpy, quantiles), abs=0.02
    )


def test_one_of_uses_each_part_for_its_share_of_the_samples() -> None:
    images = floats(900)
    part = OneOf([Mixup(), CutMix(probability=0.0), CutMix(probability=0.0)])
    targets = one_hot(900)
    changed = (part(images, targets, drawn(part, 900))[1] != targets).any(1)
    assert 200 < changed.sum() < 400


def test_one_of_gives_each_part_numbers_of_its_own() -> None:
    parts: list[Augment] = [RandomCrop(3), RandomAffine()]
    one_of = OneOf(parts)
    images, targets, u = pixels(), torch.arange(12), drawn(one_of)
    result = one_of(images, targets, u)[0]
    alone = [parts[0](images, targets, u[:, 1:3])[0], parts[1](images, targets, u[:, 3:8])[0]]
    for i in range(12):
        assert torch.equal(result[i], alone[int(u[i, 0] >= 0.5)][i])


def trivial(image: Tensor, operation: str, strength: float, negative: bool = False) -> Tensor:
    part = TrivialAugment()
    place = (part.OPERATIONS.index(operation) + 0.5) / len(part.OPERATIONS)
    u = torch.tensor([[place, strength * 30 / 31 + 0.01, 0.9 if negative else 0.1]])
    return part(image[None], torch.zeros(1), u)[0][0]


def as_pil(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def as_tensor(image: Image.Image) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


def photo() -> Tensor:
    """Waves with some fine grain and few extremes, so that every operation has something to do."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(32.0), indexing="ij")
    waves = [60 + 70 * (1 + torch.sin(x / (5 + c) + y / (9 - c))) for c in range(3)]
    fine = ((x + y) % 2) * 40  # for sharpness, which leaves what is smooth
    return (torch.stack(waves) + fine).to(torch.uint8)


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("strength", [0.2, 1.0])
@pytest.mark.parametrize(
    ("operation", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("color", ImageEnhance.Color),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_enhancements_equal_pils(
    operation: str, enhance: type, strength: float, negative: bool
) -> None:
    ours = trivial(photo(), operation, strength, negative).int()
    factor = 1 + 0.99 * strength * (-1 if negative else 1)
    theirs = as_tensor(enhance(as_pil(photo())).enhance(factor)).int()
    # PIL cuts fractions off where we round, once for the base and once for the blend.
    assert (ours - theirs).abs().max() <= 2
    assert (ours - photo().int()).abs().max() > 2


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_and_autocontrast_equal_pils(channels: int) -> None:
    image = photo()[:channels]
    assert torch.equal(trivial(image, "equalize", 0.5), as_tensor(ImageOps.equalize(as_pil(image))))
    theirs = as_tensor(ImageOps.autocontrast(as_pil(image))).int()
    assert (trivial(image, "autocontrast", 0.5).int() - theirs).abs().max() <= 1


def test_posterize_and_solarize_equal_pils() -> None:
    assert torch.equal(
        trivial(photo(), "posterize", 0.5), as_tensor(ImageOps.posterize(as_pil(photo()), 5))
    )
    assert torch.equal(
        trivial(photo(), "solarize", 0.4), as_tensor(ImageOps.solarize(as_pil(photo()), 153))
    )


def test_moves_are_whole_pixels_and_the_identity_changes_nothing() -> None:
    image = photo()
    assert torch.equal(trivial(image, "identity", 1.0), image)
    moved = trivial(image, "translate_x", 1.0)
    shift = round(0.3 * 32)
    assert torch.equal(moved[:, :, shift:], image[:, :, :-shift])
    down = trivial(image, "translate_y", 1.0, negative=True)
    assert torch.equal(down[:, : -round(0.3 * 40)], image[:, round(0.3 * 40) :])


def test_turning_is_by_up_to_135_degrees() -> None:
    image = torch.zeros(1, 41, 41, dtype=torch.uint8)
    image[0, 19:22, 34:37] = 255
    place = (trivial(image, "rotate", 1.0)[0] > 0).nonzero().float().mean(0) - 20
    assert abs(math.degrees(math.atan2(float(place[0]), float(place[1])))) == pytest.approx(
        135, abs=4
    )


def test_flat_pictures_survive_every_operation() -> None:
    for operation in TrivialAugment.OPERATIONS:
        for value in (0, 77, 255):
            flat = torch.full((3, 6, 5), value, dtype=torch.uint8)
            assert trivial(flat, operation, 1.0).shape == flat.shape


def test_all_operations_come_up_about_equally_often() -> None:
    u = uniforms(3, 0, torch.arange(14_000), 3)
    counts = torch.bincount((u[:, 0] * 14).long())
    assert len(TrivialAugment.OPERATIONS) == 14
    assert counts.min() > 850


def test_pixel_parts_after_normalised_ones_are_refused() -> None:
    with pytest.raises(
        ValueError, match="RandomCrop works on pixels and must come before RandomErasing"
    ):
        check_augment([RandomFlip(), RandomErasing(), RandomCrop()])
    with pytest.raises(
        ValueError, match=r"parts must all work on pixels .* RandomFlip \(pixels\), Mixup \(norm"
    ):
        OneOf([RandomFlip(), Mixup()])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrop(-1), "padding must be at least 0, got -1"),
        (lambda: RandomFlip(1.5), r"probability must lie in \[0, 1\], got 1.5"),
        (lambda: RandomAffine(degrees=200), "degrees must lie in"),
        (lambda: RandomAffine(translate=2), "translate is a share"),
        (lambda: RandomAffine(shear=90), "shear must lie in"),
        (lambda: RandomAffine(scale=(1.2, 0.8)), "scale must be two rising numbers"),
        (lambda: RandomErasing(area=(0.5, 0.2)), "area must be two rising numbers"),
        (lambda: TrivialAugment(-0.1), "translate is a share"),
        (lambda: Mixup(0.0), "alpha must be positive, got 0"),
        (lambda: OneOf([RandomFlip()]), "parts needs at least two"),
    ],
)
def test_wrong_numbers_are_refused_when_built(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_squares_are_what_the_other_tests_think() -> None:
    images, targets = squares(6)
    assert torch.equal(images.float().mean((1, 2)).argmax(1), targets)
