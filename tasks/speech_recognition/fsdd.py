"""The Free Spoken Digit Dataset (Jackson et al. 2018): single digits, or strings of them joined."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import BadSamples
from resdomains.training.folders import existing_folder

from .audio import Joined, find_audio, undecodable
from .augment import Augment
from .data import SpeechData
from .digits import WORDS
from .listing import Listing
from .tokens import Tokens
from .utterances import Corpus, Utterance

_NAME = re.compile(r"([0-9])_(.+)_([0-9]{1,6})")
_TESTED = 5  # of each speaker and digit, by FSDD's README


class SpokenDigits(SpeechData):
    """FSDD: one digit a file, `7_jackson_32.wav` for digit, speaker and the number of the take; the words zero to nine.

    The split is the data set's: takes 0 to 4 test, the others train, of which the first ones, 5 to 9, validate. With
    `held_out_speaker` all takes of that speaker test, and of the others' takes 0 to 4 validate instead.

    Args:
        root: The folder of the recordings, or the one with `recordings`.
        batch_size: Utterances of a batch over all processes together, on average.
        held_out_speaker: Who tests and is not heard in training, such as `theo`.
        val_takes: Takes of each speaker and digit that validate; 0 for none.
        tokens: What a token is; characters if not given.
        sample_rate: Samples a second, in Hz, to which recordings are resampled; they have 8000.
        shortest: Seconds; shorter recordings are left out of training.
        longest: Seconds; longer recordings are left out of training.
        bad_samples: `refuse` stops at what cannot be used and names it; `skip` decodes every recording once before
            training (the result is kept until a file changes), names what fails and leaves it out.
        augment: Random changes of the sound of training batches, in order.
        kept_mib: MiB of decoded sound that each loader process keeps in memory.
        num_workers: Loader processes; 0 decodes in the training process.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        root: str,
        batch_size: int,
        held_out_speaker: str | None = None,
        val_takes: int = 5,
        tokens: Tokens | None = None,
        sample_rate: int = 8000,
        shortest: float = 0.1,
        longest: float = 20.0,
        bad_samples: BadSamples = "refuse",
        augment: list[Augment] | None = None,
        kept_mib: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            tokens=tokens,
            sample_rate=sample_rate,
            shortest=shortest,
            longest=longest,
            bad_samples=bad_samples,
            augment=augment,
            kept_mib=kept_mib,
            num_workers=num_workers,
            seed=seed,
        )
        self.root, self.division = root, _Division(held_out_speaker, val_takes)

    def read(self) -> Corpus:
        """List the recordings.

        Raises:
            BadSample: If a file cannot be used and `bad_samples` is `refuse`.
            ValueError: If there are none, or the held-out speaker is not among them.
        """
        return _takes(self.root, self.division).corpus(self.bad_samples, self.left_out)


