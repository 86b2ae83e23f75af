"""Which positions of a batch count, and every computation that depends on it.

``valid is None`` (all positions count) is asked here and nowhere else. Maps are ``(B, C, H, W)``
or ``(B, C, L)``; a mask belongs to the last axis, and True means that a position counts. Sequences
are ``(B, T, D)``, or packed: ``(N, D)``, the valid positions of all items one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Valid:
    """The positions of each item that hold data; what follows them is padding.

    ``lengths`` is ``(B,)`` and counts positions; ``mask`` is ``(B, L)``, True = valid. Where
    sequences are packed, ``rows`` ``(N,)`` holds the places of their rows in ``(B L, D)``.
    """

    lengths: Tensor
    mask: Tensor
    rows: Tensor | None = None

    @staticmethod
    def of(lengths: Tensor, size: int) -> Valid:
        """The valid positions of a batch padded to ``size``.

        Raises:
            ValueError: ``lengths`` is not ``(B,)`` or leaves the range from 1 to ``size`` (the
                range is checked for CPU tensors only: elsewhere reading it would stall the device).
            TypeError: ``lengths`` does not hold integers.
        """
        if lengths.dim() != 1:
            raise ValueError(
                f"lengths: expected shape (B,), one length per item, got {tuple(lengths.shape)}"
            )
        if lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise TypeError(
                f"lengths: expected integers (positions, not fractions), got {lengths.dtype}"
            )
        if lengths.device.type == "cpu" and lengths.numel():
            low, high = int(lengths.min()), int(lengths.max())
            if low < 1 or high > size:
                raise ValueError(
                    f"lengths: expected values from 1 to {size} (the size of axis L), "
                    f"got values from {low} to {high}"
                )
        lengths = lengths.long()  # uint8 would overflow in sums
        return Valid(lengths, torch.arange(size, device=lengths.device) < lengths.unsqueeze(1))


def packed(valid: Valid | None) -> Valid | None:
    """The same positions, for sequences that hold nothing else."""
    return None if valid is None else replace(valid, rows=_places(valid.mask))


def padded(valid: Valid | None) -> Valid | None:
    """The same positions, for sequences or maps that hold padding too."""
    return None if valid is None else replace(valid, rows=None)


def pack(x: Tensor, valid: Valid | None) -> Tensor:
    """``(B, T, D)`` to the rows ``(N, D)`` that count; ``x`` itself unless ``valid`` is packed."""
    if valid is None or valid.rows is None:
        return x
    return x.flatten(0, 1).index_select(0, valid.rows)


def unpack(x: Tensor, valid: Valid | None) -> Tensor:
    """The reverse of ``pack``; padding is zero."""
    if valid is None or valid.rows is None:
        return x
    whole = x.new_zeros(valid.mask.numel(), x.shape[-1]).index_copy_(0, valid.rows, x)
    return whole.view(*valid.mask.shape, -1)


def places(x: Tensor, valid: Valid | None) -> Tensor:
    """The position of each row within its item: ``(T,)`` for ``(B, T, ...)``, ``(N,)`` if packed."""
    if valid is None or valid.rows is None:
        return torch.arange(x.shape[1], device=x.device)
    return valid.rows % valid.mask.shape[1]


def readable(bias: Tensor | None, valid: Valid | None) -> Tensor | None:
    """What keeps attention from reading padding, as ``scaled_dot_product_attention`` takes it.

    ``bias``, which is added to the scores ``(B, H, T, T)``, with -inf at padding; without a bias a
    mask ``(B, 1, 1, T)``, True = may be read.
    """
    if valid is None:
        return bias
    mask = valid.mask[:, None, None]
    return mask if bias is None else bias.masked_fill(~mask, -torch.inf)


def as_map(x: Tensor, valid: Valid | None) -> tuple[Tensor, Valid | None]:
    """Sequences, packed rows or vectors as a map ``(B, D, 1, T)``, with its valid positions."""
    x = unpack(x, valid)
    sequences = x if x.dim() == 3 else x.unsqueeze(1)
    return sequences.transpose(1, 2).unsqueeze(2), padded(valid)


def as_rows(y: Tensor, x: Tensor, valid: Valid | None) -> Tensor:
    """A map ``(B, D, 1, T)`` in the form of ``x``, from which ``as_map`` made it."""
    return pack(y.squeeze(2).transpose(1, 2), valid).reshape(x.shape)


def items(x: Tensor, valid: Valid | None) -> int:
    """How many items ``x`` holds: the size of axis B, or that of the batch whose rows it holds."""
    return x.shape[0] if valid is None else valid.lengths.shape[0]


def per_item(values: Tensor, x: Tensor, valid: Valid | None) -> Tensor:
    """``values`` ``(B,)``, one for each item, in a shape that broadcasts over ``x``."""
    if valid is not None and valid.rows is not None:
        values = values[valid.rows // valid.mask.shape[1]]
    return values.view(-1, *[1] * (x.dim() - 1))


def sizes(x: Tensor, valid: Valid | None) -> Tensor:
    """How many positions of each item count, ``(B, 1)``; ``x`` is ``(B, L, ...)``."""
    if valid is None:
        return torch.full((x.shape[0], 1), x.shape[1], device=x.device)
    return valid.lengths.unsqueeze(1)


def check_items(x: Tensor, valid: Valid | None) -> None:
    """Raises ValueError unless ``valid`` speaks about as many items as ``x`` has."""
    if valid is not None and valid.lengths.shape[0] != x.shape[0]:
        raise ValueError(
            f"lengths: expected {x.shape[0]} values (axis B of the input), "
            f"got {valid.lengths.shape[0]}"
        )


def valid_of(lengths: Tensor | None, size: int) -> Valid | None:
    """``Valid.of`` where lengths are given; all positions count where they are not."""
    return None if lengths is None else Valid.of(lengths, size)


def advance(
    valid: Valid | None,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int = 1,
    ceil: bool = False,
) -> Valid | None:
    """The valid positions after a convolution or a pool along the last axis.

    ``out = floor((length + 2 padding - dilation (kernel - 1) - 1) / stride) + 1``, or its ceiling;
    a window that would begin in the right padding is dropped, as torch's pools do. The padded size
    follows the same formula, so an item has the same length alone and in a batch.
    """
    if valid is None:
        return None
    reach = dilation * (kernel - 1)
    if stride == 1 and 2 * padding == reach:
        return valid

    def after(length: Tensor) -> Tensor:
        slack = length + 2 * padding - reach - 1 + (stride - 1 if ceil else 0)
        out = torch.div(slack, stride, rounding_mode="floor") + 1
        if ceil:
            out = torch.where((out - 1) * stride >= length + padding, out - 1, out)
        return out.clamp_min(1)

    size = int(after(torch.tensor(valid.mask.shape[1])))
    return Valid.of(after(valid.lengths), size)


def hide(x: Tensor, valid: Valid | None, value: float = 0.0) -> Tensor:
    """``x`` with every invalid position set to ``value``, so that no window reads padding."""
    if valid is None:
        return x
    hidden = ~_spread(valid.mask, x)
    if not (_by_rows(x) and x.is_contiguous(memory_format=torch.channels_last)):
        # In channels_last twice as fast as masked_fill, which torch 2.11 compiles for one length alone.
        return torch.where(hidden, value, x)
    # A copy and a few rows of padding: some 8 times as fast as a mask that is spread over channels.
    batch, channels, height, width = x.shape
    filled = _lines(x).index_fill(0, _places(hidden), value)
    return filled.view(batch, height, width, channels).permute(0, 3, 1, 2)


def valid_rows(
    x: Tensor, valid: Valid | None, compute: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """``compute`` over the valid positions of a map ``(B, C, 1, L)`` as rows ``(N, C)``; else zeros.

    None where masks are the better way to leave padding out.
    """
    if valid is None or not _by_rows(x):
        return None
    _spread(valid.mask, x)
    places = _places(valid.mask)
    rows = compute(_lines(x).index_select(0, places))
    maps: Tensor = _Map.apply(rows, places, valid.mask.shape)  # type: ignore[no-untyped-call]
    return maps


class _Map(torch.autograd.Function):
    """Rows ``(N, C)`` at their places in a map ``(B, C, 1, L)`` of zeros, in channels_last.

    As ``as_map``, but no view: for an activation that overwrites a view autograd copies value and
    gradient five times, and meets strides for which its derivative is slow (a tenth of a step of
    QuartzNet).
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(places)
        whole = (shape[0], rows.shape[1], 1, shape[1])
        last = torch.channels_last
        maps = torch.empty(whole, dtype=rows.dtype, device=rows.device, memory_format=last).zero_()
        _lines(maps).index_copy_(0, places, rows)
        return maps

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        return _lines(gradient).index_select(0, places), None, None


