"""Which samples are held out where the data do not say."""

import hashlib
from collections.abc import Hashable, Sequence

from resdomains.schema import Split


def check_fraction(name: str, value: float) -> None:
    """Refuse a share that would take everything.

    Raises:
        ValueError: Unless 0 <= value < 1.
    """
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} is a share and must lie in [0, 1), got {value}")


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Refuse shares of validation and test that would take everything.

    Raises:
        ValueError: Unless both are shares and leave something.
    """
    check_fraction("val_fraction", val_fraction)
    check_fraction("test_fraction", test_fraction)
    if val_fraction + test_fraction >= 1.0:
        raise ValueError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train on"
        )


def held_out(
    names: Sequence[str],
    val: float,
    test: float = 0.0,
    *,
    groups: Sequence[Hashable] | None = None,
) -> list[Split]:
    """Give each name a split, by the rank of its SHA-256: whatever the machine, the order and the run's seed.

    Equal names have one split. Of a group of n distinct names the first round(n * test) by their hash test and the
    next round(n * val) validate; of three or more at least one does, for each share above 0.

    Args:
        names: What makes a sample itself.
        val: Share that validates.
        test: Share that tests.
        groups: What each name belongs to, such as its class: shares are of each group. Of equal names the first counts.
    """
    members: dict[Hashable, list[str]] = {}
    chosen: dict[str, Split] = {}
    for name, group in zip(
        names, groups if groups is not None else [None] * len(names), strict=True
    ):
        if name not in chosen:
            chosen[name] = "train"
            members.setdefault(group, []).append(name)
    for ranked in members.values():
        # A file's name may hold bytes that are not UTF-8.
        ranked.sort(key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest())
        count = len(ranked)
        least = 1 if count >= 3 else 0
        tested = max(least, round(count * test)) if test else 0
        validated = max(least, round(count * val)) if val else 0
        for name in ranked[:tested]:
            chosen[name] = "test"
        for name in ranked[tested : tested + validated]:
            chosen[name] = "val"
    return [chosen[name] for name in names]
