"""How a task's weights are changed: optimizer, parameter groups and learning-rate schedule."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
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

    With `frozen` k the parameters with l <= k keep their values: those of the first k of the backbone's blocks and of
    all that stands below and between them. 0 freezes the stem or the embeddings, n the whole backbone; the head always
    learns. No gradient is computed for them, so that a step costs what the rest costs and a forward pass, and their
    modules stay in evaluation mode: no dropout, and batch norms keep the statistics they have.

    Args:
        lr: Peak learning rate for the global batch, whatever the number of processes.
        optimizer: The optimizer's class, given the parameter groups and the rate.
        schedule: The course of the rate over the run.
        layer_decay: Factor in (0, 1] from each block to the one before it.
        frozen: Number of the backbone's first blocks that stay as they are, with what is below them; None: all learn.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        optimizer: OptimizerFactory = AdamW,
        schedule: Schedule | None = None,
        layer_decay: float = 1.0,
        frozen: int | None = None,
    ) -> None:
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        if not 0.0 < layer_decay <= 1.0:
            raise ValueError(
                f"layer_decay must lie in (0, 1], got {layer_decay}; 1 gives every layer the same rate"
            )
        if frozen is not None and frozen < 0:
            raise ValueError(
                f"frozen must be at least 0 (the stem or the embeddings alone), got {frozen}; "
                "leave it out and everything learns"
            )
        self.lr = lr
        self.optimizer = optimizer
        self.schedule = schedule if schedule is not None else WarmupCosine()
        self.layer_decay = layer_decay
        self.frozen = frozen

    def freeze(
        self, module: nn.Module, backbone: str, blocks: Iterator[tuple[str, nn.Module]]
    ) -> None:
        """Let the frozen parameters ask for no gradient; `hold` puts their modules in evaluation mode.

        Args:
            module: What is trained.
            backbone: Name of the backbone within it.
            blocks: The backbone's blocks in order, by their name within it.

        Raises:
            ValueError: If the backbone has fewer blocks than shall be frozen.
        """
        if self.frozen is None:
            return
        names = [f"{backbone}.{name}." for name, _ in blocks]
        if self.frozen > len(names):
            raise ValueError(
                f"frozen must be at most {len(names)}, the number of the backbone's blocks (with which all of it "
                f"stays as it is), got {self.frozen}"
            )
        parameters = dict(module.named_parameters())
        for name, level in _levels(parameters, backbone, names).items():
            if level <= self.frozen:
                parameters[name].requires_grad_(False)

    def hold(
        self, module: nn.Module, backbone: str, blocks: Iterator[tuple[str, nn.Module]]
    ) -> None:
        """Put the modules that are frozen with all they hold in evaluation mode; arguments as of `freeze`."""
        if self.frozen is None:
            return
        modules = dict(module.named_modules())
        names = [f"{backbone}.{name}." for name, _ in blocks]
        levels = _levels(modules, backbone, names)
        # A module stands as high as the highest of those in it, and these follow it.
        for name in reversed(levels):
            parent = name.rpartition(".")[0]
            levels[parent] = max(levels[parent], levels[name])
        for name, level in levels.items():
            if level <= self.frozen:
                modules[name].training = False

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
        parameters = dict(module.named_parameters())
        for name, level in _levels(parameters, backbone, names).items():
            parameter = parameters[name]
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
                    "params": group,
                    "lr": self.lr * self.layer_decay ** (top - level),
                    **({} if decayed else {"weight_decay": 0.0}),
                }
                for (level, decayed), group in sorted(groups.items(), key=lambda item: item[0])
            ],
            self.lr,
        )

    def scheduler(self, optimizer: Optimizer, steps: int) -> LambdaLR:
        """Build the per-step schedule over `steps` optimizer steps."""
        return LambdaLR(
            optimizer, lambda step: self.schedule.factor(min((step + 1) / max(steps, 1), 1.0))
        )


def _levels(entries: Iterable[str], backbone: str, blocks: Sequence[str]) -> dict[str, int]:
    """The number of blocks that lie below each parameter or module, itself included; one more for those of the head.

    Args:
        entries: Their names, in the order of the network's layers, as torch lists them; so those between blocks are
            known by what comes before them.
        backbone: Name of the backbone.
        blocks: Names of its blocks, with a dot at the end.
    """
    levels = {}
    passed = 0
    for name in entries:
        passed = next((i for i, b in enumerate(blocks, 1) if f"{name}.".startswith(b)), passed)
        levels[name] = passed if f"{name}.".startswith(f"{backbone}.") else len(blocks) + 1
    return levels
