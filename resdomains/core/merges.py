"""How a block's branch ``b`` joins its shortcut ``s``.

A network takes a factory ``Callable[[Site], Merge]``; every class here is one. Shapes: ``s``, ``b``
and the result agree, with ``site.width`` entries along ``site.channel_dim``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resdomains.core.masks import Valid, items, per_item
from resdomains.core.norms import Norm
from resdomains.core.parts import Part
from resdomains.core.place import Site


class Merge(nn.Module):
    """The contract: ``forward(s, b, state)`` returns the sum.

    ``streams`` counts the copies of the signal that a stack carries for this merge; of more than
    one, ``x``, ``s`` and the result have a leading axis.
    ``reads_shortcut`` and ``reads_branch`` say which inputs the result depends on; a network leaves
    out the parameters of a shortcut that nobody reads. ``invertible`` says that ``invert`` works,
    ``stack_only`` that the merge cannot stand in a block that changes the shape: networks take
    ``Add`` there.

    Results are new tensors or the branch's own, never the shortcut's: an activation after the sum
    may overwrite them.
    """

    streams: int = 1
    reads_shortcut: bool = True
    reads_branch: bool = True
    invertible: bool = False
    stack_only: bool = False

    def read(self, x: Tensor, valid: Valid | None = None) -> tuple[Tensor, Tensor, Any]:
        """What the shortcut gets, what the branch gets, and a state for ``forward``.

        The state holds all that a forward draws at random or derives from ``x``.
        """
        return x, x, None

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        """The shortcut ``s`` and the branch ``b`` as one."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(s, b, state)")

    def invert(self, y: Tensor, b: Tensor, state: Any = None) -> Tensor:
        """The shortcut ``s`` for which ``forward(s, b, state)`` is ``y``.

        Raises:
            TypeError: the merge loses what it would need to know.
        """
        raise TypeError(
            f"merge={type(self).__name__} cannot be inverted: the shortcut does not follow from "
            f"the sum and the branch; use Add, ReZero or LayerScale"
        )

    def without_branch(self) -> Merge:
        """The merge of the same block with its branch cut off, for lesion studies."""
        return ShortcutOnly()

    def check(self, block: nn.Module) -> None:
        """Raises ValueError, with the reason, if the merge cannot work in ``block``."""

    def initialise(self, branch: Part) -> None:
        """Sets the branch's weights at the start, where the merge's recipe asks for it."""


class Add(Merge):
    """``y = s + b`` (He et al. 2015).

    With ``zero_init`` the last norm of the branch (the last convolution, if no norm follows it)
    starts at zero, so that every block starts as its shortcut (Goyal et al. 2017).
    """

    invertible = True

    def __init__(self, site: Site, zero_init: bool = True) -> None:
        super().__init__()
        self.zero_init = zero_init
        self.overwrites = False

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        # The branch's memory is warm, a new tensor's is not: the largest cost beside convolutions.
        if self.overwrites and b.dtype == s.dtype:
            return b.add_(s)
        return s + b

    def invert(self, y: Tensor, b: Tensor, state: Any = None) -> Tensor:
        return y - b

    def initialise(self, branch: Part) -> None:
        self.overwrites = branch.fresh is True
        if self.zero_init:
            branch.silence()


class BranchOnly(Merge):
    """``y = b``: the plain network that residual ones are measured against (He et al. 2015)."""

    reads_shortcut = False

    def __init__(self, site: Site) -> None:
        super().__init__()

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        return b


class ShortcutOnly(Merge):
    """``y = s``: a block with its branch cut off, for lesion studies (Veit et al. 2016)."""

    reads_branch = False
    invertible = True

    def __init__(self, site: Site | None = None) -> None:
        super().__init__()

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        # A copy, since s may be the block's own input and what follows may overwrite the result.
        return s.clone()

    def invert(self, y: Tensor, b: Tensor, state: Any = None) -> Tensor:
        return y.clone()


class Highway(Merge):
    """``y = (1 - t) s + t b`` with ``t = sigmoid(W s + bias)`` (Srivastava et al. 2015).

    ``W`` maps the channels of each position; ``bias`` starts negative, so that blocks start close
    to their shortcut. Where the shortcut is the identity, ``s`` is the block's input, as in the
    paper.
    """

    def __init__(self, site: Site, bias: float = -2.0) -> None:
        super().__init__()
        self.gate: nn.Module = (
            nn.Conv2d(site.width, site.width, 1)
            if site.channel_dim == 1
            else nn.Linear(site.width, site.width)
        )
        nn.init.constant_(self.gate.bias, bias)  # type: ignore[arg-type]

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        # Not torch.lerp, which refuses the mixed precisions that autocast hands over.
        return s + torch.sigmoid(self.gate(s)) * (b - s)


