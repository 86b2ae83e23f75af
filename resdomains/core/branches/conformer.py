"""The convolution module of Conformer."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from resdomains.core.branches.sequence import SequenceBranch
from resdomains.core.convolution import Conv
from resdomains.core.linear import Dropout, Linear
from resdomains.core.masks import Valid, as_map, as_rows
from resdomains.core.norms import BatchNorm, Norm
from resdomains.core.place import SequencePlace


class ConvolutionModule(SequenceBranch):
    """``dropout(W2 act(norm(depthwise(glu(W1 x)))))`` (Gulati et al. 2020).

    ``norm`` is the module's own and counts valid positions; the paper's is a batch norm. Kernels
    are odd here; the paper writes 32, its implementations use 31.
    """

    def __init__(
        self,
        place: SequencePlace,
        kernel: int = 31,
        dropout: float = 0.0,
        norm: Callable[[int], Norm] = BatchNorm,
    ) -> None:
        width = place.width
        super().__init__()
        self.expand = Linear(width, 2 * width, maps=2)
        self.depthwise = Conv(width, width, kernel, dims=1, groups=width, bias=True)
        self.norm = norm(width)
        self.act = place.activation()
        self.project = Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        y, positions = as_map(F.glu(self.expand(x), -1), valid)
        y = self.act(self.norm(self.depthwise(y, positions), positions))
        out: Tensor = self.dropout(self.project(as_rows(y, x, valid)))
        return out

    def silence(self) -> bool:
        return self.project.silence()
