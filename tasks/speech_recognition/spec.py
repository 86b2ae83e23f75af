"""What a task must know of transcribed speech: plain values, so that a checkpoint can carry them."""

from dataclasses import dataclass
from typing import Any, ClassVar

from resdomains.training.spec import Spec

from .tokens import Tokenizer


@dataclass(frozen=True, kw_only=True)
class SpeechSpec(Spec):
    """The plain description of transcribed recordings, and how a transcript becomes numbers.

    Args:
        sample_rate: Samples a second, in Hz, at which the task reads recordings.
        tokenizer: JSON of a `tokenizers.Tokenizer`: normalisation and all that turns a transcript into ids.
        vocabulary: Number of ids, the blank (0) included.

    Raises:
        ValueError: If a value cannot be used.
    """

    about: ClassVar[str] = "transcribed speech"

    sample_rate: int
    tokenizer: str
    vocabulary: int

    def __post_init__(self) -> None:
        if self.sample_rate < 1:
            raise ValueError(f"sample_rate must be at least 1 Hz, got {self.sample_rate}")
        if self.vocabulary < 2:
            raise ValueError(
                f"vocabulary must hold the blank and at least one token, got {self.vocabulary}"
            )

    @property
    def input_meaning(self) -> dict[str, Any]:
        """The sample rate, on which the frequencies of bands depend."""
        return {"sample_rate": self.sample_rate}

    @property
    def output_names(self) -> list[str]:
        """The tokens: of an earlier run's head, those that both know keep their weights."""
        return Tokenizer(self.tokenizer).pieces
