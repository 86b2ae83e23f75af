"""Residual networks over images and over one-dimensional signals: one implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from resdomains.core.activations import Activation, ReLU
from resdomains.core.afters import After
from resdomains.core.branches.conv import Basic, Branch
from resdomains.core.coupling import Coupling, Plain
from resdomains.core.features import Features
from resdomains.core.masks import Valid, check_items, valid_of
from resdomains.core.memory import Memory
from resdomains.core.merges import Add, Merge
from resdomains.core.norms import BatchNorm, Norm
from resdomains.core.parts import Part
from resdomains.core.place import Place, Site
from resdomains.core.residual import Residual
from resdomains.core.shortcuts import Identity, Projection, Shortcut
from resdomains.core.stack import Stack
from resdomains.core.stems import SmallImageStem, Stem

_PLAIN = Plain()


class Stage(nn.Module):
    """A block that changes the shape, a stack of blocks that keep it, and what ends the stage.

    ``transition`` is empty where the shape stays.
    """

    def __init__(self, transition: Sequence[Residual], stack: Stack, finish: Part) -> None:
        super().__init__()
        self.transition = nn.ModuleList(transition)
        self.stack = stack
        self.finish = finish

    def forward(self, x: Tensor, valid: Valid | None = None) -> tuple[Tensor, Valid | None]:
        for block in cast(list[Residual], self.transition):
            x = self.stack.memory.outside.run(_PLAIN, [block], x, valid)
            valid = block.advance(valid)
        return self.finish(self.stack(x, valid), valid), valid


class ResNet(nn.Module):
    """A stem and stages of residual blocks; what ``ResNet2d`` and ``ResNet1d`` share.

    ``layers[i]`` blocks of ``channels[i]`` output channels make stage ``i``; its first block has
    stride ``strides[i]`` (1, then 2 by default) and its kernels dilation ``dilations[i]``. The stem
    has ``stem_channels``, those of the first stage by default. Everything that changes the
    computation is a factory:

    - ``block`` builds a branch, ``shortcut`` what passes it where an identity does not fit,
      ``merge`` the sum of both, ``after`` what follows the sum (None: what the branch was
      published with);
    - ``norm`` and ``activation`` serve all of them;
    - ``coupling`` says how blocks that keep the shape follow each other (None: one by one), and
      ``memory`` keeps activations (None: all).

    Attributes: ``in_channels``; ``out_channels`` and ``stride``, one entry per stage; ``depth``,
    the weighted layers counted as in He et al. 2015: the stem as one, the branches' convolutions,
    and one for the head that follows.

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
        block: Callable[[Place], Branch] = Basic,
        shortcut: Callable[[Place], Shortcut] = Projection,
        merge: Callable[[Site], Merge] = Add,
        after: Callable[[Place], After] | None = None,
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
        self.out_channels = tuple(channels)
        self.depth = 2
        total = sum(layers)
        reduction = self.stem.stride
        reductions: list[int] = []
        stages: list[Stage] = []
        index = 0
        for count, out_channels, stride, dilation in zip(
            layers, channels, strides, dilations, strict=True
        ):
            transition: list[Residual] = []
            blocks: list[Residual] = []
            for number in range(count):
                place = Place(
                    width,
                    out_channels,
                    norm,
                    activation,
                    stride=stride if number == 0 else 1,
                    dilation=dilation,
                    dims=self.dims,
                    activated=number == 0,
                    index=index,
                    depth=total,
                )
                branch = block(place)
                joined = _residual(place, branch, shortcut, merge(place.site), after)
                (blocks if place.keeps_shape else transition).append(joined)
                self.depth += branch.layers
                index += 1
                width = out_channels
            stages.append(Stage(transition, Stack(blocks, coupling, memory), branch.finish(place)))
            reduction *= stride
            reductions.append(reduction)
        self.stages = nn.ModuleList(stages)
        self.stride = tuple(reductions)

    def blocks(self) -> Iterator[tuple[str, Residual]]:
        """Every block with its name, in the order in which data passes them."""
        for name, module in self.named_modules():
            if isinstance(module, Residual):
                yield name, module

    def _features(self, x: Tensor, valid: Valid | None) -> Features:
        """``(B, C, H, W)``, H = 1 for signals, to the maps of all stages."""
        # channels_last is the fast layout on CPU, and on GPU with bf16; weights have it already.
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.stem(x, valid)
        valid = self.stem.advance(valid)
        maps: list[Tensor] = []
        valids: list[Valid | None] = []
        for stage in self.stages:
            x, valid = stage(x, valid)
            maps.append(x)
            valids.append(valid)
        return Features(tuple(maps), tuple(valids))

    def _check_input(self, x: Tensor, shape: str) -> None:
        if x.dim() != self.dims + 2:
            raise ValueError(f"x: expected {self.dims + 2} axes {shape}, got {tuple(x.shape)}")
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"x: expected {self.in_channels} channels on axis 1 of {shape}, got {x.shape[1]}; "
                f"the network was built with in_channels={self.in_channels}"
            )


class ResNet2d(ResNet):
    """A residual network over ``(B, C, H, W)``; its maps are ``(B, C, H, W)``."""

    dims = 2

    def forward(self, x: Tensor) -> Features:
        """The maps of every stage.

        Raises:
            ValueError: ``x`` has another number of axes or channels than the network takes.
        """
        self._check_input(x, "(B, C, H, W)")
        return self._features(x, None)


class ResNet1d(ResNet):
    """A residual network over ``(B, C, L)``; its maps are ``(B, C, L)``.

    Inside, maps are ``(B, C, 1, L)``: the network is ``ResNet2d`` at height one.
    """

    dims = 1

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Features:
        """The maps of every stage; ``lengths`` ``(B,)`` says how many positions of an item count.

        Raises:
            ValueError: ``x`` has another number of axes or channels than the network takes, or
                ``lengths`` does not fit it.
        """
        self._check_input(x, "(B, C, L)")
        valid = valid_of(lengths, x.shape[2])
        check_items(x, valid)
        features = self._features(x.unsqueeze(2), valid)
        return Features(tuple(m.squeeze(2) for m in features.maps), features.valid)


def _residual(
    place: Place,
    branch: Branch,
    shortcut: Callable[[Place], Shortcut],
    merge: Merge,
    after: Callable[[Place], After] | None,
) -> Residual:
    if merge.streams != 1 and not place.keeps_shape:
        merge = Add(place.site)
    # A shortcut that nobody reads would hold weights without gradients, which DDP refuses.
    passes = place.keeps_shape or not merge.reads_shortcut
    return Residual(
        branch,
        Identity(place) if passes else shortcut(place),
        merge,
        branch.after(place) if after is None else after(place),
    )


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
