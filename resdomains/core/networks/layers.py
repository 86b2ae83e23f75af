"""Layers of residual blocks over sequences or vectors: what encoders and MLPs share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from resdomains.core.branches.sequence import SequenceBranch
from resdomains.core.merges import Merge
from resdomains.core.norm_positions import NormPosition
from resdomains.core.parts import Bare
from resdomains.core.place import SequencePlace, Site
from resdomains.core.residual import Residual


def blocks_of(
    layers: int,
    layer: Sequence[Callable[[SequencePlace], SequenceBranch]],
    position: NormPosition,
    merge: Callable[[Site], Merge],
    edge: SequencePlace,
) -> Iterator[Residual]:
    """The blocks of ``layers`` layers, one for every factory of ``layer``, as wide as ``edge``."""
    sums = layers * len(layer)
    for index in range(sums):
        place = SequencePlace(edge.width, edge.norm, edge.activation, index, sums)
        branch = layer[index % len(layer)](place)
        yield Residual(
            position.branch(place, branch),
            Bare(),
            merge(place.site),
            position.after(place, last=(index + 1) % len(layer) == 0),
        )


def check_sizes(layer: Sequence[object], **sizes: int) -> None:
    """Raises ValueError if ``layer`` is empty or one of the named sizes is below 1."""
    if not layer:
        raise ValueError("layer: expected at least one factory of branches, got none")
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
