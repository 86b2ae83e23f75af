"""Folding batch normalisation into the convolution before it."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from resdomains.core.convolution import Conv
from resdomains.core.norms import BatchNorm, NoNorm
from resdomains.core.parts import Chain

Network = TypeVar("Network", bound=nn.Module)


def fold(network: Network) -> Network:
    """A copy of ``network`` for inference: ``norm(conv(x))`` as one convolution.

    ``W' = W w / sqrt(var + eps)``, ``b' = (b - mean) w / sqrt(var + eps) + bias``. Exact but for
    rounding. A norm that no convolution precedes (pre-activation) stays. The copy is in eval mode
    and takes no gradients, since training it would not train the norms.
    """
    folded = deepcopy(network).eval().requires_grad_(False)
    for chain in [module for module in folded.modules() if isinstance(module, Chain)]:
        names = list(chain._modules)
        for before, name in pairwise(names):
            conv, norm = chain._modules[before], chain._modules[name]
            if isinstance(conv, Conv) and isinstance(norm, BatchNorm):
                _fold_pair(conv, norm)
                setattr(chain, name, NoNorm(norm.channels))
    return folded


@torch.no_grad()
def _fold_pair(conv: Conv, norm: BatchNorm) -> None:
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    conv.weight.copy_(weight)
    conv.bias = nn.Parameter(bias.detach(), requires_grad=False)
