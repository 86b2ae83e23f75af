"""What every reader of recordings on disk does: list them, name what cannot be used, hold out what the data do not."""

from collections.abc import Iterator
from pathlib import Path

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import BadSamples, leave_out
from resdomains.training.folders import leaves, outside_notes
from resdomains.training.holding_out import held_out

from .audio import AudioFile
from .utterances import Corpus, Utterance

_LONGEST = 100_000  # characters of a transcript: hours of speech
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Listing:
    """The utterances found below a folder, and what cannot be one.

    Args:
        root: The folder; names in tables are relative to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bad: list[BadSample] = []
        self.notes: list[str] = []
        self._found: dict[Split, list[tuple[str, Utterance]]] = {}
        self._outside = dict[str, None]()

    def name(self, path: str | Path) -> str:
        """Return a path as tables show it: below `root`, if it is."""
        given = Path(path)
        return (
            given.relative_to(self.root).as_posix()
            if given.is_relative_to(self.root)
            else str(path)
        )

    def add(
        self,
        split: Split,
        path: str | Path,
        text: str,
        *,
        where: str | None = None,
        speaker: str | None = None,
        offset: float = 0.0,
        seconds: float | None = None,
    ) -> AudioFile | None:
        """Take up a recording if its header can be read.

        Args:
            split: What it is for.
            path: The file.
            text: The transcript.
            where: The line that lists it; None if it is the file itself.
            speaker: Who speaks, where that is known.
            offset: Where the part that was transcribed begins, in seconds.
            seconds: How long it is; None: to the end.

        Returns:
            The recording, or None where it is bad.
        """
        try:
            if len(text) > _LONGEST:
                raise BadSample(
                    str(path),
                    f"a transcript of {len(text):,} characters, more than {_LONGEST:,}; cut it into parts",
                )
            audio = AudioFile(path, offset, seconds)
        except BadSample as error:
            self.bad.append(error if where is None else BadSample(where, str(error)))
            return None
        if Path(path).is_absolute() and leaves(self.root, path):
            self._outside[str(path)] = None
        source = self.name(path if where is None else where)
        utterance = Utterance(audio, text, source, speaker)
        self._found.setdefault(split, []).append((self.name(path), utterance))
        return audio

    def hold_out(self, val: float, test: float = 0.0) -> None:
        """Let shares of the training files validate and test, by a hash of the files' names without suffixes."""
        train = self._found.pop("train", [])
        names = [Path(name).with_suffix("").as_posix() for name, _ in train]
        for chosen, found in zip(held_out(names, val, test), train, strict=True):
            self._found.setdefault(chosen, []).append(found)
        said = [
            f"{len(self._found[split]):,} {does}"
            for split, share, does in (("val", val, "validate"), ("test", test, "test"))
            if share and split in self._found
        ]
        if said:
            self.notes.append(
                f"of {len(train):,} utterances {' and '.join(said)}, chosen by a hash of the file's name"
            )

    def corpus(self, bad_samples: BadSamples, left_out: list[BadSample]) -> Corpus:
        """Return what was found.

        Args:
            bad_samples: What to do with what cannot be used.
            left_out: Gets it, where it is skipped.

        Raises:
            BadSample: If something cannot be used and must not be skipped.
            ValueError: If nothing is left to train on.
        """
        leave_out(self.bad, bad_samples, left_out)
        if not self._found.get("train"):
            why = f"; {len(self.bad):,} cannot be used, such as {self.bad[0]}" if self.bad else ""
            raise ValueError(f"root: {self.root} has no utterances to train on{why}")
        self.notes += outside_notes(self._outside)
        train = {name for name, _ in self._found["train"]}
        for split, found in self._found.items():
            both = 0 if split == "train" else sum(name in train for name, _ in found)
            if both:
                self.notes.append(
                    f"{both:,} of {len(found):,} utterances in {split} are of files that also train"
                )
        splits = {s: [u for _, u in self._found.get(s, [])] for s in SPLITS}
        return Corpus({s: found for s, found in splits.items() if found}, self.notes)


def decoded(data: bytes, where: str) -> str:
    """Return the characters of a transcript or a line.

    Raises:
        BadSample: If they are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSample(
            where, f"not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        ) from error


def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each line of a file that is not empty, with its place, such as `/data/train.json:12`."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}:{number}", line.strip()
