"""What stands before the first block of an encoder, and what it reads.

A network takes a factory ``Callable[[Place], SequenceStem]``; the place's ``in_channels`` are the
data's (the size of the vocabulary where the data are tokens), its ``out_channels`` the width D.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from resdomains.core.convolution import Conv
from resdomains.core.linear import Linear
from resdomains.core.masks import Valid, pack, packed, places, refuse
from resdomains.core.place import Place
from resdomains.core.positions import AddedPositions, LearnedPositions, NoPositions
from resdomains.core.tables import Table


class SequenceStem(nn.Module):
    """The contract: maps the input to sequences; ``stride`` divides the number of positions.

    ``length`` is the most positions that an input may have; None: any number.
    """

    stride: int = 1
    length: int | None = None

    def read(self, x: Tensor) -> Tensor:
        """A network's input, if the stem can read it; positions on the last axis.

        Raises:
            ValueError: ``x`` has another shape than the stem was built for.
        """
        raise NotImplementedError(f"{type(self).__name__} must define read(x)")

    def forward(self, x: Tensor, valid: Valid | None) -> tuple[Tensor, Valid | None]:
        """``(B, T, D)``; with valid positions their rows ``(N, D)``, and the packed ``valid``."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, valid)")


class TokenStem(SequenceStem):
    """The sum of a vector per token, per token type, and per position (Devlin et al. 2019).

    Reads ids ``(B, T)`` from 0 to ``in_channels - 1``, or ``(B, 2, T)`` with the token types
    (0 to ``types - 1``) in the second row; without that row all are of type 0. ``types`` 0 leaves
    types out. ``length`` is the number of positions that ``positions`` is built for. Ids of padding
    are not read.

    Raises:
        ValueError: ``types`` is below 0.
    """

    def __init__(
        self,
        place: Place,
        length: int = 512,
        types: int = 0,
        positions: Callable[[int, int], AddedPositions] = LearnedPositions,
    ) -> None:
        super().__init__()
        if types < 0:
            raise ValueError(f"types: expected 0 (none) or more, got {types}")
        self.tokens = _Table(place.in_channels, place.out_channels, "token ids", "in_channels")
        self.types = _Table(types, place.out_channels, "token types", "types") if types else None
        self.positions = positions(place.out_channels, length)
        self.length = self.positions.length

    def read(self, x: Tensor) -> Tensor:
        """Ids ``(B, T)`` or ``(B, 2, T)``, as they are.

        Raises:
            ValueError: ``x`` has another shape.
            TypeError: ``x`` does not hold integers.
        """
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(f"x: expected integers (token ids), got {x.dtype}")
        if x.dim() != 2 and (x.dim() != 3 or x.shape[1] != 2):
            raise ValueError(
                f"x: expected token ids (B, T), or (B, 2, T) with token types in the second row, "
                f"got {tuple(x.shape)}"
            )
        if x.dim() == 3 and self.types is None:
            raise ValueError(
                f"x: expected token ids (B, T), got {tuple(x.shape)} with token types; the stem "
                f"was built with types=0"
            )
        return x

    def forward(self, x: Tensor, valid: Valid | None) -> tuple[Tensor, Valid | None]:
        valid = packed(valid)
        ids = x if x.dim() == 2 else x[:, 0]
        y: Tensor = self.tokens(pack(ids, valid))
        if self.types is not None:
            y = y + self.types(pack(x[:, 1], valid) if x.dim() == 3 else ids.new_zeros(()))
        return self.positions(y, places(ids, valid), ids.shape[1]), valid


