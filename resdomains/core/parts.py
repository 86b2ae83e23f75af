"""What stands inside a block: modules called ``(x, valid)``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd, _MaxPoolNd

from resdomains.core.masks import Valid, refuse


class Part(nn.Module):
    """A module called ``(x, valid)`` that knows what it does to the valid positions.

    ``fresh`` says whether its output is a tensor of its own that no backward pass reads, so that
    what follows may overwrite it; None says that it passes its input on.
    """

    fresh: bool | None = False

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        """Maps ``x`` to an output whose valid positions are ``advance(valid)``."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, valid)")

    def advance(self, valid: Valid | None) -> Valid | None:
        """The valid positions of the output; the same ones unless the part strides or pools."""
        return valid

    def silence(self) -> bool:
        """Zeroes the weights so that the output starts at zero; False if there are none to zero."""
        return False

    def attenuate(self, gain: float) -> None:
        """Multiplies the weights that set the size of the output by ``gain``.

        Those are the weights of convolutions, linear maps and norms, unless a part knows better.
        """
        _attenuate(self, gain)


class Chain(Part):
    """Named parts one after another, ``Chain(conv1=..., norm1=...)``; plain modules are adapted.

    Absent ones (``Bare``) are left out: in a small network a call costs as much as a computation.
    """

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            if not isinstance(part, Bare):
                self.add_module(name, adapt(part))

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        for part in self._modules.values():
            x = part(x, valid)  # type: ignore[misc]  # adapt() let in nothing but parts
            valid = part.advance(valid)  # type: ignore[union-attr, operator]
        return x

    def advance(self, valid: Valid | None) -> Valid | None:
        for part in self.parts():
            valid = part.advance(valid)
        return valid

    def silence(self) -> bool:
        return any(part.silence() for part in reversed(self.parts()))

    @property
    def fresh(self) -> bool | None:  # type: ignore[override]  # a chain's follows from its parts
        """That of the last part which does not pass its input on."""
        known = (part.fresh for part in reversed(self.parts()) if part.fresh is not None)
        return next(known, None)

    def parts(self) -> list[Part]:
        """The parts in order."""
        return [part for part in self._modules.values() if isinstance(part, Part)]


class Positionwise(Part):
    """A plain ``nn.Module`` called with ``x`` alone.

    Right for modules that treat every position by itself. Those known to mix positions are refused
    as soon as lengths are given.

    Raises:
        TypeError: lengths are given and the module holds a convolution, a pool or a normalisation
            over positions.
    """

    _MIXING = (
        _ConvNd,
        _AvgPoolNd,
        _MaxPoolNd,
        _AdaptiveAvgPoolNd,
        _NormBase,
        nn.GroupNorm,
    )

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        mixing = (type(m).__name__ for m in module.modules() if isinstance(m, self._MIXING))
        self._mixes = next(mixing, "")

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        if self._mixes:
            refuse(valid, self._mixes, "its counterpart in resdomains.core")
        y: Tensor = self.module(x)
        return y


class Bare(Part):
    """Returns its input; stands where a part is absent."""

    fresh = None

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return x


def adapt(module: nn.Module) -> Part:
    """``module`` itself if it is called ``(x, valid)``, else wrapped once."""
    return module if isinstance(module, Part) else Positionwise(module)


_WEIGHTED = (_ConvNd, nn.Linear, _NormBase, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


@torch.no_grad()
def _attenuate(module: nn.Module, gain: float) -> None:
    if isinstance(module, _WEIGHTED) and module.weight is not None:
        module.weight.mul_(gain)
    for child in module.children():
        if isinstance(child, Part):
            child.attenuate(gain)
        else:
            _attenuate(child, gain)
