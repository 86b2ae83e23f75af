"""Recordings beside text files with their transcripts."""

import re
from pathlib import Path

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import BadSamples
from resdomains.training.folders import existing_folder
from resdomains.training.holding_out import check_fractions

from .audio import SUFFIXES, find_audio, find_files
from .augment import Augment
from .data import SpeechData
from .listing import SPLITS, Listing, decoded
from .tokens import Tokens
from .utterances import Corpus

_ABOUT = re.compile("readme|licen[cs]e|copying|notice|citation|source|changelog", re.I)


class TranscribedFolder(SpeechData):
    """Pairs of files: a recording and its transcript, such as `a/1.wav` and `a/1.txt`, in any subfolders.

    If there is `root/train`, the folders `train`, `val` and `test` below `root` are the splits, as far as they exist;
    without `val`, a share of the training recordings validates. If there is none, shares of all recordings validate and
    test. They are held out by a hash of their names, so that a split does not change with the machine or the order of
    the files.

    A recording without a transcript is a bad sample, and a transcript without a recording is another, unless it is
    called as files about data are (`README.txt`, `LICENSE.txt`).

    Args:
        root: The folder.
        batch_size: Utterances of a batch over all processes together, on average.
        val_fraction: Share of the recordings that validates, where the folders do not say which.
        test_fraction: Share of the recordings that tests, where the folders do not say which.
        transcripts: Suffix of the transcripts' files.
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
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        transcripts: str = ".txt",
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
        check_fractions(val_fraction, test_fraction)
        if not transcripts.startswith(".") or transcripts.lower() in SUFFIXES:
            raise ValueError(
                f"transcripts must be the suffix of text files, such as .txt, got {transcripts!r}"
            )
        self.root, self.transcripts = root, transcripts
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def read(self) -> Corpus:
        """List the recordings and read the transcripts.

        Raises:
            BadSample: If a file cannot be used, or lacks the other, and `bad_samples` is `refuse`.
            ValueError: If there are no recordings.
        """
        root = existing_folder(self.root)
        listing = Listing(root)
        if not (root / "train").is_dir():
            self._take(root, "train", listing)
            listing.hold_out(self.val_fraction, self.test_fraction)
            return listing.corpus(self.bad_samples, self.left_out)
        for split in SPLITS:
            if (root / split).is_dir():
                self._take(root / split, split, listing)
        if not (root / "val").is_dir():
            listing.hold_out(self.val_fraction)
        return listing.corpus(self.bad_samples, self.left_out)

    def _take(self, folder: Path, split: Split, listing: Listing) -> None:
        """List a folder's pairs."""
        recordings = find_audio(folder)
        if not recordings:
            raise ValueError(
                f"root: {folder} holds no recordings ({', '.join(SUFFIXES)}); put each beside its transcript, "
                f"such as 1.wav and 1{self.transcripts}"
            )
        found = find_files(folder, self.transcripts.lower())
        unheard = {path.with_suffix(""): path for path in found}
        beside = dict(unheard)
        for recording in recordings:
            stem = recording.with_suffix("")
            unheard.pop(stem, None)
            if stem not in beside:
                reason = (
                    f"has no transcript: there is no {recording.stem}{self.transcripts} beside it"
                )
                listing.bad.append(BadSample(str(recording), reason))
                continue
            try:
                text = decoded(beside[stem].read_bytes(), str(beside[stem]))
            except BadSample as error:
                listing.bad.append(error)
                continue
            listing.add(split, recording, text.strip())
        listing.bad += [
            BadSample(str(path), "is a transcript without a recording beside it")
            for stem, path in unheard.items()
            if not _ABOUT.fullmatch(stem.name)
        ]
