"""What is known of the classes of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resdomains.training.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Labels(Spec):
    """The classes that samples can have. Descriptions of data that have classes derive from it.

    Args:
        classes: Class names; a target is a place in this list.
        multilabel: Whether a sample may have any number of the classes.
        prevalence: The share of training samples that have each class, where the data state it.
    """

    classes: list[str]
    multilabel: bool = False
    prevalence: list[float] | None = None

    @property
    def output_names(self) -> list[str]:
        """The classes; where a sample may have several, a class's output means something else and says so."""
        return [f"label {name}" for name in self.classes] if self.multilabel else self.classes

    def check_labels(self) -> None:
        """Refuse classes that are too few or not distinct.

        Raises:
            ValueError: If they cannot be used.
        """
        smallest = 1 if self.multilabel else 2
        if len(self.classes) < smallest:
            raise ValueError(f"classes must name at least {smallest} classes, got {self.classes}")
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise ValueError(
                f"classes must differ, but these names occur twice: {', '.join(twice)}"
            )
        if (self.multilabel or self.prevalence is not None) and len(self.prevalence or []) != len(
            self.classes
        ):
            raise ValueError(
                f"prevalence needs {len(self.classes)} shares, one a class"
                f"{', for multi-label data' * self.multilabel}, got {self.prevalence}"
            )


def ranking(probabilities: Sequence[float], classes: Sequence[str], top: int) -> list[list[Any]]:
    """Return the `top` most probable [class, probability], plain as a record is, the first of equals first."""
    order = sorted(range(len(classes)), key=lambda k: -probabilities[k])
    return [[classes[k], probabilities[k]] for k in order[:top]]
