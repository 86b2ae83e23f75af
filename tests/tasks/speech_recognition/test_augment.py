import math
import pickle

import pytest
import torch
import torchaudio
from torch import Tensor

from resdomains.training.randomness import uniforms
from resdomains_tasks.speech_recognition.augment import (
    Augment,
    Equalizer,
    Gain,
    Noise,
    SpeedPerturbation,
)


def recordings(*lengths: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    count = torch.tensor(lengths)
    waveform = 0.1 * torch.randn(len(lengths), max(lengths))
    return waveform * (torch.arange(max(lengths)) < count[:, None]), count


PARTS = [
    SpeedPerturbation(),
    SpeedPerturbation((0.5, 2.0, 0.97)),
    Noise(probability=1.0),
    Noise((0.0, 0.0), probability=0.5, color=0.0),
    Gain(),
    Equalizer(),
    Equalizer(20.0, 2),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_what_happens_to_an_item_depends_on_its_own_numbers_alone(part: Augment) -> None:
    waveform, lengths = recordings(8000, 1, 4321, 7999, 100, 8000)
    before = waveform.clone()
    u = uniforms(0, 0, torch.arange(6), part.draws)
    together, after = part(waveform, lengths, u)
    assert torch.equal(waveform, before)
    assert together.dtype == torch.float32
    assert together.shape == (6, int(after.max()))
    for number, length in enumerate(lengths.tolist()):
        item = slice(number, number + 1)
        alone, count = part(waveform[item, :length], lengths[item], u[item])
        assert count == after[number]
        torch.testing.assert_close(together[number, :count], alone[0], atol=1e-6, rtol=0)
        assert not together[number, count:].any()
    others, _ = part(waveform, lengths, uniforms(0, 1, torch.arange(6), part.draws))
    assert others.shape != together.shape or not torch.equal(others, together)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_parts_can_be_copied_to_other_processes(part: Augment) -> None:
    waveform, lengths = recordings(900, 500)
    u = uniforms(0, 0, torch.arange(2), part.draws)
    again = pickle.loads(pickle.dumps(part))
    assert torch.equal(again(waveform, lengths, u)[0], part(waveform, lengths, u)[0])


@pytest.mark.parametrize(
    ("factor", "ratio"), [(0.9, (9, 10)), (1.1, (11, 10)), (0.97, (97, 100)), (2.0, (2, 1))]
)
def test_speed_changes_the_length_exactly(factor: float, ratio: tuple[int, int]) -> None:
    lengths = [1, 2, 9, 10, 11, 999, 1000, 16001]
    waveform, count = recordings(*lengths)
    out, after = SpeedPerturbation((factor,))(waveform, count, torch.zeros(8, 1))
    assert after.tolist() == [math.ceil(length * ratio[1] / ratio[0]) for length in lengths]
    expected = torchaudio.functional.resample(waveform[7], *ratio)
    torch.testing.assert_close(out[7, : len(expected)], expected, atol=1e-5, rtol=0)


def test_speed_moves_a_tone() -> None:
    t = torch.arange(16000) / 16000
    tone = torch.sin(2 * math.pi * 1000 * t)[None]
    for factor in (0.9, 1.1):
        out, (length,) = SpeedPerturbation((factor,))(
            tone, torch.tensor([16000]), torch.zeros(1, 1)
        )
        peak = torch.fft.rfft(out[0]).abs().argmax() * 16000 / int(length)
        assert float(peak) == pytest.approx(1000 * factor, abs=2)


def test_each_speed_is_equally_likely_and_1_changes_nothing() -> None:
    waveform, lengths = torch.ones(3000, 10), torch.full((3000,), 10)
    u = uniforms(0, 0, torch.arange(3000), 1)
    u[0] = 1.0 - 2.0**-24
    out, after = SpeedPerturbation((0.5, 1.0, 2.0))(waveform, lengths, u)
    counts = torch.bincount(after, minlength=21)
    assert counts[[5, 10, 20]].sum() == 3000
    assert int((counts[[5, 10, 20]] - 1000).abs().max()) < 100
    assert torch.equal(out[after == 10, :10], waveform[after == 10])


@pytest.mark.parametrize("color", [0.0, 1.0, 2.0])
def test_noise_has_the_ratio_that_was_asked_for(color: float) -> None:
    waveform, lengths = recordings(16000, 5000, 300)
    for asked in (-5.0, 0.0, 20.0):
        out, after = Noise((asked, asked), 1.0, color)(waveform, lengths, torch.rand(3, 3))
        assert torch.equal(after, lengths)
        ratio = waveform.square().sum(1) / (out - waveform).square().sum(1)
        torch.testing.assert_close(10 * ratio.log10(), torch.full((3,), asked), atol=0.5, rtol=0)


def test_ratios_are_spread_over_the_range_and_noise_comes_as_often_as_asked() -> None:
    waveform, lengths = torch.ones(4000, 50), torch.full((4000,), 50)
    out, _ = Noise((10.0, 30.0), 0.25)(waveform, lengths, uniforms(0, 0, torch.arange(4000), 3))
    power = (out - waveform).square().mean(1)
    noisy = power[power > 0]
    assert len(noisy) / 4000 == pytest.approx(0.25, abs=0.03)
    snr = -10 * noisy.log10()
    assert float(snr.min()) + 1e-3 >= 10.0
    assert float(snr.max()) - 1e-3 <= 30.0
    assert float(snr.mean()) == pytest.approx(20.0, abs=0.7)


@pytest.mark.parametrize(("color", "slope"), [(0.0, 0.0), (1.0, -10.0), (2.0, -20.0)])
def test_colour_is_the_slope_of_the_spectrum(color: float, slope: float) -> None:
    """In dB for ten times the frequency."""
    silence = torch.full((1, 2**18), 1.0)
    out, _ = Noise((0.0, 0.0), 1.0, color)(silence, torch.tensor([2**18]), torch.zeros(1, 3))
    power = torch.fft.rfft(out[0] - 1).abs().square()
    low, high = (float(power[n // 2 : n * 2].mean().log10()) * 10 for n in (1000, 10000))
    assert high - low == pytest.approx(slope, abs=1.0)


def test_different_items_have_different_noise_that_repeats_only_after_some_seconds() -> None:
    waveform, lengths = torch.ones(2, 300000), torch.tensor([300000, 300000])
    u = torch.tensor([[0.2, 0.5, 0.0], [0.6, 0.5, 0.0]])
    out, _ = Noise((0.0, 0.0), 1.0)(waveform, lengths, u)
    noise = out - 1
    assert abs(float(torch.corrcoef(noise[:, :100000])[0, 1])) < 0.1
    torch.testing.assert_close(noise[0, 2**18 : 2**18 + 999], noise[0, :999])


def test_silence_stays_silent() -> None:
    for part in PARTS:
        out, _ = part(torch.zeros(2, 500), torch.tensor([500, 1]), torch.zeros(2, part.draws))
        assert not out.any()


def test_gain_is_in_decibels() -> None:
    waveform, lengths = recordings(500, 200)
    out, after = Gain(-6.0, 14.0)(waveform, lengths, torch.tensor([[0.0], [0.5]]))
    assert torch.equal(after, lengths)
    torch.testing.assert_close(out[0], waveform[0] * 10 ** (-6 / 20))
    torch.testing.assert_close(out[1], waveform[1] * 10 ** (4 / 20))


@pytest.mark.parametrize("bands", [2, 5, 8])
def test_an_equalizer_gives_octaves_their_gains_and_delays_nothing(bands: int) -> None:
    size = 2**14
    click = torch.zeros(1, size)
    click[0, size // 2] = 1.0
    u = torch.rand(1, bands, generator=torch.Generator().manual_seed(0))
    out, lengths = Equalizer(9.0, bands)(click, torch.tensor([size]), u)
    assert lengths.tolist() == [size]
    torch.testing.assert_close(out[0, 1:], out[0, 1:].flip(0), atol=1e-6, rtol=0)
    decibels = 20 * torch.fft.rfft(out[0]).abs().log10()
    heard = decibels[[size // 2 >> octave for octave in range(bands)]]
    torch.testing.assert_close(heard, (2 * u[0] - 1) * 9.0, atol=0.6, rtol=0)
    between = decibels[round(size / 2 * 2**-0.5)]
    torch.testing.assert_close(between, (heard[0] + heard[1]) / 2, atol=0.3, rtol=0)
    assert float(decibels[3]) == pytest.approx(float(heard[-1]), abs=0.6)


def test_an_equalizer_without_gains_changes_nothing() -> None:
    waveform, lengths = recordings(3000, 200)
    out, _ = Equalizer()(waveform, lengths, torch.full((2, 5), 0.5))
    torch.testing.assert_close(out, waveform, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SpeedPerturbation(()), "factors must hold at least one speed"),
        (lambda: SpeedPerturbation((0.3,)), r"factors must lie in \[0.5, 2\], got \[0.3\]"),
        (
            lambda: SpeedPerturbation((0.98765,)),
            "ratios of whole numbers up to 100, got 0.98765; the nearest is 0.987654",
        ),
        (lambda: Noise((20.0, 10.0)), r"snr must be two rising numbers in dB, got \[20.0, 10.0\]"),
        (lambda: Noise((0.0, math.inf)), "snr must be two rising numbers in dB"),
        (lambda: Noise(probability=1.5), r"probability must lie in \[0, 1\], got 1.5"),
        (lambda: Noise(color=-1.0), "color must be at least 0, got -1"),
        (
            lambda: Gain(3.0, -3.0),
            r"low and high must be two rising numbers in dB, got \[3.0, -3.0\]",
        ),
        (lambda: Equalizer(0.0), "gain is in dB and must be above 0, got 0"),
        (lambda: Equalizer(math.nan), "gain is in dB and must be above 0, got nan"),
        (lambda: Equalizer(bands=1), r"bands must lie in \[2, 10\], got 1"),
    ],
)
def test_wrong_options_are_named(build: type[Augment], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
