import pytest
import torch
from torch import Tensor

from resdomains.training.randomness import draws, keys
from resdomains_tasks.speech_recognition.masking import SpecAugment


def masked(part: SpecAugment, lengths: list[int], channels: int = 64, epoch: int = 0) -> Tensor:
    """What is hidden of a batch of ones, (B, C, T) bool."""
    count = torch.tensor(lengths)
    x = torch.ones(len(lengths), channels, max(lengths))
    out: Tensor = part(x, count, keys(0, epoch, torch.arange(len(lengths))))
    return out == 0


def test_masks_are_stretches_of_time_and_of_channels() -> None:
    hidden = masked(SpecAugment(1, 0.3, 1, 20), [100] * 300)
    whole_time, whole_channels = hidden.all(1), hidden.all(2)
    assert torch.equal(hidden, whole_time[:, None] | whole_channels[:, :, None])
    for mask in (whole_time, whole_channels):
        begins = (mask.int().diff(dim=1) == 1).sum(1) + mask[:, 0]
        assert int(begins.max()) == 1  # one stretch


def test_widths_and_places_are_uniform() -> None:
    part = SpecAugment(1, 0.25, 1, 20)
    hidden = masked(part, [100] * 4000)
    for mask, widest, size in ((hidden.all(1), 25, 100), (hidden.all(2), 20, 64)):
        width = mask.sum(1)
        counts = torch.bincount(width, minlength=widest + 1)
        assert len(counts) == widest + 1
        mean = 4000 / (widest + 1)
        assert int((counts - mean).abs().max()) < 5 * mean**0.5
        start = mask.int().argmax(1)[width == widest]
        assert int(start.min()) <= 3
        assert int(start.max()) >= size - widest - 3
        assert float(start.float().mean()) == pytest.approx((size - widest) / 2, rel=0.15)


def test_masks_stay_within_an_item_and_never_hide_all_of_it() -> None:
    lengths = [1, 2, 3, 7, 20, 333] * 100
    for part in (
        SpecAugment(9, 0.11, 3, 21),
        SpecAugment(1, 0.99, 0, 0),
        SpecAugment(0, 0.0, 63, 1),
    ):
        hidden = masked(part, lengths)
        for item, length in zip(hidden, lengths, strict=True):
            assert not item[:, length:].all(0).any()
            assert not item[:, :length].all()
            time = item[:, :length].all(0)
            assert int(time.sum()) <= part.time_masks * part.time_width * length
    assert masked(SpecAugment(9, 0.11, 0, 0), [100] * 10).any()


def test_what_is_hidden_depends_on_the_items_key_and_frames_alone() -> None:
    part = SpecAugment(2, 0.2, 2, 15)
    torch.manual_seed(0)
    x, lengths = torch.randn(3, 64, 80), torch.tensor([80, 31, 50])
    own = keys(3, 1, torch.tensor([7, 0, 4]))
    before = x.clone()
    together = part(x, lengths, own)
    assert torch.equal(x, before)
    for number, length in enumerate(lengths.tolist()):
        item = slice(number, number + 1)
        alone = part(x[item, :, :length], lengths[item], own[item])
        assert torch.equal(alone[0], together[number, :, :length])
    assert not torch.equal(part(x, lengths, keys(3, 2, torch.tensor([7, 0, 4]))), together)
    kept = together != 0
    assert torch.equal(together[kept], x[kept])


def test_numbers_are_not_those_of_the_augmentation_before() -> None:
    """An item that was slowed must not always lose its beginning."""
    own = keys(0, 0, torch.arange(2000))
    x, lengths = torch.ones(2000, 2, 100), torch.full((2000,), 100)
    width = (SpecAugment(1, 0.9, 0, 0)(x, lengths, own)[:, 0] == 0).sum(1).float()
    for number in range(4):
        pair = torch.stack((draws(own, 4)[:, number], width))
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.08


def test_without_masks_nothing_changes() -> None:
    x = torch.randn(2, 8, 9)
    for part in (SpecAugment(0, 0.5, 0, 8), SpecAugment(3, 0.0, 3, 0)):
        assert torch.equal(part(x, torch.tensor([9, 4]), torch.tensor([1, 2])), x)
    half = SpecAugment(1, 0.5, 1, 3)(x.bfloat16(), torch.tensor([9, 4]), torch.tensor([1, 2]))
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_masks": -1}, "time_masks must be at least 0, got -1"),
        ({"frequency_masks": -1}, "frequency_masks must be at least 0, got -1"),
        ({"frequency_width": -1}, "frequency_width must be at least 0, got -1"),
        (
            {"time_width": 40},
            r"time_width is a share of the frames and must lie in \[0, 1\), got 40",
        ),
        ({"time_masks": 5, "time_width": 0.2}, "5 time_masks of time_width 0.2 could hide all"),
    ],
)
def test_wrong_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpecAugment(**options)  # type: ignore[arg-type]


def test_masks_that_could_hide_all_channels_are_refused() -> None:
    with pytest.raises(
        ValueError, match="2 frequency_masks of frequency_width 15 could hide all 30 channels"
    ):
        SpecAugment()(torch.zeros(1, 30, 5), torch.tensor([5]), torch.tensor([1]))