class ReZero(Merge):
    """``y = s + a b`` with one learned number ``a``, at first zero (Bachlechner et al. 2021)."""

    invertible = True

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        return s + self.scale * b

    def invert(self, y: Tensor, b: Tensor, state: Any = None) -> Tensor:
        return y - self.scale * b


class LayerScale(Merge):
    """``y = s + g b`` with one learned number per channel, ``init`` at first (Touvron et al. 2021).

    Raises:
        ValueError: ``init`` is zero: then nothing but ``g`` would get a gradient; use ReZero.
    """

    invertible = True

    def __init__(self, site: Site, init: float = 1e-5) -> None:
        super().__init__()
        if init == 0:
            raise ValueError("init: expected a number other than 0, got 0; ReZero starts at zero")
        shape = (site.width, 1, 1) if site.channel_dim == 1 else (site.width,)
        self.scale = nn.Parameter(torch.full(shape, init))

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        return s + self.scale * b

    def invert(self, y: Tensor, b: Tensor, state: Any = None) -> Tensor:
        return y - self.scale * b


class DropPath(Merge):
    """Stochastic depth: ``y = merge(s, k b / (1 - p))``, ``k`` being 0 with chance ``p``.

    ``k`` is drawn per item and in training only; the expected result is ``merge(s, b)`` for merges
    linear in ``b``. With ``linear`` the chance grows with depth, ``p (index + 1) / depth``
    (Huang et al. 2016), else every block has ``p``.

    Raises:
        ValueError: ``p`` is not in [0, 1), or the merge does not read the shortcut, so that a
            dropped branch would leave nothing.
    """

    def __init__(
        self,
        site: Site,
        p: float = 0.1,
        merge: Callable[[Site], Merge] = Add,
        linear: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p: expected a chance in [0, 1), got {p}")
        self.p = p * (site.index + 1) / site.depth if linear else p
        self.merge = merge(site)
        self.streams = self.merge.streams
        self.reads_shortcut = self.merge.reads_shortcut
        self.reads_branch = self.merge.reads_branch
        self.invertible = self.merge.invertible
        self.stack_only = self.merge.stack_only
        if not self.reads_shortcut:
            raise ValueError(
                f"merge: DropPath({type(self.merge).__name__}) would leave nothing of a dropped "
                f"block, since {type(self.merge).__name__} ignores the shortcut; use Add, Highway, "
                f"ReZero, LayerScale or DeepNorm inside"
            )

    def read(self, x: Tensor, valid: Valid | None = None) -> tuple[Tensor, Tensor, Any]:
        u, v, inner = self.merge.read(x, valid)
        if not self.training or self.p == 0:
            return u, v, (None, inner)
        keep = v.new_empty(items(v, valid)).bernoulli_(1 - self.p) / (1 - self.p)
        return u, v, (per_item(keep, v, valid), inner)

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        keep, inner = state
        y: Tensor = self.merge(s, _kept(b, keep), inner)
        return y

    def invert(self, y: Tensor, b: Tensor, state: Any = None) -> Tensor:
        keep, inner = state
        return self.merge.invert(y, _kept(b, keep), inner)

    def without_branch(self) -> Merge:
        return self.merge.without_branch()

    def check(self, block: nn.Module) -> None:
        self.merge.check(block)

    def initialise(self, branch: Part) -> None:
        self.merge.initialise(branch)

    def extra_repr(self) -> str:
        return f"p={self.p:.3g}"


class DeepNorm(Merge):
    """``y = norm(a s + b)``, the norm being what follows the sum (Wang et al. 2022).

    For ``M`` sums in a network ``a = M^(1/4)``, and the branch's weights start times
    ``(4 M)^(-1/4)``: the paper's encoder, ``a = (2N)^(1/4)`` and ``(8N)^(-1/4)``, whose ``N``
    layers hold two sums each. Scaled are the weights of convolutions, linear maps and norms.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.scale = site.depth**0.25
        self.gain = (4 * site.depth) ** -0.25

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        return torch.add(b, s, alpha=self.scale)

    def check(self, block: nn.Module) -> None:
        after = block.after
        if isinstance(after, nn.Module) and any(normalises(m) for m in after.modules()):
            return
        raise ValueError(
            f"merge=DeepNorm needs a norm after the sum: it multiplies the shortcut by "
            f"{self.scale:.3g} in every block, so without one the signal grows without bound. "
            f"Got after={type(after).__name__}; pass after=NormActivated (in encoders and MLPs "
            f"norm_position=PostNorm), or use Add, ReZero or LayerScale"
        )

    def initialise(self, branch: Part) -> None:
        branch.attenuate(self.gain)


def _kept(b: Tensor, keep: Tensor | None) -> Tensor:
    return b if keep is None else b * keep.to(b.dtype)


def normalises(module: nn.Module) -> bool:
    """Whether ``module`` itself is a normalisation, of this package or of torch."""
    if isinstance(module, Norm):
        return module.normalises
    return isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | _BatchNorm)
