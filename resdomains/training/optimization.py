"""How a task's weights are changed: optimizer, parameter groups and learning-rate schedule."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

OptimizerFactory = Callable[[Iterable[Any], float], Optimizer]


class Schedule(ABC):
    """The learning rate's course: a factor in [0, 1] for each fraction of training done."""

    def __init__(self, warmup: float) -> None:
        if not 0.0 <= warmup < 1.0:
            raise ValueError(
                f"warmup is a fraction of training and must lie in [0, 1), got {warmup}; "
                "for n steps of warm-up give n / total steps"
            )
        self.warmup = warmup

    @abstractmethod
    def after_warmup(self, progress: float) -> float:
        """Return the factor at a fraction of the training that follows the warm-up."""

    def factor(self, progress: float) -> float:
        """Return the learning rate's factor after a fraction `progress` in [0, 1] of all optimizer steps."""
        if progress < self.warmup:
            return progress / self.warmup
        return self.after_warmup((progress - self.warmup) / (1.0 - self.warmup))


class Constant(Schedule):
    """Linear warm-up, then the full learning rate."""

    def __init__(self, warmup: float = 0.0) -> None:
        super().__init__(warmup)

    def after_warmup(self, progress: float) -> float:
        """Return 1."""
        return 1.0


class WarmupCosine(Schedule):
    """Linear warm-up, then half a cosine from 1 to `final` (Loshchilov and Hutter 2017, one cycle).

    Args:
        warmup: Fraction of training in which the rate rises linearly from 0.
        final: Factor at the end.
    """

    def __init__(self, warmup: float = 0.05, final: float = 0.0) -> None:
        super().__init__(warmup)
        self.final = final

    def after_warmup(self, progress: float) -> float:
        """Return final + (1 - final) (1 + cos(pi progress)) / 2."""
        return self.final + (1.0 - self.final) * 0.5 * (
            1.0 + math.cos(math.pi * min(progress, 1.0))
        )


class WarmupLinear(Schedule):
    """Linear warm-up, then a straight line from 1 to `final`."""

    def __init__(self, warmup: float = 0.1, final: float = 0.0) -> None:
        super().__init__(warmup)
        self.final = final

    def after_warmup(self, progress: float) -> float:
        """Return 1 + (final - 1) progress."""
        return 1.0 + (self.final - 1.0) * min(progress, 1.0)


class Steps(Schedule):
    """Multiply the rate by `gamma` at each milestone (He et al. 2015: 0.1 at 1/2 and 3/4 of training).

    Args:
        milestones: Fractions of the training after warm-up, rising.
        gamma: Factor at each milestone.
        warmup: Fraction of training in which the rate rises linearly from 0.
    """

    def __init__(
        self, milestones: tuple[float, ...] = (0.5, 0.75), gamma: float = 0.1, warmup: float = 0.0
    ) -> None:
        super().__init__(warmup)
        if list(milestones) != sorted(milestones) or not all(0 < m < 1 for m in milestones):
            raise ValueError(
                f"milestones are rising fractions of training in (0, 1), got {tuple(milestones)}; "
                "for epochs e of n give e / n"
            )
        self.milestones = tuple(milestones)
        self.gamma = gamma

    def after_warmup(self, progress: float) -> float:
        """Return gamma to the power of the number of milestones passed."""
        return float(self.gamma ** sum(progress >= m for m in self.milestones))


class Optimization:
    """Optimizer, learning rate and schedule of a run.

    Parameters of one dimension or none (norms, biases, gates) get no weight decay (as in He et al. 2019, "Bag of
    tricks"). With `layer_decay` d < 1 a parameter's rate is lr * d^(n - l), where l is the number of blocks below it
    and n that of all (Clark et al. 2020), so that a fine-tuned network's first layers move least.

    Args:
        lr: Peak learning rate for the global batch, whatever the number of processes.
        optimizer: The optimizer's class, given the parameter groups and the rate.
        schedule: The course of the rate over the run.
        layer_decay: Factor in (0, 1] from each block to the one before it.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        optimizer: OptimizerFactory = AdamW,
        schedule: Schedule | None = None,
        layer_decay: float = 1.0,
    ) -> None:
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        if not 0.0 < layer_decay <= 1.0:
            raise ValueError(
                f"layer_decay must lie in (0, 1], got {layer_decay}; 1 gives every layer the same rate"
            )
        self.lr = lr
        self.optimizer = optimizer
        self.schedule = schedule if schedule is not None else WarmupCosine()
        self.layer_decay = layer_decay

    def build(
        self, module: nn.Module, backbone: str, blocks: Iterator[tuple[str, nn.Module]]
    ) -> Optimizer:
        """Build the optimizer for a module's trainable parameters.

        Args:
            module: What is trained.
            backbone: Name of the backbone within it.
            blocks: The backbone's blocks in order, by their name within it.
        """
        names = [f"{backbone}.{name}." for name, _ in blocks]
        top = len(names) + 1
        groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
        passed = 0
        for name, parameter in module.named_parameters():
            # A network's parameters come in the order of its layers, also those between blocks.
            passed = next((i for i, b in enumerate(names, 1) if name.startswith(b)), passed)
            level = passed if name.startswith(f"{backbone}.") else top
            if parameter.requires_grad:
                key = (level if self.layer_decay < 1.0 else top, parameter.ndim > 1)
                groups.setdefault(key, []).append(parameter)
        if not groups:
            raise ValueError(
                "no parameter is trainable: every weight is frozen; leave at least the head unfrozen"
            )
        return self.optimizer(
            [
                {
                    "params": parameters,
                    "lr": self.lr * self.layer_decay ** (top - level),
                    **({} if decayed else {"weight_decay": 0.0}),
                }
                for (level, decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
            ],
            self.lr,
        )

    def scheduler(self, optimizer: Optimizer, steps: int) -> LambdaLR:
        """Build the per-step schedule over `steps` optimizer steps."""
        return LambdaLR(
            optimizer, lambda step: self.schedule.factor(min((step + 1) / max(steps, 1), 1.0))
        )
