"""The yesno recordings (OpenSLR SLR1): one speaker says eight times yes or no."""

import re
from pathlib import Path

from resdomains.training import BadSample
from resdomains.training.bad_samples import BadSamples
from resdomains.training.folders import existing_folder
from resdomains.training.holding_out import check_fraction

from .audio import find_audio
from .augment import Augment
from .data import SpeechData
from .listing import Listing
from .tokens import Tokens
from .utterances import Corpus

_NAME = re.compile(r"[01](_[01])*")
_WORDS = {"0": "NO", "1": "YES"}


class YesNo(SpeechData):
    """yesno: the file's name is the transcript, 1 for YES and 0 for NO (`0_1_1_0_1_0_0_1.wav`).

    The split is that of lhotse and icefall: of the sorted names those at even places, from 0, train and the others
    test. Of the training recordings a share validates, by a hash of the names: 3 of 30, unless `val_fraction` says
    otherwise.

    Args:
        root: The folder of the recordings, or the one with `waves_yesno`.
        batch_size: Utterances of a batch over all processes together, on average.
        val_fraction: Share of the training recordings that validates; 0 for none.
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
        val_fraction: float = 0.1,
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
        check_fraction("val_fraction", val_fraction)
        self.root, self.val_fraction = root, val_fraction

    def read(self) -> Corpus:
        """List the recordings.

        Raises:
            BadSample: If a file cannot be used and `bad_samples` is `refuse`.
            ValueError: If there are none.
        """
        root = existing_folder(self.root)
        folder = root / "waves_yesno" if (root / "waves_yesno").is_dir() else root
        files = find_audio(folder)
        if not files:
            raise ValueError(
                f"root: {folder} holds no recordings such as 0_1_1_0_1_0_0_1.wav; "
                "set --data.root to the folder that does"
            )
        listing = Listing(root)
        named: list[Path] = []
        for file in files:
            if _NAME.fullmatch(file.stem):
                named.append(file)
            else:
                reason = (
                    "is not named by its words, such as 0_1_1_0_1_0_0_1.wav, 1 for yes and 0 for no"
                )
                listing.bad.append(BadSample(str(file), reason))
        for place, file in enumerate(sorted(named, key=lambda file: file.name)):
            words = " ".join(_WORDS[digit] for digit in file.stem.split("_"))
            listing.add("test" if place % 2 else "train", file, words)
        listing.hold_out(self.val_fraction)
        return listing.corpus(self.bad_samples, self.left_out)
