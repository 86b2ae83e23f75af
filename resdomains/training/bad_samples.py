"""Samples that cannot be used: the first is refused by name, or all are counted, named and left out."""

from collections.abc import Sequence
from typing import Literal

from resdomains.training.data import BadSample
from resdomains.training.folders import printable

BadSamples = Literal["refuse", "skip"]
"""What to do with them; the argument `bad_samples` of data modules."""

ADVICE = "(--data.bad_samples skip leaves such samples out)"
_NAMED = 5


def check_bad_samples(bad_samples: str) -> None:
    """Check the argument.

    Raises:
        ValueError: If it is neither `refuse` nor `skip`.
    """
    if bad_samples not in ("refuse", "skip"):
        raise ValueError(f"bad_samples must be 'refuse' or 'skip', got {bad_samples!r}")


def leave_out(bad: Sequence[BadSample], bad_samples: BadSamples, left_out: list[BadSample]) -> None:
    """Put what was found to be bad among what is left out, or refuse the first.

    Args:
        bad: What cannot be used.
        bad_samples: What to do with it.
        left_out: Gets it, where it is skipped.

    Raises:
        BadSample: If there is any and it must not be skipped; the message says how many there are.
    """
    if bad and bad_samples == "refuse":
        first, others = bad[0], len(bad) - 1
        more = f", and {others:,} more cannot be used" if others else ""
        raise BadSample(first.source, f"{first.reason}{more} {ADVICE}")
    left_out += bad


def left_out_notes(left_out: Sequence[BadSample], what: str, total: int | None = None) -> list[str]:
    """Say how many samples are left out, and name the first; nothing where none is.

    Args:
        left_out: The samples.
        what: What they are, such as `pictures`.
        total: Of how many, where that is known.
    """
    if not left_out:
        return []
    # Without the advice of each, which would be that of others too.
    named = "; ".join(
        f"{sample.source}: {sample.reason.partition('; ')[0]}" for sample in left_out[:_NAMED]
    )
    more = "; ..." if len(left_out) > _NAMED else ""
    of = "" if total is None else f" of {total:,}"
    return [
        f"{len(left_out):,}{of} {what} are left out (--data.bad_samples skip): {printable(named)}{more}"
    ]
