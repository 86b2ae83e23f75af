"""Depthwise convolution along the last axis, fast on the CPU in both directions.

``F.conv2d`` over channels_last maps is fast forward and for the gradient of the input. Two cases are
not, in oneDNN as of torch 2.11 (256 channels, 33 taps): the gradient of the weights, which has fast
code for 3 taps and takes some 50 times the forward pass from 15 on; and dilation, which takes some 70
times the plain kernel from 15 taps on. So the gradient is computed three neighbouring taps at a time,
or by matrix products where taps are many, and positions that a dilated kernel sees together are made
neighbours.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_TAPS = 3
_MANY = 31  # taps, from which matrix products are faster
_BLOCK = 32  # positions: larger ones compute more in vain, smaller ones copy more
_PLENTY = 13  # taps that F.conv2d still computes fast at any dilation
_FEW = 1_000_000  # products; below, several small calls cost more than a slow one
# Bytes of a copy. Larger ones come as fresh pages from the system at each step, which takes as long
# as all else (glibc, 7 MB: 15 instead of 8 ms forward and backward).
_COPY = 4 * 2**20


def quick(x: Tensor, kernel: int) -> bool:
    """Whether ``depthwise`` is faster than ``F.conv2d`` for ``x`` and so many taps.

    A compiled or exported graph is left to ``F.conv2d``, which compilers know.
    """
    # Asked first: sizes that a graph has asked for are guarded.
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.numel() * kernel >= _FEW
        and (torch.is_grad_enabled() or kernel > _PLENTY)
    )


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """``F.conv2d`` with a group for each channel, along the last axis, keeping the size.

    ``y[..., t] = bias + sum over k of weight[k] x[..., t + dilation (k - (K - 1) / 2)]``, with zeros
    beyond the ends: ``x`` is ``(B, C, H, W)``, ``weight`` ``(C, 1, 1, K)`` with K odd, ``bias``
    ``(C,)``. Under autocast it casts as ``F.conv2d`` does, and it can be differentiated twice.
    """
    if torch.is_autocast_enabled("cpu"):
        # Outside of the Function, so that gradients are cast back.
        low = torch.get_autocast_dtype("cpu")
        x, weight = x.to(low), weight.to(low)
        bias = bias if bias is None else bias.to(low)
    if dilation == 1:
        return _Depthwise.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
    # K is odd, so a kernel at position t sees positions t + dilation i alone: each of the
    # ``dilation`` phases of an axis is an axis of its own, under a plain kernel.
    batch, channels, height, size = x.shape
    steps = -(-size // dilation)
    lines = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, steps * dilation - size))
    lines = lines.reshape(batch, height, steps, dilation, channels).transpose(2, 3).contiguous()
    phases = lines.view(batch, height * dilation, steps, channels).permute(0, 3, 1, 2)
    y: Tensor = _Depthwise.apply(phases, weight, bias)  # type: ignore[no-untyped-call]
    lines = y.permute(0, 2, 3, 1).reshape(batch, height, dilation, steps, channels)
    lines = lines.transpose(2, 3).reshape(batch, height, steps * dilation, channels)
    return lines[:, :, :size].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


class _Depthwise(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, 1, _padding(weight), 1, x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        channels = x.shape[1]
        data, weights, biases = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        padding = _padding(weight)
        with torch.autocast("cpu", enabled=False):  # a backward pass keeps the forward pass's types
            return (
                F.conv2d(gradient, weight.flip(3), None, 1, padding, 1, channels) if data else None,
                weight_gradient(x, gradient, weight.shape[3]) if weights else None,
                gradient.sum((0, 2, 3)) if biases else None,
            )


def weight_gradient(x: Tensor, gradient: Tensor, kernel: int) -> Tensor:
    """``w[c, k] = sum over b, h, t of gradient[b, c, h, t] x[b, c, h, t + k - (K - 1) / 2]``.

    ``x`` and ``gradient`` are ``(B, C, H, W)``; the result is ``(C, 1, 1, K)`` for an odd ``kernel``
    K of 3 or more.
    """
    if kernel >= _MANY:
        total = _by_products(x, gradient, kernel)
    else:
        sections = min(x.shape[0], -(-x.numel() * x.element_size() // _COPY))
        pairs = zip(x.tensor_split(sections), gradient.tensor_split(sections), strict=True)
        total = torch.stack([_by_threes(*pair, kernel) for pair in pairs]).sum(0)
    # In the strides of channels_last, as Conv keeps its weights.
    return total.view(-1, 1, kernel, 1).permute(0, 3, 1, 2)


def _by_products(x: Tensor, gradient: Tensor, kernel: int) -> Tensor:
    """The weight gradient ``(C, K)`` by matrix products.

    Lines of W are cut into blocks of S positions. For a channel, the product of all blocks of the
    gradient ``(S, N)`` and their windows of x ``(N, S + K - 1)`` holds the products of tap k along its
    k-th diagonal: ``(S + K - 1) / K`` times as many as are needed, but in fast code.
    """
    channels, width = x.shape[1], x.shape[3]
    blocks = max(1, round(width / _BLOCK))
    size = -(-width // blocks)
    rest = blocks * size - width
    reach = size + kernel - 1
    lines = F.pad(_by_channel(gradient), (0, rest)).view(channels, -1, size)
    windows = F.pad(_by_channel(x), (kernel // 2, kernel // 2 + rest)).unfold(2, reach, size)
    at_once = max(1, _COPY // (lines.shape[1] * reach * x.element_size()))
    taps = []
    for first in range(0, channels, at_once):
        some = slice(first, first + at_once)
        products = lines[some].transpose(1, 2) @ windows[some].flatten(1, 2)
        strides = (size * reach, reach + 1, 1)
        taps.append(products.as_strided((len(products), size, kernel), strides).sum(1))
    return torch.cat(taps)


def _by_channel(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` to ``(C, B H, W)``."""
    batch, channels, height, width = x.shape
    # Turned as a matrix, for which torch has a fast copy.
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    return rows.t().contiguous().view(channels, batch * height, width)


