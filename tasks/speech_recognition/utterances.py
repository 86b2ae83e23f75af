"""Recordings with their transcripts, as they were found."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from resdomains.schema import Split


class Audio(ABC):
    """Sound with one channel, read when it is needed.

    `rate` is in Hz, `samples` the number of samples at that rate; both are known without reading.
    """

    rate: int
    samples: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.samples / self.rate

    @abstractmethod
    def read(self) -> Tensor:
        """Return (L,) float32, L = `samples`, in [-1, 1] unless the file holds more.

        Raises:
            BadSample: If it cannot be read, or holds values that are no numbers.
        """


@dataclass(slots=True)
class Utterance:
    """A recording with its transcript.

    Args:
        audio: What was said.
        text: The transcript as it was written.
        source: Where it stands, such as `train.json:12` or a file's path, for messages and tables.
        speaker: Who said it, where the data tell.
    """

    audio: Audio
    text: str
    source: str
    speaker: str | None = None


@dataclass
class Corpus:
    """All splits of transcribed recordings.

    Args:
        splits: `train`, and `val` and `test` where the data have them.
        notes: What was guessed, corrected or left out: a sentence each.
    """

    splits: dict[Split, list[Utterance]]
    notes: list[str] = field(default_factory=list)
