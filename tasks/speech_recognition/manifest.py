"""NeMo's manifests: a JSON object a line for each utterance."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import BadSamples
from resdomains.training.folders import existing_folder, leaves
from resdomains.training.holding_out import check_fraction

from .audio import TOLERANCE
from .augment import Augment
from .data import SpeechData
from .listing import Listing, decoded, lines
from .tokens import Tokens
from .utterances import Corpus

_LONGEST = 1e9  # seconds: thirty years
_HALF = re.compile("[\ud800-\udfff]")  # JSON can write halves of characters


@dataclass
class _Entry:
    """What a line states."""

    file: str
    text: str
    speaker: str | None
    offset: float | None
    duration: float | None


class Manifest(SpeechData):
    """NeMo's JSON-lines manifests.

    Each line is an object with `audio_filepath` and `text`, and maybe `duration` and `offset` in seconds and `speaker`:

        {"audio_filepath": "wav/1.wav", "text": "go on", "duration": 1.25}

    With `offset` the utterance is the part of the file from there, `duration` long or to the end; a part that is not in
    the file is a bad sample. Without, it is the whole file: a `duration` that differs from the file's by more than 0.06
    s is reported and the file's is taken.

    A relative path is below the manifest's folder or, if there is no such file, below `root`, which it may not leave by
    `..`; an absolute one is taken as it is. Leading folders that exist in neither are taken off, as manifests come from
    another machine (`/home/me/corpus/wav/1.wav`), and a note says which.

    Args:
        root: The folder.
        train: The manifest that trains, below `root`, or several.
        batch_size: Utterances of a batch over all processes together, on average.
        val: The manifest that validates, or several. Without, a share of the training files validates.
        test: The manifest that tests, or several.
        val_fraction: Share of the training files that validates where there is no `val`, by a hash of their paths; all
            parts of a file stay together.
        tokens: What a token is; characters if not given.
        sample_rate: Samples a second, in Hz, to which recordings are resampled.
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
        train: str | list[str],
        batch_size: int,
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        val_fraction: float = 0.1,
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
        check_fraction("val_fraction", val_fraction)
        self.root, self.val_fraction = root, val_fraction
        self.manifests: dict[Split, list[str]] = {
            "train": _names(train),
            "val": _names(val),
            "test": _names(test),
        }

    def read(self) -> Corpus:
        """Read the manifests and the headers of all files.

        Raises:
            BadSample: If a line or its file cannot be used and `bad_samples` is `refuse`.
            ValueError: If a manifest is missing, lists nothing, or lists files inside archives.
        """
        root = existing_folder(self.root)
        listing = Listing(root)
        for split, names in self.manifests.items():
            for name in names:
                path = root / name
                if not path.is_file():
                    what = "is a folder" if path.is_dir() else "does not exist"
                    raise ValueError(
                        f"{split}: {path} {what}; give the name of a manifest below root, {root}"
                    )
                _take(path, split, listing)
        if not self.manifests["val"]:
            listing.hold_out(self.val_fraction)
        return listing.corpus(self.bad_samples, self.left_out)


def _names(given: str | list[str] | None) -> list[str]:
    return given if isinstance(given, list) else [given] if given is not None else []


class _Finder:
    """Finds a manifest's files.

    Args:
        root: The folder that a relative path may not leave by `..`.
        bases: The folders below which they may be, in order.
    """

    def __init__(self, root: Path, *bases: Path) -> None:
        self.root, self.bases = root, tuple(dict.fromkeys(bases))
        self.taken_off = dict[str, None]()
        """The leading folders that files were found without."""
        self._folders: dict[PurePath, list[tuple[Path, str]]] = {}

    def find(self, given: str) -> Path | None:
        """Return a file's path; where there is none, the first that was looked for; None where it leaves `root`."""
        path = Path(given)
        folders = self._folders.get(path.parent)
        if folders is None:
            folders = self._folders[path.parent] = list(self._candidates(path.parent))
        for folder, without in folders:
            if (folder / path.name).is_file():
                if without:
                    self.taken_off[without] = None
                return folder / path.name
        return folders[0][0] / path.name if folders else None

    def _candidates(self, folder: Path) -> Iterator[tuple[Path, str]]:
        """Yield the folders that may be meant, each with what was taken off."""
        if folder.is_absolute():
            yield folder, ""
        for base in self.bases:
            parts = folder.relative_to(folder.anchor).parts
            off = [folder.anchor] if folder.anchor else []
            while parts and not (base / parts[0]).exists():
                off.append(f"{parts[0]}/")
                parts = parts[1:]
            found = base.joinpath(*parts)
            if not leaves(self.root, found):
                yield found, "".join(off)


