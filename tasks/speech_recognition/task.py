"""Speech recognition: features of sound, a residual network over frames, and connectionist temporal classification."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import Metric

from resdomains.core import Features, FrameHead, Head
from resdomains.interop import Weights
from resdomains.schema import Split
from resdomains.training import BadSample, Optimization, StepResult, Task
from resdomains.training.figures import Sound

from .alignment import word_times
from .audio import AudioFile, resampled, resampled_length
from .ctc import CTC
from .data import SpeechData
from .decoding import Decoder, Greedy
from .frontend import Frontend, LogMel
from .inputs import read_inputs
from .masking import SpecAugment
from .metrics import build_metrics, by_utterance, tables
from .spec import SpeechSpec
from .tokens import Tokenizer
from .windows import Window, Windows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TOGETHER = 8  # windows of a long recording that are computed at once
_READ = 3  # utterances to read after each validation
_LISTEN = 20  # utterances to listen to
_NAMES = {"val": "validation", "test": "test"}

_log = logging.getLogger(__name__)


class SpeechRecognition(Task):
    """Write down what is spoken: a probability of each token, or of none, for every frame.

    The score is 1 - WER, floored at 0: the word error rate is the sum of all utterances' substituted, deleted and
    inserted words over the sum of their words. Saying nothing has a word error rate of 1, so guessing scores 0.

    The loss is that of connectionist temporal classification (Graves et al. 2006), divided by an utterance's tokens. An
    utterance of fewer frames than its transcript needs has no path and no loss: it is named once, and left out of the
    loss, while its errors count.

    Args:
        backbone: A network over frames (B, C, T) with lengths that returns `Features`.
        spec: What a speech data module says of its recordings.
        frontend: What turns sound into the backbone's input; called with the sample rate.
        masking: Random masking of the features, in training.
        head: What maps the deepest features to the logits of every frame; called with channels and vocabulary.
        decoder: What makes tokens of probabilities.
        windows: How recordings too long for the network at once are cut, in prediction.
        weights: Weights to begin with, such as an earlier run's; where tokens differ the head is new.
        optimization: Optimizer, rate and schedule.

    Raises:
        ValueError: If spec, frontend, masking and backbone do not fit each other.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        spec: dict[str, Any],
        frontend: Callable[[int], Frontend] = LogMel,
        masking: SpecAugment | None = None,
        head: Callable[[int, int], Head] = FrameHead,
        decoder: Decoder | None = None,
        windows: Windows | None = None,
        weights: Weights | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        self.speech_spec = SpeechSpec.of(spec)
        self.tokenizer = Tokenizer(self.speech_spec.tokenizer)
        if self.tokenizer.size != self.speech_spec.vocabulary:
            raise ValueError(
                f"spec: its tokenizer has {self.tokenizer.size} ids, its vocabulary {self.speech_spec.vocabulary}"
            )
        self.frontend = frontend(self.speech_spec.sample_rate)
        out_channels = _check(backbone, self.frontend)
        self.check_reads(
            torch.zeros(1, self.frontend.channels, 1),
            "frames",
            "take a network over signals, such as ResNet1d, quartznet5x5 or conformer_small",
        )
        if masking is not None:
            masking.check(self.frontend.channels)
        self.masking = masking
        self.head = head(out_channels, self.speech_spec.vocabulary)
        self.loss = CTC()
        self.decoder = decoder if decoder is not None else Greedy()
        self.decoder.bind(self.tokenizer)
        self.windows = windows if windows is not None else Windows()
        self.begin_with(weights, self.head, self.speech_spec)
        self._named: set[tuple[Split, int]] = set()
        self.to(memory_format=torch.channels_last)
        self.build_all_metrics()

    @property
    def hop(self) -> int:
        """Samples from one frame of the logits to the next."""
        stride: int = cast(Any, self.backbone).stride[-1]
        return self.frontend.hop * stride

    def forward(
        self, waveform: Tensor, lengths: Tensor, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of every frame and how many frames of each recording count.

        Args:
            waveform: (B, L), zeros behind what counts.
            lengths: (B,) samples.
            keys: (B,) numbers that masking draws from; nothing is masked without them.

        Returns:
            (B, T, V) and (B,).
        """
        x, frames = self.frontend(waveform, lengths)
        if self.masking is not None and keys is not None:
            x = self.masking(x, frames, keys)
        features: Features = self.backbone(x, frames)
        valid = features.valid[-1]
        logits: Tensor = self.head(features)
        return logits, frames if valid is None else valid.lengths

    def build_metrics(self) -> dict[str, Metric]:
        """Return the error rates of words and characters, and what was heard of each utterance."""
        return build_metrics()

    def step(self, batch: Any, split: Split) -> StepResult:
        """Compute the loss of a batch and, unless the split is `train`, compare what is heard."""
        logits, frames = self(batch["waveform"], batch["lengths"], batch.get("keys"))
        losses, feasible = self.loss(logits, frames, batch["tokens"], batch["token_lengths"])
        items = int(feasible.sum())
        if items < len(feasible):
            self._name(split, batch, frames, feasible)
        if split != "train":
            self._measure(split, batch, logits, frames)
        return StepResult(losses.sum() / max(items, 1), items)

    def _name(
        self, split: Split, batch: Mapping[str, Any], frames: Tensor, feasible: Tensor
    ) -> None:
        """Say once of an utterance that it has no path."""
        for place in (~feasible).nonzero()[:, 0].tolist():
            index = int(batch["index"][place])
            if (split, index) in self._named:
                continue
            self._named.add((split, index))
            source = self.describe(split, index).get("source", f"sample {index} of {split}")
            _log.warning(
                f"{source}: {int(batch['token_lengths'][place])} tokens do not fit into {int(frames[place])} frames; "
                "left out of the loss (a smaller stride of the backbone, a smaller hop or larger tokens would fit)"
            )

    def _measure(
        self, split: Split, batch: Mapping[str, Any], logits: Tensor, frames: Tensor
    ) -> None:
        found = self.decoder.decode(logits.detach().float().log_softmax(-1), frames)
        references = [
            self.tokenizer.decode(ids[:length])
            for ids, length in zip(
                batch["tokens"].tolist(), batch["token_lengths"].tolist(), strict=True
            )
        ]
        hypotheses = [self.tokenizer.decode(ids) for ids in found]
        for metric in self.metrics_of(split).values():
            metric.update(batch["index"], references, hypotheses, found)

    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        """Return 1 - WER, or 0 where more words are wrong than there are."""
        return (1.0 - results["wer"]).clamp(min=0.0)

    def examples(self, split: Split, results: Mapping[str, Tensor]) -> list[str]:
        """Return what was said and what was heard of a few utterances, the same ones each time."""
        rows = results["utterances"]
        chosen = rows[torch.linspace(0, max(len(rows) - 1, 0), min(len(rows), _READ)).long()]
        lines = []
        for i in range(len(chosen)):  # one by one, for a table has the worst first
            one = chosen[i : i + 1]
            (row,) = by_utterance(one, partial(self.describe, split), self.tokenizer.decode)
            said, heard = row["reference"] or "", row["hypothesis"]
            lines.append(
                f"{said}  =  heard" if said == heard else f"{said}  ->  {heard or '(nothing)'}"
            )
        return lines

    def tables(
        self, split: Split, results: Mapping[str, Tensor]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return what was heard of each utterance, by speaker, by duration and by word, and some to listen to."""
        rows = results["utterances"].cpu()
        found = tables(rows, partial(self.describe, split), self.tokenizer.decode)
        players = self._players(split, rows)
        return {**found, **({"listen": players} if players else {})}

    def _players(self, split: Split, rows: Tensor) -> list[dict[str, Any]]:
        """Return the utterances with the most errors, each with its sound."""
        worst = sorted(rows.tolist(), key=lambda row: (-sum(row[1:4]), row[0]))[:_LISTEN]
        players = []
        for row in worst:
            sound = self._sound(split, row[0])
            if sound is None:
                return []
            (known,) = by_utterance(
                torch.tensor([row]), partial(self.describe, split), self.tokenizer.decode
            )
            players.append(
                {
                    "sound": Sound(sound, self.speech_spec.sample_rate),
                    **{name: known[name] for name in ("reference", "hypothesis", "wer", "source")},
                }
            )
        return players

    def _sound(self, split: Split, index: int) -> Tensor | None:
        """Return an utterance's sound; None outside a run."""
        data = self.data
        return data.sound(split, index) if isinstance(data, SpeechData) else None

    def figures(self, split: Split, results: Mapping[str, Tensor]) -> "dict[str, Figure]":
        """Return an utterance's features, probabilities and words; error rates by speaker and duration; confusions."""
        # Imported here: matplotlib takes half a second, for which only a figure should wait.
        from . import figures

        rows = results["utterances"].cpu()
        found = tables(rows, partial(self.describe, split), self.tokenizer.decode)
        low, high = results["wer_interval"].tolist()
        title = (
            f"{_NAMES.get(split, split)}: WER {float(results['wer']):.2%} "
            f"(95 % interval {low:.2%} to {high:.2%}), CER {float(results['cer']):.2%}"
        )
        drawn: dict[str, Figure] = {}
        if "speakers" in found:
            drawn["speakers"] = figures.error_rates(found["speakers"], "speaker", title)
        if "durations" in found:
            drawn["durations"] = figures.error_rates(found["durations"], "duration", title)
        if "confusions" in found:
            drawn["confusions"] = figures.word_confusions(found["confusions"], title)
        if len(rows):
            worst = max(rows.tolist(), key=lambda row: (sum(row[1:4]), -row[0]))[0]
            for name, index in (("first", int(rows[0, 0])), ("worst", worst)):
                drawn |= self._portrait(split, index, name)
        return drawn

    @torch.no_grad()
    def _portrait(self, split: Split, index: int, name: str) -> "dict[str, Figure]":
        """Draw what the network makes of an utterance; nothing outside a run."""
        from . import figures

        sound = self._sound(split, index)
        if sound is None:
            return {}
        about, rate = self.describe(split, index), self.speech_spec.sample_rate
        training = self.training
        self.eval()
        waveform = sound.to(self.device)[None]
        x, _ = self.frontend(waveform, torch.tensor([len(sound)], device=self.device))
        (log_probs,) = self._probabilities([sound])
        self.train(training)
        seconds = len(sound) / rate
        ids, words = self._read_off(log_probs, seconds)
        emissions = figures.emissions(
            x[0],
            log_probs.cpu(),
            self.tokenizer.pieces,
            words,
            about["reference"],
            self.tokenizer.decode(ids),
            seconds,
            f"{name} of {_NAMES.get(split, split)}: {about['source']}",
        )
        aligned = figures.alignment(sound, words, seconds, str(about["source"]))
        return {f"emissions_{name}": emissions, f"alignment_{name}": aligned}

    @staticmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        """Return 0: who says nothing misses every word."""
        return 0.0

    def read(self, inputs: Sequence[str]) -> Iterator[dict[str, Any] | BadSample]:
        """Yield the recordings of files and folders; a `BadSample` where one cannot be read.

        An item is `{"recording": (L,) at the task's sample rate, or an `AudioFile` that is too long to be read at once,
        "source": path}`.
        """
        rate = self.speech_spec.sample_rate
        for audio in read_inputs(inputs):
            if isinstance(audio, BadSample):
                yield audio
                continue
            try:
                if audio.seconds * rate > self.windows.limit(rate):
                    # Read once for its faults, so that the network never meets one half-way.
                    for window in self._windows(audio):
                        self._heard(audio, window)
                    recording: Tensor | AudioFile = audio
                else:
                    recording = resampled(audio.read(), audio.rate, rate)
            except BadSample as error:
                yield error
                continue
            yield {"recording": recording, "source": str(audio.path)}

    def size(self, item: Any) -> int:
        """Return a recording's samples at the task's rate."""
        return _samples(item["recording"], self.speech_spec.sample_rate)

    def collate(self, items: Sequence[Any]) -> dict[str, Any]:
        """Make a batch of what `read` yields."""
        return {name: [item[name] for item in items] for name in ("recording", "source")}

    @torch.no_grad()
    def predict(self, batch: Any) -> list[dict[str, Any]]:
        """Return a record for each recording.

        `source`, `seconds`, `text`, and `words`: each with `word`, `start` and `end` in seconds, and `probability`.
        """
        rate = self.speech_spec.sample_rate
        if "recording" in batch:
            recordings, sources = batch["recording"], batch["source"]
        else:
            rows = zip(batch["waveform"], batch["lengths"].tolist(), strict=True)
            recordings = [waveform[:length] for waveform, length in rows]
            sources = [f"sample {index}" for index in batch["index"].tolist()]
        together = {i: sound for i, sound in enumerate(recordings) if isinstance(sound, Tensor)}
        computed = self._probabilities(list(together.values())) if together else []
        found = dict(zip(together, computed, strict=True))
        records = []
        for i, (source, sound) in enumerate(zip(sources, recordings, strict=True)):
            log_probs = found[i] if i in found else self._whole(sound)
            seconds = _samples(sound, rate) / rate
            ids, words = self._read_off(log_probs, seconds)
            records.append(
                {
                    "source": source,
                    "seconds": round(seconds, 3),
                    "text": self.tokenizer.decode(ids),
                    "words": words,
                }
            )
        return records

    def _read_off(
        self, log_probs: Tensor, seconds: float
    ) -> tuple[Sequence[int], list[dict[str, Any]]]:
        """Return the ids that (T, V) log-probabilities say, and the words, which end where the recording does."""
        frames = torch.tensor([len(log_probs)], device=log_probs.device)
        (ids,) = self.decoder.decode(log_probs[None], frames)
        each = self.hop / self.speech_spec.sample_rate
        words = word_times(log_probs, ids, self.tokenizer, each)
        # The last frame may be centred on the last sample, or stand for fewer samples than the others.
        last = round(seconds, 4)
        for word in words:
            word.update({name: min(word[name], last) for name in ("start", "end")})
        return ids, words

    def _probabilities(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Return (T, V) log-probabilities of each waveform (L,), all computed at once."""
        lengths = torch.tensor([len(waveform) for waveform in waveforms], device=self.device)
        padded = pad_sequence(list(waveforms), batch_first=True).to(self.device)
        logits, frames = self(padded, lengths)
        log_probs = logits.float().log_softmax(-1)
        return [own[:count] for own, count in zip(log_probs, frames.tolist(), strict=True)]

    def _windows(self, audio: AudioFile) -> Iterator[Window]:
        rate = self.speech_spec.sample_rate
        return self.windows.cut(_samples(audio, rate), rate, self.hop)

    def _heard(self, audio: AudioFile, window: Window) -> Tensor:
        """Read a window of a file, (L,) at the task's rate."""
        rate = self.speech_spec.sample_rate
        # Not 1 / rate: resampling may take a ratio that is near that of the rates.
        each = audio.seconds / _samples(audio, rate)
        part = AudioFile(audio.path, window.start * each, (window.stop - window.start) * each)
        return resampled(part.read(), part.rate, rate)

    def _whole(self, audio: AudioFile) -> Tensor:
        """Return the (T, V) log-probabilities of a file too long to be read at once."""
        kept: list[Tensor] = []
        windows = list(self._windows(audio))
        for begin in range(0, len(windows), _TOGETHER):
            some = windows[begin : begin + _TOGETHER]
            computed = self._probabilities([self._heard(audio, window) for window in some])
            kept += [
                own[window.first : window.behind]
                for own, window in zip(computed, some, strict=True)
            ]
        return torch.cat(kept)


def _samples(recording: Tensor | AudioFile, rate: int) -> int:
    if isinstance(recording, Tensor):
        return len(recording)
    return resampled_length(recording.samples, recording.rate, rate)


def _check(backbone: nn.Module, frontend: Frontend) -> int:
    """Return the channels of the backbone's last map.

    Raises:
        ValueError: If the frontend gives another number of channels than the backbone takes.
        TypeError: If it is no network of ours.
    """
    out_channels = getattr(backbone, "out_channels", None)
    if not out_channels or not getattr(backbone, "stride", None):
        raise TypeError(
            f"backbone {type(backbone).__name__} states no out_channels and stride; take a network of resdomains.core"
        )
    read = getattr(backbone, "in_channels", None)
    if read is not None and read != frontend.channels:
        raise ValueError(
            f"backbone reads {read} channels, the frontend {type(frontend).__name__} gives {frontend.channels}; "
            f"set --model.backbone.in_channels {frontend.channels}"
        )
    return int(out_channels[-1])
