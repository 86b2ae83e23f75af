"""An update of small networks, in which the work beside the arithmetic is what takes time: Adam."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast, overload

import torch
from torch import Tensor


class _Held(NamedTuple):
    """What a parameter group's step changes."""

    parameters: list[Tensor]
    averages: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]


class FusedAdam(torch.optim.Adam):
    """torch's fused Adam (Kingma & Ba 2015), which looks its state up once and not at every step.

    A third of the time for a few dozen small tensors. Its state is that of `torch.optim.Adam`.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: Decay of the running means of gradients and of their squares.
        eps: Added to the square root of the latter. PPO's papers take 1e-5.
        weight_decay: Factor of the weights that is added to their gradients.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self._held: list[_Held] | None = None
        super().__init__(params, lr, betas, eps, weight_decay, fused=True)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Any]) -> Any: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters that have a gradient; returns what `closure` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._held is None or not self._fits(self._held):
            super().step()
            self._held = self._look_up()
            return loss
        for group, held in zip(self.param_groups, self._held, strict=True):
            torch._foreach_add_(held.steps, 1)
            torch._fused_adam_(
                held.parameters,
                # `_fits` has seen that each has one.
                cast(list[Tensor], [parameter.grad for parameter in held.parameters]),
                held.averages,
                held.squares,
                [],
                held.steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        return loss

    def _fits(self, held: list[_Held]) -> bool:
        """Whether every parameter has a gradient, its state is still the one held, and no gradient is scaled."""
        if getattr(self, "grad_scale", None) is not None:
            return False
        return len(held) == len(self.param_groups) and all(
            self.state[part.parameters[0]]["exp_avg"] is part.averages[0]
            and all(parameter.grad is not None for parameter in part.parameters)
            for part in held
        )

    def _look_up(self) -> list[_Held] | None:
        """Return what each group's steps change; None where torch must sort it by device or skips some of it."""
        found = []
        for group in self.param_groups:
            parameters = group["params"]
            kinds = {(parameter.device, parameter.dtype) for parameter in parameters}
            if len(kinds) != 1 or any(parameter not in self.state for parameter in parameters):
                return None
            states = [self.state[parameter] for parameter in parameters]
            names = ("exp_avg", "exp_avg_sq", "step")
            found.append(_Held(parameters, *([state[name] for state in states] for name in names)))
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state of `torch.optim.Adam`."""
        super().load_state_dict(state_dict)
        self._held = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._held = None
