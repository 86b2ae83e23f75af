"""Hyper-connections: several streams of the signal, and learned weights between them and a branch.

Each block has a table ``(n, n + 2)`` of weights for the ``n`` streams that it gets. Row ``i`` says
what becomes of stream ``i``: column 0 its part in the branch's input, columns 1 to n its part in
each stream that leaves the mixing; the last column is what stream ``i`` gets of the branch's output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from resdomains.core.masks import Valid
from resdomains.core.merges import Merge, normalises
from resdomains.core.parts import Part
from resdomains.core.place import Site


class Mixing(ABC):
    """The contract: where the table starts, and which tables there are."""

    @abstractmethod
    def start(self, index: int, streams: int) -> Tensor:
        """The raw table ``(n, n + 2)`` of block ``index`` before training."""

    @abstractmethod
    def table(self, raw: Tensor) -> Tensor:
        """Raw tables ``(n, ..., n + 2)`` to those that are applied, of the same shape."""


class Free(Mixing):
    """Any numbers (Zhu et al. 2024).

    At first the branch reads stream ``index mod n``, streams stay as they are, and each gets the
    whole of the branch's output: with one stream, ``Add``. Trained tables may make the signal grow
    or vanish exponentially with depth.
    """

    def start(self, index: int, streams: int) -> Tensor:
        read = F.one_hot(torch.tensor(index % streams), streams).unsqueeze(1)
        return torch.cat([read, torch.eye(streams), torch.ones(streams, 1)], 1)

    def table(self, raw: Tensor) -> Tensor:
        return raw


class DoublyStochastic(Mixing):
    """Streams exchange shares: every row and column of the mixing sums to 1 (Xie et al. 2025, mHC).

    ``mix`` is ``softmax(raw)`` over each row, then ``iterations`` times columns and rows scaled in
    turn to sum to 1 (Sinkhorn & Knopp 1967); ``read = sigmoid(raw)``; ``write = 2 sigmoid(raw)``.
    Rows come last, so that the mean over streams passes any number of mixings unchanged, to
    rounding. At first as ``Free``, but for a share of ``exp(-8)`` between streams, 0.98 for 1 and
    0.02 for 0 of what the branch reads.

    Raises:
        ValueError: ``iterations`` is below 1.
    """

    _LOGIT = 4.0

    def __init__(self, iterations: int = 20) -> None:
        if iterations < 1:
            raise ValueError(f"iterations: expected at least 1, got {iterations}")
        self.iterations = iterations

    def start(self, index: int, streams: int) -> Tensor:
        raw = self._LOGIT * (2 * Free().start(index, streams) - 1)
        raw[:, -1] = 0.0
        return raw

    def table(self, raw: Tensor) -> Tensor:
        read, mix, write = raw[..., :1], raw[..., 1:-1], raw[..., -1:]
        # Sums over leading axes run along positions, the fast way. Only the factors of rows and
        # columns change from one iteration to the next.
        shares = mix.movedim(-1, 1).softmax(1)
        rows = torch.ones_like(shares[:, :1])
        for _ in range(self.iterations):
            columns = _inverse((shares * rows).sum(0, keepdim=True))
            rows = _inverse((shares * columns).sum(1, keepdim=True))
        mix = (shares * rows * columns).movedim(1, -1)
        return torch.cat([read.sigmoid(), mix, 2 * write.sigmoid()], -1)


class Weights(nn.Module):
    """The contract: raw tables for streams ``h`` ``(n, ..., C)``, and how tables are applied.

    A factory is called with the site and the table before training.
    """

    start: nn.Parameter

    @property
    def dtype(self) -> torch.dtype:
        """What tables are computed in."""
        return self.start.dtype

    def raw(self, h: Tensor) -> Tensor:
        """``(n, ..., n + 2)``, one table for each position, or with axes of size 1 one for all."""
        raise NotImplementedError(f"{type(self).__name__} must define raw(h)")

    def apply_to(self, h: Tensor, table: Tensor) -> Tensor:
        """``(n, ..., C)`` to ``(n + 1, ..., C)``: the branch's input, then the mixed streams.

        ``out[j] = sum_i table[i, ..., j] h[i]``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply_to(h, table)")


class Static(Weights):
    """One learned table for all inputs."""

    def __init__(self, site: Site, start: Tensor) -> None:
        super().__init__()
        self.start = nn.Parameter(start)

    def raw(self, h: Tensor) -> Tensor:
        n = self.start.shape[0]
        return self.start.view(n, *[1] * (h.dim() - 2), n + 2)

    def apply_to(self, h: Tensor, table: Tensor) -> Tensor:
        matrix = table[..., :-1].flatten(0, -2)
        return (matrix.t() @ h.flatten(1)).view(-1, *h.shape[1:])