def _places(mask: Tensor) -> Tensor:
    """Where a mask is True, counted over its axes one after another."""
    return mask.flatten().nonzero()[:, 0]


def _lines(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` to ``(B H W, C)``, without a copy of what is in channels_last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def mean(x: Tensor, valid: Valid | None) -> Tensor:
    """The mean over all valid positions: ``(B, C, ...)`` to ``(B, C)``."""
    if x.dim() == 2:
        return x
    if valid is None:
        return x.flatten(2).mean(2) if x.dim() != 4 else x.mean((2, 3))
    total = hide(x, valid).flatten(2).sum(2)
    rows = x.shape[2] if x.dim() == 4 else 1
    return total / (valid.lengths * rows).unsqueeze(1).to(total.dtype)


def largest(x: Tensor, valid: Valid | None, k: int) -> Tensor:
    """The ``k`` largest values of each channel in order of position: ``(B, C, L)`` to ``(B, C, k)``.

    Of valid positions, the first ones among equals; an item of fewer than ``k`` has zeros behind.
    """
    missing = (0, max(k - x.shape[2], 0))
    seen = F.pad(hide(x, valid, -torch.inf), missing, value=-torch.inf)
    # Not topk: which of equal values it takes, of a ReLU's zeros say, depends on the padding.
    ranked = seen.sort(dim=2, descending=True, stable=True).indices
    return F.pad(hide(x, valid), missing).gather(2, ranked[:, :, :k].sort(2).values)


def max_pool(
    x: Tensor,
    valid: Valid | None,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """Max pooling that never sees padding, whatever the sign of the data.

    A map shorter than a window has one, as an item so short has in a batch.
    """
    x = hide(x, valid, -torch.inf)
    sizes = zip(x.shape[:1:-1], kernel[::-1], padding[::-1], strict=True)
    missing = [max(window - 2 * edge - size, 0) for size, window, edge in sizes]
    if any(missing):
        x = F.pad(x, (0, missing[0], 0, missing[1]), value=-torch.inf)
    return F.max_pool2d(x, kernel, stride, padding)


def average_pool(x: Tensor, valid: Valid | None, kernel: tuple[int, int]) -> Tensor:
    """Average pooling, stride = kernel, a window at the edge averaging what it has.

    With masked positions a window averages its valid ones: ``pool(x m) / pool(m)``.
    """
    pooled = F.avg_pool2d(hide(x, valid), kernel, kernel, ceil_mode=True, count_include_pad=False)
    if valid is None:
        return pooled
    mask = _spread(valid.mask, x).to(x.dtype).expand(-1, 1, x.shape[2], -1)
    share = F.avg_pool2d(mask, kernel, kernel, ceil_mode=True, count_include_pad=False)
    return pooled / share.clamp_min(torch.finfo(x.dtype).tiny)


def group_norm(
    x: Tensor,
    valid: Valid | None,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> Tensor:
    """Group normalisation (Wu & He 2018) whose statistics count valid positions only."""
    if valid is None:
        return F.group_norm(x, groups, weight, bias, eps)
    batch, channels = x.shape[:2]
    grouped = _precise(hide(x, valid)).reshape(batch, groups, channels // groups, *x.shape[2:])
    mask = _spread(valid.mask, x).unsqueeze(1)
    axes = tuple(range(2, grouped.dim()))
    positions = grouped[0, 0, :, ..., 0].numel()
    count = (valid.lengths * positions).view(batch, *[1] * (grouped.dim() - 1))
    centred = grouped - grouped.sum(axes, keepdim=True) / count
    variance = centred.square().mul(mask).sum(axes, keepdim=True) / count
    normalised = (centred * torch.rsqrt(variance + eps)).reshape(x.shape)
    shape = (1, channels, *[1] * (x.dim() - 2))
    return (normalised * weight.view(shape) + bias.view(shape)).to(x.dtype)


def moments(
    x: Tensor, valid: Valid | None, total: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(C,)``, biased variance ``(C,)`` and count of each channel over valid positions.

    ``total`` adds a tensor over all processes, or returns it as it is.
    """
    hidden = _precise(hide(x, valid))
    axes = (0, *range(2, x.dim()))
    if valid is None:
        count = total(hidden.new_full((), x.numel() // x.shape[1]))
    else:
        rows = x.shape[2] if x.dim() == 4 else 1
        count = total((valid.lengths.sum() * rows).to(hidden.dtype))
    mean = total(hidden.sum(axes)) / count
    centred = hide(hidden - mean.view(-1, *[1] * (x.dim() - 2)), valid)
    return mean, total(centred.square().sum(axes)) / count, count


def everything(valid: Valid | None) -> bool:
    """Whether all positions count."""
    return valid is None


def refuse(valid: Valid | None, name: str, instead: str) -> None:
    """Raises TypeError if positions are masked: ``name`` would mix padding into the data."""
    if valid is not None:
        raise TypeError(
            f"{name} reads neighbouring positions and knows nothing of padding, but lengths were "
            f"given; use {instead}, or leave lengths out"
        )


def _precise(x: Tensor) -> Tensor:
    """``x`` in float32 at least: sums over positions lose too much in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _by_rows(x: Tensor) -> bool:
    """Whether ``x`` is a map ``(B, C, 1, L)`` whose padding is best picked out row by row.

    Elsewhere than on the CPU, counting rows would stall the device; compilers want fixed shapes.
    """
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.shape[2] == 1
    )


def _spread(mask: Tensor, x: Tensor) -> Tensor:
    """``(B, L)`` to ``(B, 1, L)`` or ``(B, 1, 1, L)``, to broadcast over ``x``."""
    if mask.shape[1] != x.shape[-1]:
        raise ValueError(
            f"valid: expected a mask over {x.shape[-1]} positions (the last axis of the map), "
            f"got one over {mask.shape[1]}"
        )
    return mask.view(mask.shape[0], *[1] * (x.dim() - 2), mask.shape[1])
