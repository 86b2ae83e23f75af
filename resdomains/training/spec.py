"""What a task must know of its data, in plain values."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, Self


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The plain description of a data set, which a checkpoint carries; each domain derives its own."""

    about: ClassVar[str] = "samples"
    """What is described, for messages."""

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

    @property
    def input_meaning(self) -> dict[str, Any]:
        """What inputs mean to a network, by name, such as a tokenizer: weights fit only data of which this is equal."""
        return {}

    @property
    def output_names(self) -> list[str]:
        """A name for each output of the head, so that weights learned on other data are kept where names are equal.

        Empty where outputs have no names: a head for such data is always new.
        """
        return []

    def plain(self) -> dict[str, Any]:
        """Return the same as a plain dictionary."""
        return asdict(self)
