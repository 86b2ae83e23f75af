"""Normalisations over channels, counting valid positions only."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.nn.functional import all_reduce

from resdomains.core.masks import (
    Valid,
    as_map,
    as_rows,
    everything,
    group_norm,
    moments,
    valid_rows,
)
from resdomains.core.parts import Part
from resdomains.core.recomputation import recomputing


class Norm(Part):
    """A normalisation of ``channels``; networks take a factory ``Callable[[int], Norm]``.

    Channels are axis 1 of maps ``(B, C, H, W)`` and the last axis of sequences ``(B, T, D)``,
    packed rows ``(N, D)`` and vectors ``(B, D)``.

    ``normalises`` is False for the absent norm: its input comes back as it is, and the convolution
    before it keeps a bias.
    """

    normalises: ClassVar[bool] = True
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def silence(self) -> bool:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        return True

    @torch.no_grad()
    def attenuate(self, gain: float) -> None:
        self.weight.mul_(gain)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}"


class PositionsNorm(Norm):
    """The contract of a norm whose statistics are those of many positions.

    It is written for maps; sequences, rows and vectors pass it as maps of height one.
    """

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        if x.dim() == 4:
            return self.normalise(x, valid)
        maps, positions = as_map(x, valid)
        return as_rows(self.normalise(maps, positions), x, valid)

    def normalise(self, x: Tensor, valid: Valid | None) -> Tensor:
        """The maps ``(B, C, H, W)``, normalised."""
        raise NotImplementedError(f"{type(self).__name__} must define normalise(x, valid)")


class BatchNorm(PositionsNorm):
    """``weight (x - mean) / sqrt(var + eps) + bias`` per channel (Ioffe & Szegedy 2015).

    In training, mean and variance are those of the batch's valid positions; in eval, running ones:
    ``running = (1 - momentum) running + momentum batch``, the variance unbiased.

    Raises:
        ValueError: a training batch holds a single value per channel, so no variance.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    fresh = True

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, eps)
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def normalise(self, x: Tensor, valid: Valid | None) -> Tensor:
        if not self.training:
            return F.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                False,
                0.0,
                self.eps,
            )
        # A recomputed forward pass must not count its batch a second time. Momentum 0 rather than
        # no statistics at all: the saved tensors stay the same ones, also when compiled.
        again = recomputing()
        momentum = 0.0 if again else self.momentum
        if not again:
            self.num_batches_tracked.add_(1)
        if self._alone():
            whole = partial(
                F.batch_norm,
                running_mean=self.running_mean,
                running_var=self.running_var,
                weight=self.weight,
                bias=self.bias,
                training=True,
                momentum=momentum,
                eps=self.eps,
            )
            y = whole(x) if everything(valid) else valid_rows(x, valid, whole)
            if y is not None:
                return y
        mean, variance, count = moments(x, valid, self._total)
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp_min(1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (x * _channelwise(scale) + _channelwise(shift)).to(x.dtype)

    def _alone(self) -> bool:
        """Whether this process's batch is the whole batch."""
        return True

    def _total(self, value: Tensor) -> Tensor:
        """``value`` added over the processes that share the batch."""
        return value


class SynchronisedBatchNorm(BatchNorm):
    """Batch normalisation over the batches of all processes, on CPU (gloo) and GPU (nccl) alike.

    Stands in for ``torch.nn.SyncBatchNorm``, which refuses CPU tensors and knows no masks.
    """

    def _alone(self) -> bool:
        return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)

    def _total(self, value: Tensor) -> Tensor:
        if self._alone():
            return value
        # Of torch's two, this is the all_reduce that gradients pass through.
        total: Tensor = all_reduce(value)  # type: ignore[no-untyped-call]
        return total