class SpokenDigitStrings(SpeechData):
    """Strings of digits, joined from single ones of FSDD by one speaker, with short silences between.

    Test strings are joined from the takes that test, training strings from those that train (`SpokenDigits`). Of each
    string the speaker, the number of digits, the digits, the takes and the silences are drawn evenly.

    Args:
        root: The folder of the recordings, or the one with `recordings`.
        batch_size: Utterances of a batch over all processes together, on average.
        train_strings: How many train.
        val_strings: How many validate; 0 for none.
        test_strings: How many test.
        digits: The fewest and the most digits of a string.
        gap: The shortest and the longest silence between two digits, in seconds.
        strings_seed: Another seed draws other strings. It is not the run's: runs of several seeds share a test split.
        held_out_speaker: Who tests and is not heard in training, such as `theo`.
        val_takes: Takes of each speaker and digit that validate.
        tokens: What a token is; characters if not given.
        sample_rate: Samples a second, in Hz, to which recordings are resampled; they have 8000.
        shortest: Seconds; shorter strings are left out of training.
        longest: Seconds; longer strings are left out of training.
        bad_samples: `refuse` stops at what cannot be used and names it; `skip` decodes every recording once before
            training (the result is kept until a file changes), names what fails and leaves it out.
        augment: Random changes of the sound of training batches, in order.
        kept_mib: MiB of decoded sound that each loader process keeps in memory.
        num_workers: Loader processes; 0 decodes in the training process.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        root: str,
        batch_size: int,
        train_strings: int = 3000,
        val_strings: int = 300,
        test_strings: int = 300,
        digits: tuple[int, int] = (2, 6),
        gap: tuple[float, float] = (0.0, 0.2),
        strings_seed: int = 0,
        held_out_speaker: str | None = None,
        val_takes: int = 5,
        tokens: Tokens | None = None,
        sample_rate: int = 8000,
        shortest: float = 0.1,
        longest: float = 20.0,
        bad_samples: BadSamples = "refuse",
        augment: list[Augment] | None = None,
        kept_mib: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            tokens=tokens,
            sample_rate=sample_rate,
            shortest=shortest,
            longest=longest,
            bad_samples=bad_samples,
            augment=augment,
            kept_mib=kept_mib,
            num_workers=num_workers,
            seed=seed,
        )
        if train_strings < 1 or min(val_strings, test_strings) < 0:
            raise ValueError(
                "train_strings must be at least 1, val_strings and test_strings at least 0, "
                f"got {train_strings}, {val_strings} and {test_strings}"
            )
        if len(digits) != 2 or not 1 <= digits[0] <= digits[1]:
            raise ValueError(f"digits must be two rising numbers from 1, got {list(digits)}")
        if len(gap) != 2 or not 0.0 <= gap[0] <= gap[1]:
            raise ValueError(f"gap must be two rising numbers of seconds from 0, got {list(gap)}")
        if val_strings and not val_takes:
            raise ValueError(
                f"val_takes is 0, so there is nothing to join {val_strings} val_strings of; set one of them"
            )
        self.root, self.division = root, _Division(held_out_speaker, val_takes)
        self.strings: dict[Split, int] = {
            "train": train_strings,
            "val": val_strings,
            "test": test_strings,
        }
        self.digits, self.gap, self.strings_seed = digits, gap, strings_seed

    def read(self) -> Corpus:
        """List the recordings and draw the strings.

        Raises:
            BadSample: If a file cannot be used and `bad_samples` is `refuse`.
            ValueError: If there are none, or the held-out speaker is not among them.
        """
        takes = _takes(self.root, self.division).corpus(self.bad_samples, self.left_out)
        splits: dict[Split, list[Utterance]] = {}
        for split, count in self.strings.items():
            found = takes.splits.get(split, [])
            if self.bad_samples == "skip":
                bad = undecodable([take.audio for take in found], self.num_workers)
                self.left_out += bad.values()
                found = [take for place, take in enumerate(found) if place not in bad]
            if count and not found:
                raise ValueError(f"root: {self.root} has no takes to join {split} strings of")
            if count:
                splits[split] = self._joined(found, split, count)
        return Corpus(splits, takes.notes)

    def _joined(self, takes: Sequence[Utterance], split: Split, count: int) -> list[Utterance]:
        """Draw strings."""
        spoken: dict[str, dict[str, list[Utterance]]] = {}
        for take in takes:
            spoken.setdefault(take.speaker or "", {}).setdefault(take.text, []).append(take)
        speakers = sorted(spoken)
        draw = random.Random(f"{self.strings_seed} {split}")
        strings = []
        for number in range(count):
            speaker = draw.choice(speakers)
            words = draw.choices(sorted(spoken[speaker]), k=draw.randint(*self.digits))
            parts = [draw.choice(spoken[speaker][word]) for word in words]
            gaps = [draw.uniform(*self.gap) for _ in words[1:]]
            source = f"{split} {number}: {' '.join(Path(part.source).stem for part in parts)}"
            audio = Joined([part.audio for part in parts], gaps)
            strings.append(Utterance(audio, " ".join(words), source, speaker))
        return strings


@dataclass(frozen=True)
class _Division:
    """Which takes train, validate and test."""

    held_out_speaker: str | None
    val_takes: int

    def __post_init__(self) -> None:
        if self.val_takes < 0:
            raise ValueError(f"val_takes must be at least 0, got {self.val_takes}")

    def split(self, speaker: str, take: int) -> Split:
        """Return the split of a take."""
        tested = 0 if self.held_out_speaker else _TESTED
        if take < tested or speaker == self.held_out_speaker:
            return "test"
        return "val" if take < tested + self.val_takes else "train"


def _takes(root: str, division: _Division) -> Listing:
    """List the recordings of single digits."""
    found = existing_folder(root)
    folder = found / "recordings" if (found / "recordings").is_dir() else found
    files = find_audio(folder)
    if not files:
        raise ValueError(
            f"root: {folder} holds no recordings such as 7_jackson_32.wav; "
            "set --data.root to the folder that does"
        )
    listing = Listing(found)
    speakers = set[str]()
    for file in files:
        name = _NAME.fullmatch(file.stem)
        if name is None:
            reason = "is not named DIGIT_SPEAKER_TAKE, such as 7_jackson_32.wav"
            listing.bad.append(BadSample(str(file), reason))
            continue
        digit, speaker, take = name.groups()
        speakers.add(speaker)
        split = division.split(speaker, int(take))
        listing.add(split, file, WORDS[int(digit)], speaker=speaker)
    held_out = division.held_out_speaker
    if held_out is not None and (held_out not in speakers or len(speakers) < 2):
        raise ValueError(
            f"held_out_speaker must be one of the speakers, and others must train; got {held_out!r}, "
            f"there are {', '.join(sorted(speakers)) or 'none'}"
        )
    return listing
