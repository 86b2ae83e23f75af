"""From observations to what a network reads: scaled, normalised, and several parts as one vector."""

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from resdomains.core import Features
from resdomains.core.masks import mean

from .normalization import ObservationNormalization, RunningMoments

Moments = tuple[Tensor, Tensor, Tensor]

_NETWORKS = {
    "vector": "ResidualMLP, such as simba",
    "sequence": "ResNet1d, or ResidualEncoder with stem=VectorStem",
    "picture": "ResNet2d, such as impala",
}
_SIZES = {"vector": "numbers", "sequence": "numbers at each step", "picture": "channels"}


class Inputs(nn.Module):
    """Make of the parts of an observation the one tensor that a backbone reads.

    Pictures are divided by their `scale`, and lie in channels_last. Vectors and sequences are normalised by running
    moments, those of a sequence (d, T) being the d of its newest step; what is normalised never changes between two
    calls of `update`.

    An observation of several parts needs a network of its own for each part that is no vector: the pooled features of
    those, and the vectors, side by side, are then a vector to the backbone.

    Attributes: `layout` and `shape` of what the backbone reads; `in_channels`, what it must take as such.

    Args:
        observations: Each part's `layout`, `shape`, `dtype` and `scale`, by name: a `PolicySpec`'s.
        stems: Networks of parts, by name.
        normalize: Whether vectors and sequences are normalised.

    Raises:
        ValueError: If a part lacks a network that it needs, a network stands for no part, or cannot read its part.
    """

    def __init__(
        self,
        observations: Mapping[str, Mapping[str, Any]],
        stems: Mapping[str, nn.Module] | None = None,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.parts = {name: dict(part) for name, part in observations.items()}
        _check_stems(self.parts, stems or {})
        self.stems = nn.ModuleDict(dict(stems or {}))
        moments = {
            name: ObservationNormalization((part["shape"][0],))
            for name, part in self.parts.items()
            if normalize and part["layout"] != "picture"
        }
        self.normalizations = nn.ModuleDict(moments)
        shapes = {name: tuple(part["shape"]) for name, part in self.parts.items()}
        for name, stem in self.stems.items():
            layout = self.parts[name]["layout"]
            shapes[name] = output_shape(stem, layout, shapes[name], f"stems.{name}")[:1]
        self.alone = next(iter(self.parts)) if len(self.parts) == 1 and not self.stems else None
        if self.alone is not None:
            self.layout: str = self.parts[self.alone]["layout"]
            self.shape = shapes[self.alone]
        else:
            self.layout, self.shape = "vector", (sum(shape[0] for shape in shapes.values()),)

    @property
    def in_channels(self) -> int:
        """What the backbone must take as `in_channels`."""
        return int(self.shape[0])

    def output_shape(self, backbone: nn.Module) -> tuple[int, ...]:
        """Return the shape, without the batch, of the deepest map that a backbone makes of observations.

        Raises:
            ValueError: If the backbone cannot read them.
            TypeError: If it is no network of ours.
        """
        return output_shape(backbone, self.layout, self.shape, "backbone")

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Return (B, *shape) of parts (B, ...) as an encoder gives them."""
        if self.alone is not None:
            return self._read(self.alone, observations[self.alone])
        return torch.cat([self._embedded(name, observations[name]) for name in self.parts], 1)

    @torch.no_grad()
    def update(self, observations: Mapping[str, Tensor], valid: Tensor) -> None:
        """Add observations to the running moments: those of all processes, which call it together.

        Args:
            observations: Parts (N, ...).
            valid: (N,), True where an observation counts.
        """
        for name, normalization in self.normalizations.items():
            x = observations[name][valid]
            kept = cast(ObservationNormalization, normalization)
            count, mean, m2 = (
                part.to(kept.shift.device)
                for part in RunningMoments.moments(x if x.dim() == 2 else x[:, :, -1])
            )
            kept.update(*_of_all_processes((count, mean, m2)))

    def _read(self, name: str, x: Tensor) -> Tensor:
        part = self.parts[name]
        if part["layout"] == "picture":
            x = x.to(torch.float32, memory_format=torch.channels_last)
            return x if part["scale"] == 1 else x / part["scale"]
        if name not in self.normalizations:
            return x
        normalization = self.normalizations[name]
        if part["layout"] == "vector":
            return cast(Tensor, normalization(x))
        return cast(Tensor, normalization(x.transpose(1, 2))).transpose(1, 2)

    def _embedded(self, name: str, x: Tensor) -> Tensor:
        x = self._read(name, x)
        if name not in self.stems:
            return x
        features: Features = self.stems[name](x)
        return mean(features.maps[-1], features.valid[-1])


def output_shape(
    network: nn.Module, layout: str, shape: tuple[int, ...], name: str
) -> tuple[int, ...]:
    """Return the shape, without the batch, of the deepest map that a network makes of (B, *shape).

    Args:
        network: The network.
        layout: What it is to read: `vector`, `sequence` or `picture`.
        shape: The input's shape without the batch.
        name: The network's place, for messages: the key below `--model`.

    Raises:
        ValueError: If the network cannot read it.
        TypeError: If it is no network of ours.
    """
    channels = getattr(network, "in_channels", None)
    if channels is None:
        raise TypeError(
            f"{name} {type(network).__name__} states no in_channels; take a network of resdomains.core"
        )
    training = network.training
    try:
        with torch.no_grad():
            features: Features = network.eval()(torch.zeros(1, channels, *shape[1:]))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{name} {type(network).__name__} cannot read a {layout} {_written(shape)} ({error}); "
            f"take {_NETWORKS[layout]}"
        ) from error
    finally:
        network.train(training)
    if channels != shape[0]:
        raise ValueError(
            f"the observation has {shape[0]} {_SIZES[layout]}, {name} reads {channels}; "
            f"set --model.{name}.in_channels {shape[0]}"
        )
    return tuple(features.maps[-1].shape[1:])


def _check_stems(parts: Mapping[str, Mapping[str, Any]], stems: Mapping[str, nn.Module]) -> None:
    for name in stems:
        if name not in parts:
            raise ValueError(
                f"stems.{name} stands for no part of the observation, which has {', '.join(parts)}"
            )
    if len(parts) == 1 and not stems:
        return
    for name, part in parts.items():
        if part["layout"] != "vector" and name not in stems:
            raise ValueError(
                f"the observation has the parts {', '.join(parts)}; its {part['layout']} {name} "
                f"{_written(tuple(part['shape']))} needs a network of its own: set --model.stems.{name} to "
                f"{_NETWORKS[part['layout']]}"
            )


def _of_all_processes(moments: Moments) -> list[Moments]:
    """Return the moments of every process, in the order of their ranks."""
    if not dist.is_initialized():
        return [moments]
    count, mean_, m2 = moments
    mine = torch.stack((count.expand_as(mean_), mean_, m2))
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(found, mine)
    return [(part[0, 0], part[1], part[2]) for part in found]


def _written(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it."""
    return "of " + " x ".join(map(str, shape))