class SubsamplingStem(SequenceStem):
    """Two 3x3 convolutions of stride 2 over frames and bands, and a linear map (Conformer).

    Reads ``(B, C, T)``, C bands of T frames, and keeps every fourth of T, rounded up. Each
    convolution is followed by the network's activation (Gulati et al. 2020, after Dong et al. 2018).
    ``length`` is the number of positions that ``positions`` is built for.
    """

    stride = 4

    def __init__(
        self,
        place: Place,
        length: int = 5000,
        positions: Callable[[int, int], AddedPositions] = NoPositions,
    ) -> None:
        super().__init__()
        width = place.out_channels
        self.bands = place.in_channels
        self.conv1 = Conv(1, width, 3, stride=2, bias=True)
        self.act1 = place.activation()
        self.conv2 = Conv(width, width, 3, stride=2, bias=True)
        self.act2 = place.activation()
        self.project = Linear(width * -(-self.bands // 4), width)
        self.positions = positions(width, length)
        if self.positions.length is not None:
            self.length = self.positions.length * self.stride

    def read(self, x: Tensor) -> Tensor:
        return _vectors(x, self.bands)

    def forward(self, x: Tensor, valid: Valid | None) -> tuple[Tensor, Valid | None]:
        maps = self.act1(self.conv1(x.unsqueeze(1), valid))
        valid = self.conv1.advance(valid)
        maps = self.act2(self.conv2(maps, valid))
        valid = packed(self.conv2.advance(valid))
        frames = maps.permute(0, 3, 2, 1).flatten(2)  # (B, D, C / 4, T / 4)
        y = self.project(pack(frames, valid))
        return self.positions(y, places(frames, valid), frames.shape[1]), valid


class VectorStem(SequenceStem):
    """A linear map of the vector at each position: ``W x_t + bias``.

    Reads ``(B, C, T)``, C numbers at each of T positions. ``length`` is the number of positions
    that ``positions`` is built for.
    """

    def __init__(
        self,
        place: Place,
        length: int = 512,
        positions: Callable[[int, int], AddedPositions] = LearnedPositions,
    ) -> None:
        super().__init__()
        self.in_channels = place.in_channels
        self.project = Linear(place.in_channels, place.out_channels)
        self.positions = positions(place.out_channels, length)
        self.length = self.positions.length

    def read(self, x: Tensor) -> Tensor:
        return _vectors(x, self.in_channels)

    def forward(self, x: Tensor, valid: Valid | None) -> tuple[Tensor, Valid | None]:
        valid = packed(valid)
        vectors = x.transpose(1, 2)
        y = self.project(pack(vectors, valid))
        return self.positions(y, places(vectors, valid), vectors.shape[1]), valid


class PatchStem(SequenceStem):
    """A linear map of every ``patch`` x ``patch`` square, row by row (Dosovitskiy et al. 2021).

    Reads images ``(B, C, H, W)`` of ``size``, H and W or one number for both; ``class_tokens``
    learned vectors come first.

    Raises:
        ValueError: ``patch`` does not divide the size, or ``class_tokens`` is below 0.
    """

    def __init__(
        self,
        place: Place,
        patch: int = 16,
        size: int | tuple[int, int] = 224,
        class_tokens: int = 1,
        positions: Callable[[int, int], AddedPositions] = LearnedPositions,
    ) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        if patch < 1 or self.size[0] % patch or self.size[1] % patch:
            raise ValueError(
                f"patch: expected a divisor of the image's height and width {self.size}, "
                f"got {patch}"
            )
        if class_tokens < 0:
            raise ValueError(f"class_tokens: expected 0 or more, got {class_tokens}")
        self.in_channels = place.in_channels
        self.stride = patch
        self.project = nn.Conv2d(place.in_channels, place.out_channels, patch, patch)
        nn.init.xavier_normal_(self.project.weight.flatten(1))
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]  # built with a bias
        self.class_token = nn.Parameter(torch.empty(class_tokens, place.out_channels))
        nn.init.trunc_normal_(self.class_token, std=0.02)
        patches = self.size[0] // patch * (self.size[1] // patch)
        self.positions = positions(place.out_channels, class_tokens + patches)

    def read(self, x: Tensor) -> Tensor:
        shape = (self.in_channels, *self.size)
        if x.dim() != 4 or x.shape[1:] != shape:
            raise ValueError(
                f"x: expected images (B, C, H, W) with (C, H, W) = {shape}, for which the stem was "
                f"built, got {tuple(x.shape)}"
            )
        return x

    def forward(self, x: Tensor, valid: Valid | None) -> tuple[Tensor, Valid | None]:
        refuse(valid, "PatchStem", "a stem for signals")
        patches = self.project(x).flatten(2).transpose(1, 2)
        y = torch.cat((self.class_token.to(patches.dtype).expand(x.shape[0], -1, -1), patches), 1)
        return self.positions(y, places(y, valid), y.shape[1]), valid


def _vectors(x: Tensor, channels: int) -> Tensor:
    """``x`` itself, ``(B, C, T)``.

    Raises:
        ValueError: it has another number of axes or channels.
    """
    if x.dim() != 3 or x.shape[1] != channels:
        raise ValueError(
            f"x: expected (B, C, T) with {channels} channels on axis 1 (the network was built with "
            f"in_channels={channels}), got {tuple(x.shape)}"
        )
    return x


class _Table(Table):
    """Ids to vectors, which start normal with deviation 0.02 (Devlin et al. 2019).

    ``what`` names the ids and ``which`` the argument that set their number, for messages.
    """

    def __init__(self, ids: int, width: int, what: str, which: str) -> None:
        super().__init__(ids, width)
        self.what = what
        self.which = which

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, input: Tensor) -> Tensor:
        """``(..., D)``.

        Raises:
            ValueError: an id leaves the table (checked for CPU tensors only: elsewhere reading it
                would stall the device).
        """
        if input.device.type == "cpu" and input.numel():
            low, high = int(input.min()), int(input.max())
            if low < 0 or high >= self.num_embeddings:
                raise ValueError(
                    f"x: expected {self.what} from 0 to {self.num_embeddings - 1} (the stem was "
                    f"built with {self.which}={self.num_embeddings}), got values from {low} to "
                    f"{high}"
                )
        return super().forward(input)
