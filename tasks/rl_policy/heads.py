"""What stands on a policy's networks: how features become one vector, the policy's head and the value's."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from resdomains.core import Features, TaskHead
from resdomains.core.masks import mean


class Embedding(nn.Module):
    """The contract: makes one vector of an observation's features.

    A task takes a factory `Callable[[Sequence[int]], Embedding]` of the deepest map's shape without the batch: (C,) of
    vectors, (C, T) of sequences, (C, H, W) of pictures. `channels` are those of the vector. With `hidden`, a linear
    layer of so many numbers and a ReLU follow, orthogonal at first with gain sqrt(2).

    Args:
        read: How many numbers are read of an observation's features.
        hidden: The size of the layer that follows; None for none.

    Raises:
        ValueError: If `hidden` is below 1.
    """

    def __init__(self, read: int, hidden: int | None) -> None:
        super().__init__()
        if hidden is not None and hidden < 1:
            raise ValueError(f"hidden must be at least 1, or None for no layer, got {hidden}")
        self.channels = read if hidden is None else hidden
        self.hidden = (
            nn.Identity()
            if hidden is None
            else nn.Sequential(orthogonal(nn.Linear(read, hidden), math.sqrt(2)), nn.ReLU())
        )

    def read(self, features: Features) -> Tensor:
        """Return the features as (B, D)."""
        raise NotImplementedError(f"{type(self).__name__} must define read(features)")

    def forward(self, features: Features) -> Tensor:
        """Return (B, channels)."""
        return cast(Tensor, self.hidden(self.read(features)))


class Pooled(Embedding):
    """Read the mean over all positions of the deepest map; vectors as they are.

    Args:
        shape: The deepest map's shape.
        hidden: The size of the layer that follows; None for none.

    Raises:
        ValueError: If `hidden` is below 1.
    """

    def __init__(self, shape: Sequence[int], hidden: int | None = None) -> None:
        super().__init__(shape[0], hidden)

    def read(self, features: Features) -> Tensor:
        """Return (B, C)."""
        return mean(features.maps[-1], features.valid[-1])


class Flattened(Embedding):
    """Read every number of the deepest map; with `hidden` 256 the end of IMPALA's network (Espeholt et al. 2018).

    Args:
        shape: The deepest map's shape.
        hidden: The size of the layer that follows; None for none.

    Raises:
        ValueError: If `hidden` is below 1.
    """

    def __init__(self, shape: Sequence[int], hidden: int | None = 256) -> None:
        super().__init__(math.prod(shape), hidden)

    def read(self, features: Features) -> Tensor:
        """Return (B, C H W)."""
        return features.maps[-1].flatten(1)


class PolicyHead(TaskHead):
    """Map an embedding to the parameters of a distribution of actions: `[W x + bias, log_std]` side by side.

    `W` is orthogonal at first with gain 0.01, so that a policy begins with nearly equal chances (Andrychowicz et al.
    2021, choice "last policy layer scaling"; Stable-Baselines3 has the same), the bias zero.

    Args:
        features_channels: The size of the embedding.
        outputs: Numbers that depend on the observation: logits, or means.
        deviations: Numbers `log_std` that do not, learned by themselves: one for each mean of continuous actions.
        log_std: Where those begin.

    Raises:
        ValueError: If there are no outputs, or `deviations` is below 0.
    """

    rows = ("linear.weight", "linear.bias")

    log_std: nn.Parameter | None

    def __init__(
        self, features_channels: int, outputs: int, deviations: int = 0, log_std: float = 0.0
    ) -> None:
        super().__init__()
        if outputs < 1 or deviations < 0:
            raise ValueError(
                f"outputs must be at least 1 and deviations at least 0, got {outputs} and {deviations}"
            )
        self.linear = orthogonal(nn.Linear(features_channels, outputs), 0.01)
        self.register_parameter(
            "log_std", nn.Parameter(torch.full((deviations,), log_std)) if deviations else None
        )

    def forward(self, embedded: Tensor) -> Tensor:
        """Return (B, outputs + deviations) of (B, features_channels)."""
        outputs: Tensor = self.linear(embedded)
        if self.log_std is None:
            return outputs
        return torch.cat((outputs, self.log_std.expand(len(outputs), -1)), 1)


class ValueHead(nn.Module):
    """Map an embedding to the return that is expected from there on: `w x + bias`, orthogonal at first with gain 1.

    Args:
        features_channels: The size of the embedding.
    """

    def __init__(self, features_channels: int) -> None:
        super().__init__()
        self.linear = orthogonal(nn.Linear(features_channels, 1), 1.0)

    def forward(self, embedded: Tensor) -> Tensor:
        """Return (B,) of (B, features_channels)."""
        return cast(Tensor, self.linear(embedded)).squeeze(1)


def orthogonal(linear: nn.Linear, gain: float) -> nn.Linear:
    """Return the layer, its weights orthogonal times `gain` (Saxe et al. 2014), its bias zero."""
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear
