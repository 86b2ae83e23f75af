import math

import numpy as np
import pytest
import torch
import torchaudio
from torch import Tensor

from resdomains_tasks.speech_recognition.frontend import Frontend, ItemNorm, LogMel, Waveform


def noise(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Recordings that are no silence anywhere, with what must not matter behind them."""
    generator = torch.Generator().manual_seed(seed)
    waveform = 0.1 * torch.randn(len(lengths), max(lengths), generator=generator)
    return waveform, torch.tensor(lengths)


def plain(rate: int = 16000, bands: int = 64) -> LogMel:
    return LogMel(rate, bands, preemphasis=0.0, dither=0.0).eval()


def normalised(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize(
    ("rate", "bands", "fft"), [(16000, 64, 512), (16000, 80, 512), (8000, 40, 256)]
)
def test_the_bands_are_torchaudios(rate: int, bands: int, fft: int) -> None:
    waveform, lengths = noise(rate + 77)
    reference = torchaudio.transforms.MelSpectrogram(
        rate,
        n_fft=fft,
        win_length=rate // 40,
        hop_length=rate // 100,
        n_mels=bands,
        pad_mode="constant",
        norm="slaney",
        mel_scale="slaney",
        wkwargs={"periodic": False},
    )
    expected = normalised((reference(waveform) + 2.0**-24).log())
    x, frames = plain(rate, bands)(waveform, lengths)
    assert frames.tolist() == [expected.shape[2]]
    torch.testing.assert_close(x, expected, atol=1e-4, rtol=1e-4)


def test_a_frame_by_hand() -> None:
    """With numpy, in float64: pre-emphasis, the window centred on its sample, the transform, the bands."""
    rate, samples = 16000, 4000
    waveform, lengths = noise(samples)
    x = waveform[0].double().numpy()
    emphasised = np.concatenate(([x[0] * (1 - 0.97)], x[1:] - 0.97 * x[:-1]))
    padded = np.pad(emphasised, 512)
    mels = torchaudio.functional.melscale_fbanks(257, 0.0, 8000.0, 64, rate, "slaney", "slaney")
    rows = []
    for t in range(samples // 160 + 1):
        middle = 512 + t * 160
        frame = padded[middle - 200 : middle + 200] * np.hanning(400)
        power = np.abs(np.fft.rfft(frame, 512)) ** 2
        rows.append(np.log(power @ mels.double().numpy() + 2.0**-24))
    expected = normalised(torch.tensor(np.stack(rows, 1)))
    found, _ = LogMel(rate).eval()(waveform, lengths)
    torch.testing.assert_close(found[0].double(), expected, atol=1e-4, rtol=0)


def over_all_bands(sample_rate: int) -> LogMel:
    return LogMel(sample_rate, norm=ItemNorm())


@pytest.mark.parametrize(
    "build",
    [LogMel, plain, over_all_bands, Waveform],
    ids=["default", "plain", "over all bands", "waveform"],
)
def test_an_items_features_do_not_depend_on_its_batch(build: type[Frontend]) -> None:
    frontend = build(16000).eval()
    waveform, lengths = noise(16000, 1, 4000, 15999, 160, 159, 161, 9999)
    waveform[2:] += 0.2  # a constant, which would click where the padding begins
    together, frames = frontend(waveform, lengths)
    for number, length in enumerate(lengths.tolist()):
        alone, (count,) = frontend(
            waveform[number : number + 1, :length], lengths[number : number + 1]
        )
        assert count == frames[number] == (length if build is Waveform else length // 160 + 1)
        # A norm by band makes 0 of a single frame; one over all bands keeps the rounding of its logarithms.
        tolerance = 1e-4 if build is over_all_bands else 1e-5
        torch.testing.assert_close(together[number, :, :count], alone[0], atol=tolerance, rtol=0)
        assert alone.shape[2] == count
        assert not together[number, :, count:].any()


def test_what_stands_behind_an_item_does_not_matter() -> None:
    frontend = LogMel(16000).eval()
    waveform, lengths = noise(8000, 5000)
    loud = waveform.clone()
    loud[1, 5000:] = 100.0
    assert torch.equal(frontend(loud, lengths)[0], frontend(waveform, lengths)[0])


def test_the_mean_is_0_and_the_variance_1_over_an_items_own_frames() -> None:
    waveform, lengths = noise(16000, 6000)
    x, frames = LogMel(16000).eval()(waveform, lengths)
    for item, count in zip(x, frames.tolist(), strict=True):
        own = item[:, :count]
        torch.testing.assert_close(own.mean(1), torch.zeros(64), atol=1e-5, rtol=0)
        torch.testing.assert_close(own.var(1, correction=0), torch.ones(64), atol=1e-3, rtol=0)
    y, _ = Waveform(16000)(waveform + 0.3, lengths)
    assert float(y[1, 0, :6000].mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(y[1, 0, :6000].var()) == pytest.approx(1.0, abs=1e-3)


def test_a_norm_over_all_bands_keeps_their_differences() -> None:
    waveform, lengths = noise(16000, 6000)
    by_band, frames = LogMel(16000).eval()(waveform, lengths)
    x, _ = over_all_bands(16000).eval()(waveform, lengths)
    for item, other, count in zip(x, by_band, frames.tolist(), strict=True):
        own = item[:, :count]
        assert float(own.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(own.var(correction=0)) == pytest.approx(1.0, abs=1e-3)
        assert float(own.mean(1).std()) > 0.1
        again = (own - own.mean(1, keepdim=True)) / own.std(1, keepdim=True, correction=0)
        torch.testing.assert_close(again, other[:, :count], atol=1e-2, rtol=0)


@pytest.mark.parametrize("end", ["begin", "end"])
def test_pre_emphasis_makes_no_click_at_an_end(end: str) -> None:
    """A recording with a constant in it is loudest in its middle, not where it begins or its padding follows."""
    frontend = LogMel(16000).eval()
    frontend.mels.fill_(0.0)
    frontend.mels[:, 0] = 1.0  # the whole energy of a frame
    frontend.norm.floor = 1e9  # leaves only differences of logarithms
    t = torch.arange(16000) / 16000
    waveform = torch.zeros(1, 17000)
    waveform[:, :16000] = 0.01 * torch.sin(2 * math.pi * 1000 * t) + 0.5
    energy = frontend(waveform, torch.tensor([16000]))[0][0, 0] * math.sqrt(1e9)
    edge = energy[:2] if end == "begin" else energy[99:101]
    assert float(edge.max() - energy[50]) < 0.5


def test_dither_is_for_training_only() -> None:
    frontend = LogMel(16000)
    silence, lengths = torch.zeros(1, 8000), torch.tensor([8000])
    torch.manual_seed(0)
    assert not torch.equal(frontend(silence, lengths)[0], frontend(silence, lengths)[0])
    quiet = frontend.eval()(silence, lengths)[0]
    assert torch.equal(quiet, frontend(silence, lengths)[0])
    undithered = LogMel(16000, dither=0.0).train()
    assert torch.equal(undithered(silence, lengths)[0], quiet)
    padded = frontend.train()(torch.zeros(1, 9000), torch.tensor([2000]))[0]
    assert not padded[:, :, 13:].any()


@pytest.mark.parametrize("build", [LogMel, Waveform])
@pytest.mark.parametrize("samples", [1, 2, 159, 5000])
@pytest.mark.parametrize("level", [0.0, 1.0, 1e-20, 1e4])
def test_silence_constants_and_single_samples_are_finite(
    build: type[Frontend], samples: int, level: float
) -> None:
    for frontend in (build(16000).train(), build(16000).eval()):
        x, _ = frontend(torch.full((1, samples), level), torch.tensor([samples]))
        assert x.isfinite().all()
        assert float(x.abs().max()) < 100


def test_silence_is_not_made_loud() -> None:
    """Rounding must not be taken for sound where the variance is 0."""
    for frontend in (plain(), Waveform(16000)):
        x, _ = frontend(torch.full((2, 16000), 0.3)[:, :9000] * 0, torch.tensor([9000, 7000]))
        assert float(x.abs().max()) < 0.01


def test_bands_are_computed_in_float32_under_autocast_too() -> None:
    frontend = LogMel(16000).eval()
    waveform, lengths = noise(8000, 5000)
    expected = frontend(waveform, lengths)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = frontend(waveform, lengths)[0]
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert Waveform(16000)(waveform.half(), lengths)[0].dtype == torch.float32


def test_what_the_bands_hold_moves_with_the_module_and_stays_out_of_checkpoints() -> None:
    frontend = LogMel(16000)
    assert [name for name, _ in frontend.named_buffers()] == ["window", "mels"]
    assert not frontend.state_dict()
    assert frontend.to("meta").mels.is_meta


def test_gradients_reach_the_samples() -> None:
    waveform, lengths = noise(4000, 2000)
    waveform.requires_grad_()
    LogMel(16000).eval()(waveform, lengths)[0].square().mean().backward()
    assert waveform.grad is not None
    assert waveform.grad.isfinite().all()
    assert waveform.grad[0].any()
    assert not waveform.grad[1, 2000:].any()


def test_bands_can_be_kept_within_some_frequencies() -> None:
    frontend = LogMel(16000, 32, lowest=300.0, highest=4000.0)
    assert frontend.channels == 32
    heard = frontend.mels.sum(1).nonzero()[:, 0] * 16000 / 512
    assert 300.0 < float(heard[0]) < 350.0
    assert 3950.0 < float(heard[-1]) < 4000.0


def test_sizes_at_other_rates() -> None:
    assert (LogMel(16000).fft, LogMel(16000).hop) == (512, 160)
    assert (LogMel(8000).fft, LogMel(8000).hop, LogMel(8000).size) == (256, 80, 200)
    assert (LogMel(22050).fft, LogMel(22050).hop, LogMel(22050).size) == (1024, 220, 551)
    assert (Waveform(8000).channels, Waveform(8000).hop) == (1, 1)
    odd = LogMel(22050).eval()
    waveform, lengths = noise(5000, 22050)
    assert odd(waveform, lengths)[1].tolist() == [23, 101]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": 0}, "bands must be at least 1, got 0"),
        ({"window": 25}, "window is in seconds .* and at most 1 second, got 25 at 16000 Hz"),
        (
            {"window": 0.0},
            "window is in seconds and must be at least 2 samples .* got 0 at 16000 Hz",
        ),
        ({"hop": 0.0}, "hop is in seconds and must be at least 1 samples .* got 0 at 16000 Hz"),
        ({"fft": 256}, "fft must be at least the window's 400 samples, got 256"),
        (
            {"lowest": 5000.0, "highest": 400.0},
            r"must rise within \[0, 8000\] Hz, got 5000 and 400",
        ),
        ({"highest": 9000.0}, r"must rise within \[0, 8000\] Hz, got 0 and 9000"),
        ({"preemphasis": 1.0}, r"preemphasis must lie in \[0, 1\), got 1"),
        ({"dither": -1.0}, "dither must be at least 0, got -1"),
        ({"bands": 200}, r"of 200 bands lie between two frequencies .* fewer bands, or fft=1024"),
    ],
)
def test_wrong_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogMel(16000, **options)  # type: ignore[arg-type]


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected a waveform \(B, L\) and lengths \(B,\), got"):
        LogMel(16000)(torch.zeros(2, 1, 9), torch.tensor([9, 9]))
    with pytest.raises(ValueError, match=r"got \(2, 9\) and \(3,\)"):
        LogMel(16000)(torch.zeros(2, 9), torch.tensor([9, 9, 9]))
