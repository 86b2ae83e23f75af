"""The returns of random actions and of good play that make an environment's return a score."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """Two returns of an environment, undiscounted and of whole episodes.

    Args:
        random: The mean return of random actions.
        reference: The return that counts as a score of 1.
        source: Where the two come from.
    """

    random: float
    reference: float
    source: str


REFERENCES: dict[str, Reference] = {}