def _by_threes(x: Tensor, gradient: Tensor, kernel: int) -> Tensor:
    """The weight gradient of a few items, ``(C, K)``, three neighbouring taps at a time."""
    channels = x.shape[1]
    # One row of positions, line after line, with room for a kernel's reach between them: then a tap
    # is a shift of the whole row, and no shift needs a copy.
    data = _row(x, kernel // 2, kernel // 2)
    other = _row(gradient, 0, kernel - 1)
    size = data.shape[0] - (kernel - 1)
    weight = x.new_empty(channels, 1, 1, _TAPS)
    options = ([1, 1], [0, 0], [1, 1], False, [0, 0], channels, [False, True, False])
    columns = []
    for first in [*range(0, kernel - _TAPS, _TAPS), kernel - _TAPS]:
        window = _map(data, first, size + _TAPS - 1)
        backward = torch.ops.aten.convolution_backward
        three = backward(_map(other, 0, size), window, weight, None, *options)[1]
        columns.append(three.view(channels, _TAPS))
    # The last three may overlap those before them.
    columns[-1] = columns[-1][:, -((kernel - 1) % _TAPS + 1) :]
    return torch.cat(columns, 1)


def _row(x: Tensor, before: int, behind: int) -> Tensor:
    """``(B, C, H, W)`` to ``(positions, C)``, zeros before and behind each line of W."""
    batch, channels, height, width = x.shape
    row = x.new_zeros(batch * height, before + width + behind, channels)
    row[:, before : before + width] = x.permute(0, 2, 3, 1).reshape(-1, width, channels)
    return row.view(-1, channels)


def _map(row: Tensor, start: int, size: int) -> Tensor:
    """``size`` positions of a row as a map ``(1, C, 1, size)`` in channels_last, without a copy."""
    channels = row.shape[1]
    strides = (size * channels, 1, size * channels, channels)
    return row.as_strided((1, channels, 1, size), strides, start * channels)


def _padding(weight: Tensor) -> list[int]:
    return [0, weight.shape[3] // 2]
