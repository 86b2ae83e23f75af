"""LibriSpeech (Panayotov et al. 2015) and what is laid out like it."""

from collections.abc import Sequence
from pathlib import Path

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import BadSamples
from resdomains.training.folders import existing_folder
from resdomains.training.holding_out import check_fraction

from .audio import find_audio, find_files
from .augment import Augment
from .data import SpeechData
from .listing import Listing, decoded, lines
from .tokens import Tokens
from .utterances import Corpus

_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train-clean-100", "train-clean-360", "train-other-500", "train-clean-5"),
    "val": ("dev-clean", "dev-clean-2"),
    "test": ("test-clean",),
}
_TRANSCRIPTS = ".trans.txt"


class LibriSpeech(SpeechData):
    """LibriSpeech's layout: `FOLDER/SPEAKER/CHAPTER/*.flac` with a `*.trans.txt` of lines `NAME TRANSCRIPT`.

    A recording without a transcript is a bad sample, and a line without a recording is another.

    Args:
        root: The folder that holds `train-clean-100` and the others, or the one with `LibriSpeech`.
        batch_size: Utterances of a batch over all processes together, on average.
        train: Folders that train; if not given, those that exist of train-clean-100, train-clean-360, train-other-500
            and, of Mini LibriSpeech, train-clean-5.
        val: Folders that validate; if not given, dev-clean (or dev-clean-2). Without one, a share of the training
            recordings validates.
        test: Folders that test; if not given, test-clean. Results on test-other are told apart by a run of its own.
        val_fraction: Share of the training recordings that validates where no folder does.
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
        batch_size: int,
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
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
        self.folders: dict[Split, list[str] | None] = {"train": train, "val": val, "test": test}

    def read(self) -> Corpus:
        """List the recordings and read the transcripts.

        Raises:
            BadSample: If a file or a line cannot be used and `bad_samples` is `refuse`.
            ValueError: If a folder is missing or holds no transcripts.
        """
        root = existing_folder(self.root)
        root = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
        chosen = {split: self._chosen(root, split) for split in _FOLDERS}
        listing = Listing(root)
        for split, names in chosen.items():
            for name in names:
                _take(root / name, split, listing)
        said = "; ".join(f"{s} {', '.join(names)}" for s, names in chosen.items() if names)
        listing.notes.append(f"folders: {said}")
        if not chosen["val"]:
            listing.hold_out(self.val_fraction)
        return listing.corpus(self.bad_samples, self.left_out)

    def _chosen(self, root: Path, split: Split) -> Sequence[str]:
        """Return the folders of a split."""
        given = self.folders[split]
        names = _FOLDERS[split] if given is None else given
        present = [name for name in names if (root / name).is_dir()]
        if present == list(names) or (given is None and (present or split != "train")):
            return present
        missing = [name for name in names if name not in present]
        there = sorted(path.name for path in root.iterdir() if path.is_dir())
        raise ValueError(
            f"{split}: {root} has no folder {' or '.join(missing)}; it has {', '.join(there) or 'none'}; "
            f"set --data.root, or --data.{split} to folders that it has"
        )


def _take(folder: Path, split: Split, listing: Listing) -> None:
    """List the recordings of a folder."""
    files = {path.with_suffix(""): path for path in find_audio(folder)}
    transcribed = set[Path]()
    transcripts = find_files(folder, _TRANSCRIPTS)
    if not transcripts:
        raise ValueError(
            f"{split}: {folder} holds no transcripts (SPEAKER/CHAPTER/SPEAKER-CHAPTER{_TRANSCRIPTS})"
        )
    for transcript in transcripts:
        for where, line in lines(transcript):
            try:
                name, _, text = decoded(line, where).partition(" ")
                path = transcript.parent / name
                if path not in files:
                    raise BadSample(where, f"there is no recording {name}.flac beside it")
                if path in transcribed:
                    raise BadSample(where, f"{name} was transcribed before")
            except BadSample as error:
                listing.bad.append(error)
                continue
            transcribed.add(path)
            listing.add(split, files[path], text.strip(), speaker=transcript.parent.parent.name)
    listing.bad += [
        BadSample(str(path), f"has no transcript in a *{_TRANSCRIPTS} beside it")
        for stem, path in files.items()
        if stem not in transcribed
    ]
