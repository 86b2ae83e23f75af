"""What other libraries call the parts of a ``ResNet``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from resdomains.core.branches.conv import PreActivation
from resdomains.core.networks.resnet import ResNet, Stage
from resdomains.core.residual import Residual
from resdomains.core.shortcuts import PooledProjection
from resdomains.interop.names import Names


class Address(NamedTuple):
    """Where a part stands: ``role`` is stem, entry, finish, tail, or the block's part (branch ...).

    ``part`` is its dotted name there, such as ``conv1``; ``stage`` and ``block`` count from 0 and
    are 0 where they mean nothing. ``pooled`` says that the block's shortcut is pooled before its
    projection, were it by a pool of stride 1.
    """

    role: str
    part: str
    stage: int = 0
    block: int = 0
    pooled: bool = False


class Naming(NamedTuple):
    """One library's names.

    ``name`` turns an address into a key without its last word (``weight``, ``bias`` ...), or None
    where the library has no such part. ``head`` is its classifier; a leading ``prefix`` may be
    missing from its keys.
    """

    library: str
    name: Callable[[Address], str | None]
    head: str
    prefix: str = ""


def names_of_resnet(network: ResNet, library: str) -> Names:
    """The keys that ``library`` has for a network of this kind.

    Raises:
        ValueError: the library is unknown, or computes networks of this kind differently.
    """
    naming = naming_for(network, library)
    owners = {ours: naming.name(address) for ours, address in addresses(network)}
    keys: dict[str, tuple[str, ...] | None] = {}
    for key in network.state_dict():
        owner, _, last = key.rpartition(".")
        theirs = owners[owner]
        keys[key] = None if theirs is None else (f"{theirs}.{last}",)
    head = {f"linear.{last}": f"{naming.head}.{last}" for last in ("weight", "bias")}
    return Names(keys, head, prefixes=(naming.prefix,))


def addresses(network: ResNet) -> Iterator[tuple[str, Address]]:
    """Every key of the network's state, without its last word, with its address."""
    for key in dict.fromkeys(key.rpartition(".")[0] for key in network.state_dict()):
        yield key, _address(network, key)


def naming_for(network: ResNet, library: str) -> Naming:
    """The names that ``library`` has for a network of this kind.

    Raises:
        ValueError: the library is unknown, or computes networks of this kind differently.
    """
    if library not in NAMINGS:
        raise ValueError(f"library: expected one of {', '.join(NAMINGS)}, got {library!r}")
    if not any(isinstance(block.branch, PreActivation) for _, block in network.blocks()):
        return NAMINGS[library]
    if library != "timm":
        raise ValueError(f"library: {library} has no pre-activation networks; timm has")
    first = network.stages[0]
    if isinstance(first, Stage) and not first.transition:
        raise ValueError(
            "network: timm's ResNet V2 adds the input of the first block before its norm where "
            "that block keeps the number of channels; here, as in He et al. 2016, it is added "
            "after. The weights would load and compute something else; use a bottleneck network"
        )
    return Naming("timm", lambda a: _timm_v2(a, len(network.stages)), "head.fc")


def _address(network: ResNet, key: str) -> Address:
    words = key.split(".")
    if words[0] in ("stem", "tail"):
        return Address(words[0], ".".join(words[1:]))
    stage = int(words[1])
    if words[2] in ("entry", "finish"):
        return Address(words[2], ".".join(words[3:]), stage)
    owner = network.stages[stage]
    before = len(owner.transition) if isinstance(owner, Stage) else 0
    in_stack = words[2] == "stack"  # stages.0.stack.blocks.1.branch..., stages.0.transition.0...
    number = int(words[4]) + before if in_stack else int(words[3])
    rest = words[5:] if in_stack else words[4:]
    block = network.get_submodule(".".join(words[: len(words) - len(rest)]))
    pooled = isinstance(block, Residual) and isinstance(block.shortcut, PooledProjection)
    return Address(rest[0], ".".join(rest[1:]), stage, number, pooled)


def _torchvision(a: Address) -> str | None:
    """``conv1``, ``bn1``, ``layer1.0.conv1``, ``layer1.0.downsample.0``, and what timm's ResNet adds."""
    block = f"layer{a.stage + 1}.{a.block}."
    if a.role == "stem":
        return {
            "conv": "conv1",
            "norm": "bn1",
            "conv1": "conv1.0",
            "norm1": "conv1.1",
            "conv2": "conv1.3",
            "norm2": "conv1.4",
            "conv3": "conv1.6",
            "norm3": "bn1",
        }.get(a.part)
    if a.role == "shortcut" and a.part in ("conv", "norm"):
        return f"{block}downsample.{(a.part == 'norm') + a.pooled}"
    if a.role == "branch":
        if a.part.startswith("attention."):
            layer = {"attention.squeeze": "fc1", "attention.excite": "fc2"}.get(a.part)
            return f"{block}se.{layer}" if layer else None
        return block + a.part.replace("norm", "bn")
    return None


def _timm_v2(a: Address, stages: int) -> str | None:
    """timm keeps the norm that ends our stage in the first block of its next one."""
    if a.role == "stem":
        return {"conv": "stem.conv", "norm": "stages.0.blocks.0.norm1"}.get(a.part)
    if a.role == "finish":
        return f"stages.{a.stage + 1}.blocks.0.norm1" if a.stage + 1 < stages else "norm"
    block = f"stages.{a.stage}.blocks.{a.block}."
    if a.role == "shortcut" and a.part == "conv":
        return f"{block}downsample.conv"
    return block + a.part if a.role == "branch" and "." not in a.part else None


def _hugging_face(a: Address) -> str | None:
    """``encoder.stages.0.layers.0.layer.0.convolution`` and ``normalization``."""
    kind = {"conv": "convolution", "norm": "normalization"}.get(a.part[:4])
    block = f"encoder.stages.{a.stage}.layers.{a.block}."
    if kind is None or a.pooled:
        return None
    if a.role == "stem" and len(a.part) == 4:
        return f"embedder.embedder.{kind}"
    if a.role == "shortcut":
        return f"{block}shortcut.{kind}"
    if a.role == "branch":
        return f"{block}layer.{int(a.part[4:]) - 1}.{kind}"
    return None


NAMINGS = {
    "torchvision": Naming("torchvision", _torchvision, "fc"),
    "timm": Naming("timm", _torchvision, "fc"),
    "huggingface": Naming("huggingface", _hugging_face, "classifier.1", prefix="resnet."),
}
