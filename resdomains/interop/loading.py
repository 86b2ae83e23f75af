"""Copying a state into a network, all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resdomains.core.heads import TaskHead
from resdomains.core.networks.encoder import ResidualEncoder
from resdomains.core.networks.resnet import ResNet
from resdomains.interop.encoder_naming import names_of_encoder
from resdomains.interop.names import Names
from resdomains.interop.naming import names_of_resnet

_SHOWN = 6


@dataclass(frozen=True)
class Loaded:
    """What a load did: keys of ours that were filled, and keys of the source that were not used.

    ``left_out`` holds what the source has for other tasks, and its classifier where no head was
    given, or one that reads something else, or the classes differ; ``reason`` says which, and is
    empty where the whole classifier was used.
    """

    filled: tuple[str, ...]
    left_out: tuple[str, ...]
    reason: str


def load_state(
    network: nn.Module, state: Mapping[str, Tensor], library: str, head: TaskHead | None = None
) -> Loaded:
    """Fills ``network``, and ``head`` where the classes agree, from another library's state.

    ``library`` is torchvision, timm or huggingface. Nothing changes unless everything fits.

    Raises:
        ValueError: keys are missing, unexpected or of another shape (all are listed), or the
            library is unknown, has no such network or computes it differently.
    """
    if not isinstance(network, ResNet | ResidualEncoder):
        raise ValueError(
            f"weights from {library} are for ResNet2d, ResNet1d and ResidualEncoder, not for this "
            f"{type(network).__name__}; an earlier run's are read by resdomains.interop.Checkpoint"
        )
    names = (
        names_of_encoder(network, library, state)
        if isinstance(network, ResidualEncoder)
        else names_of_resnet(network, library)
    )
    given = _clean(state, names)
    ours = network.state_dict()
    wanted = {key: theirs for key, theirs in names.keys.items() if theirs is not None}
    missing = [f"{key} (no counterpart in {library})" for key in ours if key not in wanted]
    missing += [
        f"{theirs} (for {key})"
        for key, parts in wanted.items()
        for theirs in parts
        # Files written before torch 0.4.1 do not count batches, and nothing here needs the count.
        if theirs not in given and not theirs.endswith("num_batches_tracked")
    ]
    of_head = {**names.pooler, **names.head}
    used = {theirs for parts in wanted.values() for theirs in parts}
    extra = [key for key in given if key not in used]
    spare = [theirs for theirs in of_head.values() if theirs in extra]
    spare += [key for key in extra if key.startswith(names.ignored) and key not in spare]
    unexpected = [key for key in extra if key not in spare]

    targets = {
        key: (_stacked(given, parts), ours[key])
        for key, parts in wanted.items()
        if all(theirs in given for theirs in parts)
    }
    taken, reason = _taken(head, names, given)
    if head is not None:
        of_ours = head.state_dict()
        for key, theirs in taken.items():
            targets[f"head.{key}"] = (given[theirs], of_ours[key])
    wrong = [
        f"{key}: expected {tuple(target.shape)}, got {tuple(value.shape)}"
        for key, (value, target) in targets.items()
        if not _fits(value, target)
    ]
    refuse_misfits(library, network, missing, unexpected, wrong)
    with torch.no_grad():
        for value, target in targets.values():
            target.copy_(value.reshape(target.shape))
    return Loaded(tuple(targets), tuple(key for key in spare if key not in taken.values()), reason)


def refuse_misfits(
    source: str, network: nn.Module, missing: list[str], unexpected: list[str], wrong: list[str]
) -> None:
    """Refuses weights that do not fit, with what is missing, unexpected and of another shape.

    Raises:
        ValueError: there is any of these.
    """
    if missing or unexpected or wrong:
        known = {
            "depth": "depth {}",
            "in_channels": "in_channels={}",
        }
        sizes = [t.format(getattr(network, n)) for n, t in known.items() if hasattr(network, n)]
        raise ValueError(
            f"weights from {source} do not fit this {type(network).__name__}"
            + (f" ({', '.join(sizes)})" if sizes else "")
            + ":"
            + _listed("missing", missing)
            + _listed("unexpected", unexpected)
            + _listed("of another shape", wrong)
        )


def _stacked(given: Mapping[str, Tensor], parts: tuple[str, ...]) -> Tensor:
    return given[parts[0]] if len(parts) == 1 else torch.cat([given[part] for part in parts])


def _taken(
    head: TaskHead | None, names: Names, given: Mapping[str, Tensor]
) -> tuple[dict[str, str], str]:
    """The head's keys that the source fills, with its own; and why the classifier is left out."""
    classifier = names.head["linear.weight"]
    if head is None:
        return {}, "no head was given" if classifier in given else ""
    keys = head.state_dict().keys()
    whole = {**names.pooler, **names.head}
    if not names.fit(head) or keys != whole.keys():
        return {}, (
            "the source has no classifier"
            if classifier not in given
            else f"the source's classifier reads something else than this {type(head).__name__}"
        )
    pooler = {key: theirs for key, theirs in names.pooler.items() if theirs in given}
    if classifier not in given:
        return pooler, "the source has no classifier"
    if given[classifier].shape[0] != head.linear.out_features:
        return pooler, (
            f"the source has {given[classifier].shape[0]} classes, the head "
            f"{head.linear.out_features}"
        )
    return {key: theirs for key, theirs in whole.items() if theirs in given}, ""


def _clean(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """The state without the prefixes of wrappers: DistributedDataParallel's, and the library's."""
    cleaned: dict[str, Tensor] = {}
    for key, value in state.items():
        for prefix in ("module.", *names.prefixes):
            key = key.removeprefix(prefix)
        # TensorFlow's names, in files of transformers' first years.
        for old, new in (
            ("LayerNorm.gamma", "LayerNorm.weight"),
            ("LayerNorm.beta", "LayerNorm.bias"),
        ):
            key = key.replace(old, new)
        cleaned[key] = value
    return cleaned


def _fits(value: Tensor, target: Tensor) -> bool:
    """Equal shapes, or equal but for ones at the ends.

    A linear layer may be written as a 1x1 convolution, a table with an axis for the batch.
    """
    return _core(value) == _core(target)


def _core(tensor: Tensor) -> list[int]:
    shape = list(tensor.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    while shape and shape[0] == 1:
        shape.pop(0)
    return shape


def _listed(title: str, entries: list[str]) -> str:
    if not entries:
        return ""
    more = [f"... and {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
    return f"\n{title}: {len(entries)}" + "".join(f"\n  {e}" for e in entries[:_SHOWN] + more)
