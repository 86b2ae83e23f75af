"""What is known of the classes of a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, Self


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The classes that samples can have. Descriptions of data that have classes derive from it.

    Args:
        classes: Class names; a target is a place in this list.
        multilabel: Whether a sample may have any number of the classes.
        prevalence: The share of training samples that have each class, where the data state it.
    """

    about: ClassVar[str] = "samples"
    """What is described, for messages."""

    classes: list[str]
    multilabel: bool = False
    prevalence: list[float] | None = None

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Self:
        """Build from a plain mapping.

        Raises:
            ValueError: If a key is missing or unknown, or a value cannot be used.
        """
        needed = {f.name for f in fields(cls) if f.default is MISSING}
        missing = sorted(needed - set(spec))
        unknown = sorted(set(spec) - {f.name for f in fields(cls)})
        if missing or unknown:
            raise ValueError(
                f"spec does not describe {cls.about}:"
                + (f" it lacks {', '.join(missing)};" if missing else "")
                + (f" it has the unknown {', '.join(unknown)};" if unknown else "")
                + f" take the spec of a data module of {cls.about}"
            )
        return cls(**spec)

    def plain(self) -> dict[str, Any]:
        """Return the same as a plain dictionary."""
        return asdict(self)

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