class Dynamic(Weights):
    """``raw = start + scale tanh(W norm(h))``: a table for each position (Zhu et al. 2024).

    ``norm`` takes mean and variance out of each position's channels; row ``i`` of the table depends
    on stream ``i``. ``W`` starts at zero; reading, mixing and writing have a ``scale`` each.
    """

    def __init__(self, site: Site, start: Tensor, scale: float = 0.01) -> None:
        super().__init__()
        self.start = nn.Parameter(start)
        self.weight = nn.Parameter(torch.zeros(start.shape[1], site.width))
        self.scale = nn.Parameter(torch.full((3,), scale))

    def raw(self, h: Tensor) -> Tensor:
        n = self.start.shape[0]
        known = F.linear(F.layer_norm(h, h.shape[-1:]), self.weight).tanh()
        read, mix, write = self.scale
        scale = torch.stack([read, *[mix] * n, write])
        return self.start.view(n, *[1] * (h.dim() - 2), n + 2) + scale * known

    def apply_to(self, h: Tensor, table: Tensor) -> Tensor:
        return torch.einsum("i...j,i...c->j...c", table[..., :-1], h)


class HyperConnection(Merge):
    """``streams`` copies of the signal that blocks mix, read and write by learned weights.

    ``v = sum_i read_i x_i``, ``y_j = sum_i mix_ij x_i + write_j branch(v)`` (Zhu et al. 2024). A
    stack starts with copies of its input and returns the mean of the streams. ``weights`` says what
    the weights depend on (``Static`` or ``Dynamic``), ``mixing`` which there are (``Free`` or
    ``DoublyStochastic``). Streams are ``(n, ...)`` in the precision of the weights, also under
    autocast: a thousand mixings in bfloat16 would not keep their sum.

    ``zero_init`` is that of ``Add``, and with one stream, ``Static`` and ``Free`` the merge starts as
    ``Add`` does, to the bit. Blocks that change the shape have none: they use ``Add``.

    Raises:
        ValueError: ``streams`` is below 1.
    """

    stack_only = True

    def __init__(
        self,
        site: Site,
        streams: int = 4,
        weights: Callable[[Site, Tensor], Weights] = Static,
        mixing: Mixing | None = None,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        if streams < 1:
            raise ValueError(f"streams: expected at least 1, got {streams}")
        self.streams = streams
        self.zero_init = zero_init
        self.mixing = mixing or Free()
        self.weights = weights(site, self.mixing.start(site.index, streams))
        self._from_front = site.channel_dim + 1 if site.channel_dim > 0 else -1
        self._channels = site.channel_dim

    def read(self, x: Tensor, valid: Valid | None = None) -> tuple[Tensor, Tensor, Any]:
        if self.streams == 1:
            x = x.unsqueeze(0)
        with torch.autocast(x.device.type, enabled=False):
            h = x.to(torch.promote_types(x.dtype, self.weights.dtype)).movedim(self._from_front, -1)
            table = self.mixing.table(self.weights.raw(h))
            out = self.weights.apply_to(h, table)
        v = out[0].movedim(-1, self._channels)
        write = table[..., -1:].movedim(-1, self._from_front)
        return out[1:].movedim(-1, self._from_front), v, write

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        y: Tensor = torch.addcmul(s, state, b)
        return y.squeeze(0) if self.streams == 1 else y

    def without_branch(self) -> Merge:
        return _Mixed(self)

    def check(self, block: nn.Module) -> None:
        after = block.get_submodule("after")
        mixing = next((type(m).__name__ for m in after.modules() if _couples(m)), None)
        if mixing is not None:
            raise ValueError(
                f"merge=HyperConnection carries streams (n, ...) past the sum, where {mixing} would "
                f"take them for a batch or mix them; use parts that normalise inside the branch: "
                f"block=PreActivationBasic or after=Activated (in an encoder, pre-norm)"
            )

    def initialise(self, branch: Part) -> None:
        if self.zero_init:
            branch.silence()

    def extra_repr(self) -> str:
        return f"streams={self.streams}, mixing={type(self.mixing).__name__}"


class _Mixed(Merge):
    """Streams mixed as by ``merge``, to which nothing is added."""

    reads_branch = False
    stack_only = True

    def __init__(self, merge: HyperConnection) -> None:
        super().__init__()
        self.merge = merge
        self.streams = merge.streams

    def read(self, x: Tensor, valid: Valid | None = None) -> tuple[Tensor, Tensor, Any]:
        return self.merge.read(x, valid)

    def forward(self, s: Tensor, b: Tensor, state: Any = None) -> Tensor:
        return s.squeeze(0) if self.streams == 1 else s

    def without_branch(self) -> Merge:
        return self


def _inverse(x: Tensor) -> Tensor:
    """``1 / x``, bounded so that its gradient stays finite where a column holds next to nothing."""
    return x.clamp_min(1e-12).reciprocal()


def _couples(module: nn.Module) -> bool:
    return normalises(module) or isinstance(module, _ConvNd)
