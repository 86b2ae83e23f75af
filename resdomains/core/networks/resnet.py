"""Residual networks over images and over one-dimensional signals: one implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from resdomains.core.activations import Activation, ReLU
from resdomains.core.afters import After
from resdomains.core.branches.conv import Basic, Branch
from resdomains.core.coupling import Coupling, Plain
from resdomains.core.entries import Entry, NoEntry
from resdomains.core.features import Features
from resdomains.core.masks import Valid, check_items, valid_of
from resdomains.core.memory import Memory
from resdomains.core.merges import Add, Merge
from resdomains.core.networks.backbone import Backbone
from resdomains.core.norms import BatchNorm, Norm
from resdomains.core.parts import Part
from resdomains.core.place import Place, Site
from resdomains.core.residual import Residual
from resdomains.core.shortcuts import Identity, Projection, Shortcut
from resdomains.core.stack import Stack
from resdomains.core.stems import SmallImageStem, Stem
from resdomains.core.tails import NoTail, Tail

_PLAIN = Plain()


class Stage(nn.Module):
    """What leads in, a block that changes the shape, a stack that keeps it, and what ends the stage.

    ``transition`` is empty where the shape stays, or where the entry has changed it.
    """

    def __init__(
        self, entry: Entry, transition: Sequence[Residual], stack: Stack, finish: Part
    ) -> None:
        super().__init__()
        self.entry = entry
        self.transition = nn.ModuleList(transition)
        self.stack = stack
        self.finish = finish

    def forward(self, x: Tensor, valid: Valid | None = None) -> tuple[Tensor, Valid | None]:
        x, valid = self.entry(x, valid), self.entry.advance(valid)
        for block in cast(list[Residual], self.transition):
            x = self.stack.memory.outside.run(_PLAIN, [block], x, valid)
            valid = block.advance(valid)
        return self.finish(self.stack(x, valid), valid), valid


class ResNet(Backbone):
    """A stem and stages of residual blocks; what ``ResNet2d`` and ``ResNet1d`` share.

    ``layers[i]`` blocks of ``channels[i]`` output channels make stage ``i``; its first block has
    stride ``strides[i]`` (1, then 2 by default) and its kernels dilation ``dilations[i]``. The stem
    has ``stem_channels``, those of the first stage by default. Everything that changes the
    computation is a factory:

    - ``stem`` reads the input, ``entry`` leads a stage where the shape changes, ``tail`` follows the
      last stage and makes its map;
    - ``block`` builds a branch (a list of factories: one per stage), ``shortcut`` what passes it
      where an identity does not fit and ``inner_shortcut`` where it does, ``merge`` the sum of
      both, ``after`` what follows the sum (None: what the branch was published with);
    - ``norm`` and ``activation`` serve all of them;
    - ``coupling`` says how blocks that keep the shape follow each other (None: one by one), and
      ``memory`` keeps activations (None: all).

    Attributes: ``in_channels``; ``out_channels`` and ``stride``, one entry per stage; ``depth``,
    the weighted layers counted as in He et al. 2015: the stem as one, the convolutions of
    branches, entries and tail, and one for the head that follows.

    Raises:
        ValueError: a number or a list does not fit the others, or a merge cannot work here.
    """

    dims: ClassVar[int]

    def __init__(
        self,
        layers: Sequence[int] = (3, 3, 3),
        channels: Sequence[int] = (16, 32, 64),
        in_channels: int = 3,
        stem_channels: int | None = None,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        stem: Callable[[Place], Stem] = SmallImageStem,
        entry: Callable[[Place], Entry] = NoEntry,
        # The list first: jsonargparse writes a list only where its type comes first.
        block: Sequence[Callable[[Place], Branch]] | Callable[[Place], Branch] = Basic,
        shortcut: Callable[[Place], Shortcut] = Projection,
        inner_shortcut: Callable[[Place], Shortcut] = Identity,
        merge: Callable[[Site], Merge] = Add,
        after: Callable[[Place], After] | None = None,
        tail: Callable[[Place], Tail] = NoTail,
        norm: Callable[[int], Norm] = BatchNorm,
        activation: Callable[[], Activation] = ReLU,
        coupling: Coupling | None = None,
        memory: Memory | None = None,
    ) -> None:
        super().__init__()
        strides = strides or (1, *[2] * (len(layers) - 1))
        dilations = dilations or (1,) * len(layers)
        _check_stages(layers=layers, channels=channels, strides=strides, dilations=dilations)
        if in_channels < 1:
            raise ValueError(f"in_channels: expected at least 1, got {in_channels}")
        width = channels[0] if stem_channels is None else stem_channels
        if width < 1:
            raise ValueError(f"stem_channels: expected at least 1, got {width}")

        self.stem = stem(Place(in_channels, width, norm, activation, dims=self.dims))
        self.in_channels = in_channels
        self.depth = 2
        reduction = self.stem.stride
        reductions: list[int] = []
        activated = self.stem.activated
        stages: list[Stage] = []
        place = Place(width, width, norm, activation, dims=self.dims, depth=sum(layers))
        for number, (count, build) in enumerate(
            zip(layers, _per_stage(block, layers), strict=True)
        ):
            place = replace(
                place,
                out_channels=channels[number],
                stride=strides[number],
                dilation=dilations[number],
            )
            lead = NoEntry(place) if place.keeps_shape else entry(place)
            if place.stride % lead.stride:
                raise ValueError(
                    f"entry={type(lead).__name__} has stride {lead.stride}, which does not divide "
                    f"the {place.stride} of its stage, strides={list(strides)}"
                )
            place = replace(
                place,
                in_channels=lead.out_channels,
                stride=place.stride // lead.stride,
                activated=activated and lead.activated,
            )
            self.depth += lead.layers
            transition: list[Residual] = []
            blocks: list[Residual] = []
            for _ in range(count):
                branch = build(place)
                passes = inner_shortcut if place.keeps_shape else shortcut
                joined = _residual(place, branch, passes, merge(place.site), after)
                (blocks if place.keeps_shape else transition).append(joined)
                self.depth += branch.layers
                last = place
                place = replace(
                    place,
                    in_channels=place.out_channels,
                    stride=1,
                    activated=False,
                    index=place.index + 1,
                )
            stack = Stack(blocks, coupling, memory)
            stages.append(Stage(lead, transition, stack, branch.finish(last)))
            activated = True
            reduction *= strides[number]
            reductions.append(reduction)
        self.stages = nn.ModuleList(stages)
        self.tail = tail(replace(place, dilation=1))
        self.depth += self.tail.layers
        self.out_channels = (*channels[:-1], self.tail.out_channels)
        self.stride = tuple(reductions)

    def read(self, x: Tensor) -> Tensor:
        return self.stem.read(x)

    def _features(self, x: Tensor, valid: Valid | None) -> Features:
        """``(B, C, H, W)``, H = 1 for signals, to the maps of all stages."""
        # channels_last is the fast layout on CPU, and on GPU with bf16; weights have it already.
        x = x.contiguous(memory_format=torch.channels_last)
        x, valid = self.stem(x, valid), self.stem.advance(valid)
        maps: list[Tensor] = []
        valids: list[Valid | None] = []
        for stage in self.stages:
            x, valid = stage(x, valid)
            maps.append(x)
            valids.append(valid)
        maps[-1], valids[-1] = self.tail(x, valid), self.tail.advance(valid)
        return Features(tuple(maps), tuple(valids))


class ResNet2d(ResNet):
    """A residual network over ``(B, C, H, W)``; its maps are ``(B, C, H, W)``."""

    dims = 2

    def forward(self, x: Tensor) -> Features:
        """The maps of every stage.

        Raises:
            ValueError: ``x`` is not what the stem reads.
        """
        return self._features(self.read(x), None)


class ResNet1d(ResNet):
    """A residual network over ``(B, C, L)``, or what its stem reads; its maps are ``(B, C, L)``.

    Inside, maps are ``(B, C, 1, L)``: the network is ``ResNet2d`` at height one.
    """

    dims = 1

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Features:
        """The maps of every stage; ``lengths`` ``(B,)`` says how many positions of an item count.

        Raises:
            ValueError: ``x`` is not what the stem reads, or ``lengths`` does not fit it.
        """
        x = self.read(x)
        valid = valid_of(lengths, x.shape[3])
        check_items(x, valid)
        features = self._features(x, valid)
        return Features(tuple(m.squeeze(2) for m in features.maps), features.valid)


def _residual(
    place: Place,
    branch: Branch,
    shortcut: Callable[[Place], Shortcut],
    merge: Merge,
    after: Callable[[Place], After] | None,
) -> Residual:
    if merge.stack_only and not place.keeps_shape:
        merge = Add(place.site)
    # A shortcut that nobody reads would hold weights without gradients, which DDP refuses.
    return Residual(
        branch,
        shortcut(place) if merge.reads_shortcut else Identity(place),
        merge,
        branch.after(place) if after is None else after(place),
    )


def _per_stage(
    block: Sequence[Callable[[Place], Branch]] | Callable[[Place], Branch], layers: Sequence[int]
) -> Sequence[Callable[[Place], Branch]]:
    if callable(block):
        return [block] * len(layers)
    if len(block) != len(layers):
        raise ValueError(
            f"block: expected one factory, or {len(layers)}, one per stage as in "
            f"layers={list(layers)}, got {len(block)}"
        )
    return block


def _check_stages(**lists: Sequence[int]) -> None:
    if not lists["layers"]:
        raise ValueError("layers: expected one number of blocks per stage, got none")
    for name, values in lists.items():
        if len(values) != len(lists["layers"]):
            raise ValueError(
                f"{name}: expected {len(lists['layers'])} values, one per stage as in "
                f"layers={list(lists['layers'])}, got {list(values)}"
            )
        if min(values) < 1:
            raise ValueError(f"{name}: expected values of at least 1, got {list(values)}")
