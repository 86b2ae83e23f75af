"""What a task must know of texts: plain values, so that a checkpoint can carry them."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from resdomains.classification import Labels

from .truncation import KEEP


@dataclass(frozen=True, kw_only=True)
class TextSpec(Labels):
    """The plain description of a data set of texts, and how a text becomes numbers.

    Args:
        classes: Class names; empty where the target is a number.
        multilabel: Whether a text may have any number of the classes.
        prevalence: The share of training texts that have each class.
        mean: Mean of the training targets, where they are numbers.
        std: Their standard deviation.
        tokenizer: JSON of a `tokenizers.Tokenizer`: all that turns a text into ids.
        vocabulary: Number of ids; what the network takes as `in_channels`.
        max_length: Tokens of an item, the special ones included, at most.
        truncation: What is kept of a longer text: its `head`, its `tail`, or `both` ends.
        pair: Whether an item is two texts.
        text_column: The column of tables that holds the text, for prediction.
        pair_column: The column of the second text.

    Raises:
        ValueError: If a value cannot be used.
    """

    about: ClassVar[str] = "texts"

    mean: float = 0.0
    std: float = 1.0
    tokenizer: str
    vocabulary: int
    max_length: int
    truncation: str = "head"
    pair: bool = False
    text_column: str | None = None
    pair_column: str | None = None

    def __post_init__(self) -> None:
        if self.classes:
            self.check_labels()
        elif self.multilabel:
            raise ValueError("classes must be named where a text may have several of them")
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ValueError(
                f"mean and std must be finite, and std positive, got {self.mean} and {self.std}; "
                "are all targets equal?"
            )
        if self.vocabulary < 1 or self.max_length < 1:
            raise ValueError(
                f"vocabulary and max_length must be at least 1, got {self.vocabulary} and {self.max_length}"
            )
        if self.truncation not in KEEP:
            raise ValueError(
                f"truncation must be one of {', '.join(KEEP)}, got {self.truncation!r}"
            )

    @property
    def input_meaning(self) -> dict[str, Any]:
        """The tokenizer: an id stands for a token of it alone."""
        return {"tokenizer": self.tokenizer}

    @property
    def output_names(self) -> list[str]:
        """The classes; a number is named by what 0 and 1 stand for."""
        if self.numeric:
            return [f"number of mean {self.mean:g} and standard deviation {self.std:g}"]
        return super().output_names

    @property
    def numeric(self) -> bool:
        """Whether the target is a number and not a class."""
        return not self.classes

    @property
    def outputs(self) -> int:
        """How many numbers the head gives."""
        return max(len(self.classes), 1)