def _take(manifest: Path, split: Split, listing: Listing) -> None:
    """List a manifest's utterances."""
    finder = _Finder(listing.root, manifest.parent, listing.root)
    count, wrong, first = 0, 0, ""
    for where, line in lines(manifest):
        count += 1
        try:
            row = _object(line, where)
            entry = _entry(row, where)
            path = finder.find(entry.file)
            if path is None:
                raise BadSample(
                    where,
                    f"{entry.file[:80]!r} is not below {listing.root}; a relative path may not leave it by '..'",
                )
        except BadSample as error:
            listing.bad.append(error)
            continue
        except OSError as error:  # such as a name that is too long
            listing.bad.append(
                BadSample(where, f"{entry.file[:80]!r} is no file ({error.strerror})")
            )
            continue
        if "shard_id" in row and not path.exists():
            raise ValueError(
                f"{where}: {entry.file} is inside a tar archive (the line has a shard_id); unpack the archives into "
                f"{manifest.parent}: tar -xf FILE.tar -C {manifest.parent}"
            )
        part = entry.offset is not None
        audio = listing.add(
            split,
            path,
            entry.text,
            where=where,
            speaker=entry.speaker,
            offset=entry.offset or 0.0,
            seconds=entry.duration if part else None,
        )
        if audio is None or part or entry.duration is None:
            continue
        if abs(entry.duration - audio.seconds) > TOLERANCE:
            wrong += 1
            source = listing.name(where)
            first = first or f"{source} states {entry.duration:g} s, there are {audio.seconds:g} s"
    if not count:
        raise ValueError(f"{split}: {manifest} lists nothing; it must hold a JSON object a line")
    if finder.taken_off:
        listing.notes.append(
            f"{listing.name(manifest)}: files are found without the leading {', '.join(finder.taken_off)}"
        )
    if wrong:
        listing.notes.append(
            f"{listing.name(manifest)}: {wrong:,} of {count:,} durations are wrong and taken from the files ({first})"
        )


def _object(line: bytes, where: str) -> dict[str, Any]:
    """Read a line.

    Raises:
        BadSample: If it is not a JSON object.
    """
    text = decoded(line, where)
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSample(
            where, f"not JSON ({error}); a manifest has one object a line, not {text[:40]!r}"
        ) from error
    if not isinstance(row, dict):
        raise BadSample(where, f"a manifest has one JSON object a line, not {text[:40]!r}")
    return row


def _entry(row: dict[str, Any], where: str) -> _Entry:
    """Check what a line states.

    Raises:
        BadSample: If something is missing or of the wrong kind.
    """
    file, text, speaker = row.get("audio_filepath"), row.get("text"), row.get("speaker")
    if not isinstance(file, str) or not file.strip() or "\0" in file:
        raise BadSample(where, f"'audio_filepath' must name a file, got {file!r}")
    if not isinstance(text, str) or _HALF.search(text):
        raise BadSample(where, f"'text' must be the transcript, got {text!r}")
    numbers: list[float | None] = []
    for key in ("offset", "duration"):
        value = row.get(key)
        if value is not None and (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0.0 <= value < _LONGEST
        ):
            raise BadSample(where, f"{key!r} must be seconds from 0, got {value!r}")
        numbers.append(None if value is None else float(value))
    return _Entry(file, text, None if speaker is None else str(speaker), *numbers)
