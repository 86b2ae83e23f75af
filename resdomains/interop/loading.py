"""Copying another library's state into a network, all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from resdomains.core.heads import PooledHead
from resdomains.core.networks.resnet import ResNet
from resdomains.interop.naming import Naming, addresses, naming_for

_SHOWN = 6


@dataclass(frozen=True)
class Loaded:
    """What a load did: keys of ours that were filled, and keys of the source that were not used.

    ``left_out`` holds the source's classifier where no head was given or the number of classes
    differs; ``reason`` says which, and is empty otherwise.
    """

    filled: tuple[str, ...]
    left_out: tuple[str, ...]
    reason: str


def load_state(
    network: ResNet, state: Mapping[str, Tensor], library: str, head: PooledHead | None = None
) -> Loaded:
    """Fills ``network``, and ``head`` where the classes agree, from another library's state.

    ``library`` is torchvision, timm or huggingface. Nothing changes unless everything fits.

    Raises:
        ValueError: keys are missing, unexpected or of another shape (all are listed), or the
            library is unknown or computes such a network differently.
    """
    naming = naming_for(network, library)
    given = _clean(state, naming)
    targets, unknown = _targets(network, naming)
    missing = [f"{ours} (no counterpart in {library})" for ours in unknown]
    missing += [
        f"{theirs} (for {ours})"
        for ours, (theirs, _) in targets.items()
        # Files written before torch 0.4.1 do not count batches, and nothing here needs the count.
        if theirs not in given and not theirs.endswith("num_batches_tracked")
    ]
    ends = (".weight", ".bias")
    classifier = {
        naming.head + end: given[naming.head + end] for end in ends if naming.head + end in given
    }
    used = {theirs for theirs, _ in targets.values()}
    unexpected = [key for key in given if key not in used and key not in classifier]

    reason = "no head was given" if classifier and head is None else ""
    if head is not None:
        reason = _fit_head(head, classifier, naming, targets)
    pairs = {
        ours: (given[theirs], target)
        for ours, (theirs, target) in targets.items()
        if theirs in given
    }
    wrong = [
        f"{ours}: expected {tuple(target.shape)}, got {tuple(value.shape)}"
        for ours, (value, target) in pairs.items()
        if not _fits(value, target)
    ]
    if missing or unexpected or wrong:
        raise ValueError(
            f"weights from {library} do not fit this {type(network).__name__} "
            f"(depth {network.depth}, in_channels={network.in_channels}):"
            + _listed("missing", missing)
            + _listed("unexpected", unexpected)
            + _listed("of another shape", wrong)
        )
    with torch.no_grad():
        for value, target in pairs.values():
            target.copy_(value.reshape(target.shape))
    return Loaded(tuple(pairs), tuple(classifier) if reason else (), reason)


def _targets(network: ResNet, naming: Naming) -> tuple[dict[str, tuple[str, Tensor]], list[str]]:
    """Our keys with their names and our tensors, and our keys that have no counterpart."""
    names = {ours: naming.name(address) for ours, address in addresses(network)}
    targets: dict[str, tuple[str, Tensor]] = {}
    unknown: list[str] = []
    for key, tensor in network.state_dict().items():
        owner, _, last = key.rpartition(".")
        theirs = names[owner]
        if theirs is None:
            unknown.append(key)
        else:
            targets[key] = (f"{theirs}.{last}", tensor)
    return targets, unknown


def _fit_head(
    head: PooledHead,
    classifier: Mapping[str, Tensor],
    naming: Naming,
    targets: dict[str, tuple[str, Tensor]],
) -> str:
    """Adds the head to ``targets`` if the classes agree; else why not."""
    weight = classifier.get(f"{naming.head}.weight")
    if weight is None:
        return "the source has no classifier"
    if weight.shape[0] != head.linear.out_features:
        return f"the source has {weight.shape[0]} classes, the head {head.linear.out_features}"
    for last, tensor in head.linear.state_dict().items():
        targets[f"head.linear.{last}"] = (f"{naming.head}.{last}", tensor)
    return ""


def _clean(state: Mapping[str, Tensor], naming: Naming) -> dict[str, Tensor]:
    """The state without the prefixes of wrappers: DistributedDataParallel's, and the library's."""
    prefixes = ("module.", naming.prefix)
    cleaned: dict[str, Tensor] = {}
    for key, value in state.items():
        for prefix in prefixes:
            key = key.removeprefix(prefix)
        cleaned[key] = value
    return cleaned


def _fits(value: Tensor, target: Tensor) -> bool:
    """Equal shapes, or equal but for trailing ones: a linear layer written as a 1x1 convolution."""
    return _core(value) == _core(target)


def _core(tensor: Tensor) -> list[int]:
    shape = list(tensor.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    return shape


def _listed(title: str, entries: list[str]) -> str:
    if not entries:
        return ""
    more = [f"... and {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
    return f"\n{title}: {len(entries)}" + "".join(f"\n  {e}" for e in entries[:_SHOWN] + more)
