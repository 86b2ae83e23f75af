"""What the task does with recordings: its loss, its score, what is read, heard and seen of them, and prediction."""

import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from resdomains.core import (
    ConformerNorm,
    ConvolutionModule,
    FeedForward,
    FrameHead,
    LayerNorm,
    ResidualEncoder,
    ResidualMLP,
    ResNet1d,
    SelfAttention,
    SpectrogramStem,
    SubsamplingStem,
    WaveformStem,
)
from resdomains.interop import Checkpoint
from resdomains.training import BadSample
from resdomains.training.figures import Sound
from resdomains_tasks.speech_recognition import (
    AudioFile,
    Decoder,
    Frontend,
    LogMel,
    PrefixBeam,
    SpecAugment,
    SpeechRecognition,
    Tokenizer,
    Waveform,
    Windows,
)

from .support import RATE, WORDS, Given, Kept, said, small_task, spec_of, spoken

TEXTS = ["low", "mid high", "high mid low", "low low mid"]


def trainer(**options: Any) -> Trainer:
    return Trainer(
        **{
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "accelerator": "cpu",
            **options,
        }
    )


def batch_of(*utterances: tuple[Tensor, str], first: int = 0) -> dict[str, Tensor]:
    """A batch of sounds and what is said in them."""
    tokenizer = Tokenizer(WORDS.tokenizer)
    ids = [torch.tensor(tokenizer.encode(text)) for _, text in utterances]
    sounds = [sound for sound, _ in utterances]
    return {
        "waveform": nn.utils.rnn.pad_sequence(sounds, batch_first=True),
        "lengths": torch.tensor([len(sound) for sound in sounds]),
        "tokens": nn.utils.rnn.pad_sequence(ids, batch_first=True),
        "token_lengths": torch.tensor([len(own) for own in ids]),
        "index": torch.arange(first, first + len(ids)),
    }


def tones(text: str, seed: int = 0) -> tuple[Tensor, str]:
    return torch.from_numpy(spoken(text.split(), seed)), text


HOPELESS = (torch.zeros(200), "low mid high low mid high")
"""0.1 seconds: fewer frames than letters."""


