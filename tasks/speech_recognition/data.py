"""What every data module of speech shares: a tokenizer, decoded recordings, batches of like length."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from resdomains.schema import Split
from resdomains.training import BadSample, DataModule
from resdomains.training.bad_samples import (
    ADVICE,
    BadSamples,
    check_bad_samples,
    leave_out,
    left_out_notes,
)
from resdomains.training.batches import LengthBatches
from resdomains.training.randomness import draws, keys
from resdomains.training.room import Room

from .audio import resampled, resampled_length, undecodable
from .augment import Augment
from .spec import SpeechSpec
from .tokens import Characters, Tokenizer, Tokens
from .utterances import Corpus, Utterance

_TICK = 100  # a second: batches are planned in hundredths, not in samples
_NAMED = 5


class Recordings(Dataset[dict[str, Any]]):
    """Utterances at one sample rate with the ids of their transcripts, given out a whole batch at a time.

    Args:
        utterances: What was said, and where.
        references: The normalised transcripts.
        tokens: Their ids.
        rate: Samples a second of what is given out.
        room: Where decoded sound is kept.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        references: Sequence[str],
        tokens: Sequence[Sequence[int]],
        rate: int,
        room: Room,
    ) -> None:
        self.utterances, self.references, self.rate = utterances, references, rate
        self.tokens = [torch.tensor(ids, dtype=torch.int32) for ids in tokens]
        lengths = [resampled_length(u.audio.samples, u.audio.rate, rate) for u in utterances]
        self.lengths = torch.tensor(lengths, dtype=torch.long)
        self._room = room
        self._decoded: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.utterances)

    def waveform(self, index: int) -> Tensor:
        """Return an utterance's sound, (L,) float32.

        Raises:
            BadSample: If it cannot be decoded.
        """
        found = self._decoded.get(index)
        if found is not None:
            return found
        audio = self.utterances[index].audio
        waveform = resampled(audio.read(), audio.rate, self.rate)
        if self._room.take(waveform.nbytes):
            self._decoded[index] = waveform
        return waveform

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return a batch, or `{"bad": [(source, reason), ...]}`.

        An exception from a loader process would arrive as a traceback in text; `SpeechData.transform` raises instead.
        """
        waveforms, bad = [], []
        for index in indices:
            try:
                waveforms.append(self.waveform(index))
            except BadSample as error:
                bad.append((error.source, error.reason))
        if bad:
            return {"bad": bad}
        tokens = [self.tokens[index] for index in indices]
        return {
            "waveform": pad_sequence(waveforms, batch_first=True),
            "lengths": torch.tensor([len(waveform) for waveform in waveforms]),
            "tokens": pad_sequence(tokens, batch_first=True).long(),
            "token_lengths": torch.tensor([len(ids) for ids in tokens]),
            "index": torch.tensor(indices),
        }


class SpeechData(DataModule, ABC):
    """Recordings with their transcripts.

    A batch is `{"waveform": (B, L) float32, "lengths": (B,) samples, "tokens": (B, U), "token_lengths": (B,),
    "index": (B,)}`, zeros behind what counts; in training with `keys` (B,), a number of its own for each sample and
    epoch, from which the task draws its random numbers. Recordings are decoded as they are needed.

    Args:
        batch_size: Utterances of a batch over all processes together, on average: batches last about equally long.
        tokens: What a token is, and how transcripts are normalised; characters if not given.
        sample_rate: Samples a second, in Hz, to which recordings are resampled.
        shortest: Seconds; shorter recordings are left out of training.
        longest: Seconds; longer recordings are left out of training. All are evaluated.
        bad_samples: `refuse` stops at a recording that cannot be read or a transcript that cannot be spelled, and
            names it; `skip` reads every recording once before training, names those that fail and leaves them out.
        augment: Random changes of the sound of training batches, in order.
        kept_mib: MiB of decoded sound that each loader process keeps in memory.
        num_workers: Loader processes; 0 decodes in the training process.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        tokens: Tokens | None = None,
        sample_rate: int = 16000,
        shortest: float = 0.1,
        longest: float = 20.0,
        bad_samples: BadSamples = "refuse",
        augment: list[Augment] | None = None,
        kept_mib: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        if sample_rate < 1:
            raise ValueError(f"sample_rate must be at least 1 Hz, got {sample_rate}")
        if not 0.0 <= shortest < longest:
            raise ValueError(
                f"shortest and longest must be rising seconds from 0, got {shortest} and {longest}"
            )
        check_bad_samples(bad_samples)
        if kept_mib < 0:
            raise ValueError(f"kept_mib must be at least 0, got {kept_mib}")
        self.tokens = tokens if tokens is not None else Characters()
        self.sample_rate = sample_rate
        self.shortest, self.longest = shortest, longest
        self.bad_samples = bad_samples
        self.augment = list(augment or [])
        self.kept_mib = kept_mib
        self.left_out: list[BadSample] = []
        """What `skip` left out, each with the reason."""
        self._splits: dict[Split, Recordings] = {}
        self._spec: SpeechSpec | None = None
        self._trained: SpeechSpec | None = None
        self._notes: list[str] = []

    def adopt(self, spec: Mapping[str, Any]) -> None:
        """Take the tokenizer and the sample rate of a trained task in place of one's own."""
        self._trained = SpeechSpec.of(spec)

    @abstractmethod
    def read(self) -> Corpus:
        """List all splits; recordings are not decoded yet.

        Raises:
            ValueError: If data are missing or malformed, naming the argument and the path.
        """

    def prepare(self) -> None:
        """List the recordings, train the tokenizer on the training transcripts, and describe the data."""
        corpus = self.read()
        if self.bad_samples == "skip":
            corpus = self._readable(corpus)
        splits, bounds = self._within_bounds(corpus.splits)
        self._check_training(splits["train"], bounds)
        if self._trained is None:
            transcripts = [utterance.text for utterance in splits["train"]]
            tokenizer = Tokenizer(self.tokens.train(transcripts).to_str())
            rate = self.sample_rate
        else:
            tokenizer, rate = Tokenizer(self._trained.tokenizer), self._trained.sample_rate
        room = Room(self.kept_mib * 2**20)
        found = {
            split: self._recordings(utterances, tokenizer, rate, room)
            for split, utterances in splits.items()
        }
        self._check_training(found["train"].utterances, bounds)
        self._splits = {split: recordings for split, recordings in found.items() if recordings}
        self._spec = SpeechSpec(
            sample_rate=rate, tokenizer=tokenizer.json, vocabulary=tokenizer.size
        )
        self._notes = [
            *self._amounts(),
            *corpus.notes,
            *bounds,
            *left_out_notes(self.left_out, "recordings"),
        ]

    def _check_training(self, utterances: Sequence[Utterance], bounds: Sequence[str]) -> None:
        if not utterances:
            raise ValueError(
                f"{type(self).__name__} has no training recording that can be used"
                + "".join(
                    f"; {reason}"
                    for reason in (*bounds, *left_out_notes(self.left_out, "recordings"))
                )
            )

    def _readable(self, corpus: Corpus) -> Corpus:
        """Leave out the recordings that cannot be decoded."""
        splits: dict[Split, list[Utterance]] = {}
        for split, utterances in corpus.splits.items():
            bad = undecodable([utterance.audio for utterance in utterances], self.num_workers)
            self.left_out += bad.values()
            splits[split] = [u for place, u in enumerate(utterances) if place not in bad]
        return Corpus(splits, corpus.notes)

    def _within_bounds(
        self, splits: Mapping[Split, list[Utterance]]
    ) -> tuple[dict[Split, list[Utterance]], list[str]]:
        """Leave too short and too long recordings out of training, and say how many."""
        kept: list[Utterance] = []
        short: list[Utterance] = []
        long: list[Utterance] = []
        for utterance in splits["train"]:
            seconds = utterance.audio.seconds
            where = short if seconds < self.shortest else long if seconds > self.longest else kept
            where.append(utterance)
        notes = [
            f"{len(left):,} training recordings of {what} {bound:g} s are left out "
            f"(--data.{key}): {_first(u.source for u in left)}"
            for left, what, bound, key in (
                (short, "less than", self.shortest, "shortest"),
                (long, "more than", self.longest, "longest"),
            )
            if left
        ]
        return {**splits, "train": kept}, notes

    def _recordings(
        self, utterances: Sequence[Utterance], tokenizer: Tokenizer, rate: int, room: Room
    ) -> Recordings:
        """Encode the transcripts.

        Raises:
            BadSample: If one is empty or cannot be spelled, unless such samples are skipped.
        """
        good, references, tokens = [], [], []
        for utterance in utterances:
            reference = tokenizer.normalise(utterance.text)
            try:
                if not reference:
                    raise BadSample(
                        utterance.source, f"the transcript {utterance.text!r} has no words"
                    )
                try:
                    ids = tokenizer.encode(reference)
                except ValueError as error:
                    raise BadSample(utterance.source, str(error)) from error
            except BadSample as error:
                leave_out([error], self.bad_samples, self.left_out)
                continue
            good.append(utterance)
            references.append(reference)
            tokens.append(ids)
        return Recordings(good, references, tokens, rate, room)

    def _amounts(self) -> Iterator[str]:
        """Say how much there is to hear."""
        said = ", ".join(
            f"{split} {len(found):,} utterances of {_spoken(int(found.lengths.sum()) / found.rate)}"
            for split, found in self._splits.items()
        )
        yield f"recordings: {said}"

    @property
    def notes(self) -> list[str]:
        """How much there is to hear; what was corrected or left out."""
        self.ready()
        return list(self._notes)

    @property
    def speech_spec(self) -> SpeechSpec:
        """The description that `spec` gives in plain values."""
        self.ready()
        assert self._spec is not None
        return self._spec

    @property
    def spec(self) -> dict[str, Any]:
        """What the task must know, in plain values."""
        return self.speech_spec.plain()

    def dataset(self, split: Split) -> Recordings | None:
        """Return a split; there may be no `val` and no `test`."""
        return self._splits.get(split)

    def describe(self, split: Split, index: int) -> dict[str, Any]:
        """Return where an utterance stands, who speaks, how long it is, its transcript, and that normalised."""
        found = self._splits[split]
        utterance = found.utterances[index]
        speaker = {} if utterance.speaker is None else {"speaker": utterance.speaker}
        return {
            "source": utterance.source,
            **speaker,
            "seconds": round(float(found.lengths[index]) / found.rate, 3),
            "text": utterance.text,
            "reference": found.references[index],
        }

    def sound(self, split: Split, index: int) -> Tensor:
        """Return an utterance's sound as it is evaluated, (L,) at the spec's sample rate."""
        return self._splits[split].waveform(index)

    def collate(self, items: Any) -> Any:
        """Return what the data set's `__getitems__` gave: a whole batch."""
        return items

    def transform(self, batch: dict[str, Any], split: Split) -> dict[str, Any]:
        """Refuse unreadable recordings; augment the sound of a training batch.

        Raises:
            BadSample: If a recording could not be decoded.
        """
        if "bad" in batch:
            source, reason = batch["bad"][0]
            raise BadSample(source, f"{reason} {ADVICE}")
        if split != "train":
            return batch
        own = keys(self.seed, self.epoch, batch["index"])
        waveform, lengths = batch["waveform"], batch["lengths"]
        u = draws(own, sum(part.draws for part in self.augment))
        for part, share in zip(
            self.augment, torch.split(u, [part.draws for part in self.augment], 1), strict=True
        ):
            waveform, lengths = part(waveform, lengths, share)
        return {**batch, "waveform": waveform, "lengths": lengths, "keys": own}

    def amount(self, positions: int) -> str:
        """Return how much sound a batch holds."""
        return f"{positions / _TICK:,.1f} s of sound"

    def batch_sampler(self, split: Split, rank: int, world: int) -> LengthBatches:
        """Return this process's batches of a split: recordings of like length, equally much sound."""
        self.ready_dataset(split)
        found = self._splits[split]
        return LengthBatches(
            (found.lengths * _TICK // found.rate).clamp_min(1),
            self.batch_size,
            rank,
            world,
            shuffle=split == "train",
            seed=self.seed,
            multiple=self.accumulated(split),
        )


def _first(names: Iterator[str]) -> str:
    found = list(names)
    return "; ".join(found[:_NAMED]) + ("; ..." if len(found) > _NAMED else "")


def _spoken(seconds: float) -> str:
    """A duration in words."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
