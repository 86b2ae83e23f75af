"""Activations, each a part with a short name in YAML."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from resdomains.core.masks import Valid
from resdomains.core.parts import Part


class Activation(Part):
    """A function of each value by itself; ``inplace`` allows it to overwrite its input."""

    def __init__(self) -> None:
        super().__init__()
        self.inplace = True


class ReLU(Activation):
    """``max(x, 0)``."""

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return F.relu(x, inplace=self.inplace)


class SiLU(Activation):
    """``x sigmoid(x)`` (Elfwing et al. 2018)."""

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        # Its gradient needs the input, so overwriting saves nothing.
        return F.silu(x)


class GELU(Activation):
    """``x Phi(x)``, the exact form (Hendrycks & Gimpel 2016)."""

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return F.gelu(x)