def gradients(task: SpeechRecognition, batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    task.zero_grad()
    result = task.step(batch, "train")
    result.loss.backward()  # type: ignore[no-untyped-call]
    found = [p.grad.clone() for p in task.parameters() if p.grad is not None]
    return result.loss.detach(), found


def exact_task(**options: Any) -> SpeechRecognition:
    """Without what is random in training and what ties a batch's items together."""
    torch.manual_seed(0)
    backbone = ResNet1d(
        in_channels=12,
        layers=[1, 1],
        channels=[16, 16],
        strides=[1, 1],
        stem=lambda place: SpectrogramStem(place, kernel=5),
        norm=LayerNorm,
    )
    chosen = {"frontend": lambda rate: LogMel(rate, bands=12, dither=0.0), **options}
    return small_task(backbone=backbone, **chosen)


def test_an_utterance_without_a_path_is_as_if_it_were_absent_from_the_loss() -> None:
    task = exact_task()
    good = [tones(text, n) for n, text in enumerate(TEXTS)]
    loss, found = gradients(task, batch_of(*good))
    with_it, its = gradients(task, batch_of(*good[:2], HOPELESS, *good[2:]))
    assert with_it.item() == pytest.approx(loss.item(), rel=1e-5)
    for one, other in zip(found, its, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert task.step(batch_of(*good, HOPELESS), "train").items == 4


def test_it_is_named_once_with_its_place_and_what_would_help(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = small_task()
    data = Given([said(text) for text in TEXTS])
    data.ready()
    task.__dict__["describe"] = data.describe
    batch = batch_of(tones("low"), HOPELESS)
    for _ in range(2):
        task.step(batch, "train")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == (
        "mid high: 25 tokens do not fit into 6 frames; left out of the loss "
        "(a smaller stride of the backbone, a smaller hop or larger tokens would fit)"
    )


def test_a_batch_of_nothing_else_trains_nothing_and_breaks_nothing() -> None:
    task = exact_task()
    loss, found = gradients(task, batch_of(HOPELESS, HOPELESS))
    assert loss.item() == 0.0
    assert found
    assert not any(grad.any() for grad in found)
    result = task.step(batch_of(HOPELESS), "train")
    assert result.items == 0


def test_its_words_count_in_the_error_rate() -> None:
    task = small_task().eval()
    task.step(batch_of(tones("low mid"), HOPELESS), "test")
    metrics = task.metrics_of("test")
    rows = metrics["utterances"].compute()
    assert rows[:, 4].tolist() == [2, 6]
    errors = int(rows[:, 1:4].sum())
    assert metrics["wer"].compute().item() == pytest.approx(errors / 8)


def test_training_measures_nothing() -> None:
    task = small_task()
    task.step(batch_of(tones("low mid")), "train")
    assert set(task.metrics) == {"val", "test"}
    for split in ("val", "test"):
        for metric in task.metrics_of(split).values():
            assert not metric.update_called


def test_the_score_is_one_minus_wer_but_not_below_zero() -> None:
    task = small_task()
    scores = [task.score({"wer": torch.tensor(wer)}).item() for wer in (0.0, 0.25, 1.0, 3.0)]
    assert scores == [1.0, 0.75, 0.0, 0.0]
    assert SpeechRecognition.chance(WORDS.plain()) == 0.0


class Counted(SpecAugment):
    """Says how often it masked."""

    calls = 0

    def forward(self, x: Tensor, lengths: Tensor, keys: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x, lengths, keys)


def test_features_are_masked_where_a_batch_has_keys_and_as_those_say() -> None:
    masking = Counted(frequency_width=4)
    task = exact_task(masking=masking).eval()
    batch = batch_of(tones("low mid"), tones("high"))
    plain, _ = task(batch["waveform"], batch["lengths"])
    assert masking.calls == 0
    task.step(batch, "val")
    assert masking.calls == 0
    first, _ = task(batch["waveform"], batch["lengths"], torch.tensor([3, 4]))
    again, _ = task(batch["waveform"], batch["lengths"], torch.tensor([3, 4]))
    other, _ = task(batch["waveform"], batch["lengths"], torch.tensor([3, 5]))
    assert first.equal(again)
    assert not first.equal(plain)
    assert first[0].equal(other[0])
    assert not first[1].equal(other[1])
    task.step({**batch, "keys": torch.tensor([3, 4])}, "train")
    assert masking.calls == 4


class Frames(Frontend):
    """Windows of 41 samples, every 20, through a fixed random map: what a frame is does not depend on the item."""

    channels, hop = 12, 20

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight: Tensor
        self.register_buffer("weight", 0.3 * torch.randn(12, 1, 41, generator=generator))
        self.longest = 0

    def features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        self.longest = max(self.longest, waveform.shape[1])
        frames = lengths.sub(1) // self.hop + 1
        x = F.conv1d(waveform[:, None], self.weight, stride=self.hop, padding=20)
        return x * (torch.arange(x.shape[2]) < frames[:, None])[:, None], frames


def fixed_task(**options: Any) -> SpeechRecognition:
    """A network that sees 0.3 seconds around a frame and writes something in nearly every one."""
    task = exact_task(**{"frontend": Frames, "windows": Windows(2.0, 0.8), **options}).eval()
    with torch.no_grad():
        cast(Any, task.head).linear.weight.mul_(30.0)
        cast(Any, task.head).linear.bias.zero_()
    return task


def recording(path: Path, words: int, rate: int = RATE) -> Path:
    draw = random.Random(words)
    sound = spoken([draw.choice(["low", "mid", "high"]) for _ in range(words)], words)
    soundfile.write(path, sound, rate, subtype="FLOAT")
    return path


def items_of(task: SpeechRecognition, *inputs: Path | str) -> list[dict[str, Any]]:
    items = list(task.read([str(given) for given in inputs]))
    assert not any(isinstance(item, BadSample) for item in items)
    return cast(list[dict[str, Any]], items)


def predicted(task: SpeechRecognition, *inputs: Path | str) -> list[dict[str, Any]]:
    return task.predict(task.collate(items_of(task, *inputs)))


def same(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a["source"], a["seconds"], a["text"]) == (b["source"], b["seconds"], b["text"])
        for word, its in zip(a["words"], b["words"], strict=True):
            assert (word["word"], word["start"], word["end"]) == (
                its["word"],
                its["start"],
                its["end"],
            )
            assert word["probability"] == pytest.approx(its["probability"], abs=1e-4)


def test_long_recordings_in_windows_read_like_those_taken_at_once(tmp_path: Path) -> None:
    paths = [recording(tmp_path / f"{n}.wav", n) for n in (1, 40, 3, 90, 2)]
    cut, whole = fixed_task(), fixed_task(windows=Windows(1000.0, 2.0))
    assert [isinstance(item["recording"], AudioFile) for item in items_of(cut, *paths)] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert cut.size(items_of(cut, paths[1])[0]) == len(items_of(whole, paths[1])[0]["recording"])
    found = predicted(cut, *paths)
    assert len(set(found[1]["text"])) > 5
    same(found, predicted(whole, *paths))
    assert cast(Frames, cut.frontend).longest <= 2 * RATE
    for record, path in zip(found, paths, strict=True):
        same([record], predicted(cut, path))


class Whole(AudioFile):
    """A file that must not be read as a whole."""

    def read(self) -> Tensor:
        raise AssertionError("read as a whole")


def test_a_long_recording_is_never_read_as_a_whole(tmp_path: Path) -> None:
    path = recording(tmp_path / "long.wav", 40)
    task = fixed_task()
    (found,) = task.predict({"recording": [Whole(path)], "source": ["long"]})
    (expected,) = predicted(task, path)
    assert found["text"] == expected["text"]


def test_a_long_recording_at_another_rate_reads_like_one_taken_at_once(tmp_path: Path) -> None:
    for rate in (2 * RATE, 1601, 1999):
        path = tmp_path / f"{rate}.wav"
        sound = np.repeat(spoken(["low", "mid", "high"] * 20), 2 if rate > RATE else 1)
        soundfile.write(path, sound, rate, subtype="FLOAT")
        (cut,) = predicted(fixed_task(), path)
        (whole,) = predicted(fixed_task(windows=Windows(1000.0, 2.0)), path)
        assert cut["seconds"] == whole["seconds"] == pytest.approx(len(sound) / rate, rel=1e-3)
        # Windows begin between two samples of the file, so that a frame here and there reads otherwise.
        differing = sum(a != b for a, b in zip(cut["text"], whole["text"], strict=False))
        assert len(cut["text"]) == pytest.approx(len(whole["text"]), abs=5)
        assert differing < len(whole["text"])


def test_times_rise_and_lie_within_the_recording(tmp_path: Path) -> None:
    lengths = [1, 19, 20, 21, 400, 1000, 1001, 4000, 9001]
    paths = [tmp_path / f"{n}.wav" for n in lengths]
    for path, length in zip(paths, lengths, strict=True):
        sound = np.resize(spoken(["low", "mid", "high"] * 4), length)
        soundfile.write(path, sound, RATE)
    for task in (
        fixed_task(),
        fixed_task(frontend=lambda rate: LogMel(rate, bands=12, dither=0.0)),
    ):
        for length, record in zip(lengths, predicted(task, *paths), strict=True):
            assert record["seconds"] == round(length / RATE, 3)
            assert record["text"].split() == [word["word"] for word in record["words"]]
            times = [word[name] for word in record["words"] for name in ("start", "end")]
            assert times == sorted(times)
            assert all(0.0 <= time <= length / RATE for time in times)
            assert all(0.0 < word["probability"] <= 1.0 for word in record["words"])
        assert record["words"]


def test_a_bad_recording_is_named_and_the_next_still_read(tmp_path: Path) -> None:
    good = recording(tmp_path / "good.wav", 2)
    broken, no_numbers = tmp_path / "broken.wav", tmp_path / "long.wav"
    broken.write_text("hello")
    values = np.zeros(40 * RATE, np.float32)
    values[-7] = np.nan
    soundfile.write(no_numbers, values, RATE, subtype="FLOAT")
    task = fixed_task()
    bad, worse, fine = task.read([str(path) for path in (broken, no_numbers, good)])
    assert isinstance(bad, BadSample)
    assert isinstance(worse, BadSample)
    assert isinstance(fine, dict)
    assert worse.source == str(no_numbers)
    assert "NaN or infinite" in worse.reason
    assert fine["source"] == str(good)


def test_batches_of_a_data_module_are_predicted_too() -> None:
    task = fixed_task()
    batch = batch_of(tones("low mid"), tones("high"), first=5)
    records = task.predict(batch)
    assert [record["source"] for record in records] == ["sample 5", "sample 6"]
    alone = task.predict(batch_of(tones("high"), first=6))
    same(records[1:], alone)
    assert json.loads(json.dumps(records)) == records


class Fixed(Decoder):
    """Hears what it is told to."""

    def __init__(self, *heard: str) -> None:
        self.heard = list(heard)

    def bind(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def decode(self, log_probs: Tensor, frames: Tensor) -> list[list[int]]:
        return [self.tokenizer.encode(self.heard[0]) if self.heard[0] else [] for _ in frames]


def run(task: SpeechRecognition, data: Given) -> tuple[Trainer, Any]:
    running = trainer()
    running.test(task, data, verbose=False)
    return running, task.results["test"]


def test_people_read_hear_and_see_what_is_recognised() -> None:
    utterances = [
        said(text, f"{n}.wav", speaker="ab"[n % 2], seed=n) for n, text in enumerate(TEXTS)
    ]
    task = small_task(decoder=Fixed("mid high"))
    data = Given(utterances, test=utterances)
    _, results = run(task, data)
    assert results["wer"].item() == pytest.approx((2 + 0 + 2 + 3) / 9, abs=0.12)
    assert task.examples("test", results) == [
        "low  ->  mid high",
        "mid high  =  heard",
        "low low mid  ->  mid high",
    ]
    tables = task.tables("test", results)
    assert {"utterances", "speakers", "durations", "confusions", "listen"} == set(tables)
    assert {row["source"] for row in tables["utterances"]} == {f"{n}.wav" for n in range(4)}
    for row in tables["listen"]:
        assert set(row) == {"sound", "reference", "hypothesis", "wer", "source"}
        assert isinstance(row["sound"], Sound)
        number = int(row["source"][0])
        assert row["sound"].rate == RATE
        assert row["sound"].samples.equal(utterances[number].audio.read())
        assert row["reference"] == TEXTS[number]
        assert row["hypothesis"] == "mid high"
    rates = [row["wer"] for row in tables["listen"]]
    assert rates[-1] == 0.0
    figures = task.figures("test", results)
    assert set(figures) == {
        "speakers",
        "durations",
        "confusions",
        *(f"{kind}_{which}" for kind in ("emissions", "alignment") for which in ("first", "worst")),
    }


@pytest.mark.parametrize("samples", [1, 30, 2000])
@pytest.mark.parametrize("raw", [False, True])
def test_what_is_hardly_a_recording_is_drawn_too(samples: int, raw: bool) -> None:
    utterance = said("low")
    utterance.audio = Kept(torch.zeros(samples))
    frontend: dict[str, Any] = {}
    if raw:
        frontend = {"frontend": Waveform, "backbone": waveform_network()}
    task = small_task(**frontend)
    _, results = run(task, Given([said("low mid high")], test=[utterance]))
    figures = task.figures("test", results)
    for figure in figures.values():
        figure.canvas.draw()
    above = figures["emissions_first"].axes[0]
    assert bool(above.images) is not raw  # one channel is a curve
    assert len(task.tables("test", results)["listen"]) == 1
    (line,) = task.examples("test", results)
    assert line.startswith("low  ->  ")
    # Of a split without any path there is no loss, but a score.
    assert bool(results["loss"].isnan()) is (samples < 2000)
    assert 0.0 <= results["score"] <= 1.0


def test_nothing_heard_is_said_so() -> None:
    task = small_task(decoder=Fixed(""))
    _, results = run(task, Given([said("low mid high")], test=[said("low"), said("mid")]))
    assert task.examples("test", results) == ["low  ->  (nothing)", "mid  ->  (nothing)"]
    assert task.score(results).item() == 0.0
    for figure in task.figures("test", results).values():
        figure.canvas.draw()


def test_outside_a_run_there_is_nothing_to_hear() -> None:
    task = small_task().eval()
    task.step(batch_of(tones("low")), "test")
    results = {name: metric.compute() for name, metric in task.metrics_of("test").items()}
    assert "listen" not in task.tables("test", results)
    assert not any(name.startswith("emissions") for name in task.figures("test", results))


def learn(task: SpeechRecognition, batch: dict[str, Tensor], steps: int, rate: float) -> float:
    optimizer = torch.optim.Adam(task.parameters(), rate)
    for _ in range(steps):
        loss = task.step(batch, "train").loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
    task.eval()
    return loss.item()


def waveform_network() -> ResNet1d:
    return ResNet1d(
        in_channels=1, layers=[1, 1], channels=[32, 32], strides=[1, 1], stem=WaveformStem
    )


def subsampled() -> ResidualEncoder:
    """Conformer's layer, once."""
    return ResidualEncoder(
        layers=1,
        width=32,
        in_channels=12,
        stem=SubsamplingStem,
        layer=(FeedForward, SelfAttention, ConvolutionModule, FeedForward),
        norm_position=ConformerNorm(),
    )


@pytest.mark.parametrize("kind", ["mel", "waveform", "conformer"])
def test_a_tiny_batch_is_learned_by_networks_of_every_kind(kind: str) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {}
    if kind == "waveform":
        options = {"frontend": Waveform, "backbone": waveform_network()}
    elif kind == "conformer":
        hop = lambda rate: LogMel(rate, bands=12, hop=0.005)  # noqa: E731
        options = {"backbone": subsampled(), "frontend": hop}
    task = small_task(**options)
    texts = ["low", "mid high", "high mid", "low mid"]
    batch = batch_of(*(tones(text, n) for n, text in enumerate(texts)))
    learn(task, batch, 120, 0.01)
    assert [record["text"] for record in task.predict(batch)] == texts
    assert task.hop == {"mel": 40, "waveform": 16, "conformer": 40}[kind]


def test_the_decoder_is_a_part(tmp_path: Path) -> None:
    beam = fixed_task(decoder=PrefixBeam(width=4))
    path = recording(tmp_path / "a.wav", 3)
    (record,) = predicted(beam, path)
    (greedy,) = predicted(fixed_task(), path)
    assert record["text"]
    assert record["seconds"] == greedy["seconds"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backbone": nn.Linear(2, 2)}, TypeError, "backbone Linear states no out_channels"),
        (
            {"frontend": Waveform},
            ValueError,
            r"reads 12 channels, the frontend Waveform gives 1; set --model\.backbone\.in_channels 1",
        ),
        (
            {"backbone": ResidualMLP(in_channels=12)},
            ValueError,
            r"ResidualMLP cannot read frames \(x: expected vectors .*quartznet5x5",
        ),
        ({"masking": SpecAugment()}, ValueError, "2 .* of frequency_width 15 could hide all 12"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        small_task(**options)


def test_a_spec_whose_numbers_contradict_is_refused() -> None:
    plain = {**WORDS.plain(), "vocabulary": 4}
    with pytest.raises(ValueError, match="its tokenizer has 10 ids, its vocabulary 4"):
        SpeechRecognition(backbone=waveform_network(), spec=plain)


class Fresh(FrameHead):
    """Begins with other weights than the head of the same seed."""

    def __init__(self, channels: int, outputs: int) -> None:
        torch.manual_seed(5)
        super().__init__(channels, outputs)


def test_an_earlier_run_of_another_vocabulary_keeps_the_rows_of_shared_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = small_task()
    path = tmp_path / "earlier.ckpt"
    checkpoint: dict[str, Any] = {
        "state_dict": earlier.state_dict(),
        "resdomains": {"format": 1, "recipe": None, "spec": WORDS.plain()},
    }
    earlier.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    spec = spec_of("low cab")
    later = small_task(spec, weights=Checkpoint(str(path)), head=Fresh)
    ours, theirs = spec.output_names, WORDS.output_names
    shared = set(ours) & set(theirs)
    assert shared == {"<blank>", "▁", "l", "o", "w"}
    mine, others = cast(Any, later.head).linear, cast(Any, earlier.head).linear
    for name in shared:
        assert mine.weight[ours.index(name)].equal(others.weight[theirs.index(name)])
        assert mine.bias[ours.index(name)].equal(others.bias[theirs.index(name)])
    for name in set(ours) - shared:
        assert not any(mine.weight[ours.index(name)].equal(row) for row in others.weight)
    for one, other in zip(later.backbone.parameters(), earlier.backbone.parameters(), strict=True):
        assert one.equal(other)