class FrozenBatchNorm(BatchNorm):
    """Batch normalisation whose statistics, weight and bias are constants, in training as in eval.

    For networks that begin with the weights of another run and see few pictures at a time, as
    torchvision.ops.FrozenBatchNorm2d; its state is that of ``BatchNorm``.
    """

    weight: Tensor  # type: ignore[assignment]  # a buffer: nothing trains it, whatever is unfrozen
    bias: Tensor  # type: ignore[assignment]

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)
        for name in ("weight", "bias"):
            value = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, value)

    def normalise(self, x: Tensor, valid: Valid | None) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    def silence(self) -> bool:
        # A constant zero would keep the branch silent for ever: the convolution before starts at zero.
        return False


class GroupNorm(PositionsNorm):
    """Normalises each item over groups of channels and its valid positions (Wu & He 2018).

    Raises:
        ValueError: ``channels`` is not a multiple of ``channels_per_group``.
    """

    def __init__(self, channels: int, channels_per_group: int = 16, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)
        if channels_per_group < 1 or channels % channels_per_group:
            raise ValueError(
                f"GroupNorm: channels_per_group={channels_per_group} does not divide {channels} "
                f"channels; pass a divisor such as {_nearest_divisor(channels, channels_per_group)}"
            )
        self.groups = channels // channels_per_group

    def normalise(self, x: Tensor, valid: Valid | None) -> Tensor:
        if everything(valid) and _slow(x):
            y: Tensor = _GroupNorm.apply(x, self.weight, self.bias, self.groups, self.eps)  # type: ignore[no-untyped-call]
            return y
        return group_norm(x, valid, self.groups, self.weight, self.bias, self.eps)


def _slow(x: Tensor) -> bool:
    """Whether torch's gradient of group norm is slow: bfloat16 on the CPU (torch 2.11: 3 x float32)."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and torch.is_grad_enabled()
    )


class _GroupNorm(torch.autograd.Function):
    """``F.group_norm`` of bfloat16 maps, whose gradients are computed in float32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        last = x.is_contiguous(memory_format=torch.channels_last)
        ctx.layout = torch.channels_last if last else torch.contiguous_format
        ctx.sizes = x.shape[0], x.shape[1], x[0, 0].numel(), groups
        x = x.contiguous(memory_format=ctx.layout)
        y, mean, rstd = torch.ops.aten.native_group_norm(
            x, weight.float(), bias.float(), *ctx.sizes, eps
        )
        ctx.save_for_backward(x, weight, mean, rstd)
        return y  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        # The kernel reads both in the same order, whatever their strides say.
        gradient = gradient.float().contiguous(memory_format=ctx.layout)
        of_x, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            gradient, x.float(), mean, rstd, weight.float(), *ctx.sizes, [True] * 3
        )
        return of_x.to(x.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None, None


class LayerNorm(Norm):
    """Normalises the channels of each position by itself (Ba et al. 2016)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        if x.dim() != 4:
            return F.layer_norm(x, (self.channels,), self.weight, self.bias, self.eps)
        y = F.layer_norm(x.movedim(1, -1), (self.channels,), self.weight, self.bias, self.eps)
        return y.movedim(-1, 1)


class RMSNorm(Norm):
    """``weight x / sqrt(mean(x^2) + eps)``, the mean over each position's channels (Zhang & Sennrich 2019).

    It has no bias.
    """

    bias: None  # type: ignore[assignment]  # what every other norm has

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps)
        self.register_parameter("bias", None)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        if x.dim() != 4:
            return F.rms_norm(x, (self.channels,), self.weight, self.eps)
        y = F.rms_norm(x.movedim(1, -1), (self.channels,), self.weight, self.eps)
        return y.movedim(-1, 1)

    def silence(self) -> bool:
        nn.init.zeros_(self.weight)
        return True


class NoNorm(Norm):
    """Returns its input and has no parameters."""

    fresh = None

    normalises: ClassVar[bool] = False

    def __init__(self, channels: int) -> None:
        Part.__init__(self)
        self.channels = channels

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return x

    def silence(self) -> bool:
        return False

    def attenuate(self, gain: float) -> None:
        """Has nothing to multiply."""

    def extra_repr(self) -> str:
        return f"{self.channels}"


def _channelwise(vector: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1)


def _nearest_divisor(number: int, wanted: int) -> int:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: (abs(d - wanted), d))
