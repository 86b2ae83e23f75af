"""Choose the arithmetic: bfloat16 where it is fast and right, float32 elsewhere."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn


@dataclass(frozen=True)
class Precision:
    """A precision for Lightning's Trainer, and why it was chosen."""

    name: str
    reason: str


# What Lightning takes for weights in float32; 32, 16 and bf16 are its short names.
_NAMES = ("32-true", "bf16-mixed", "16-mixed")


def given_precision(name: str | int) -> Precision:
    """Return the precision that a config asks for.

    Raises:
        ValueError: If weights would not be float32.
    """
    if str(name) not in (*_NAMES, "32", "16", "bf16"):
        raise ValueError(
            f"expected {', '.join(_NAMES[:-1])} or {_NAMES[-1]}, got {name}; weights, statistics and "
            "losses are float32 in all tasks"
        )
    return Precision(str(name), "the config says so")


@torch.inference_mode(False)  # who asks may be predicting
def _bf16_error() -> float:
    """Return how far bf16 autocast moves the weight gradients of convolutions, relative to the largest.

    Strides 1 to 3 are tried: torch has computed stride 3 wrongly on some CPUs (pytorch issue 169688).
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for stride in (1, 2, 3):
        conv = nn.Conv2d(16, 16, 3, stride, 1, bias=False)
        weight = torch.randn(conv.weight.shape, generator=generator) * 0.1
        x = torch.randn(2, 16, 15, 15, generator=generator).to(memory_format=torch.channels_last)
        gradients = []
        for enabled in (False, True):
            conv.weight.data.copy_(weight)
            conv.zero_grad()
            with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                conv(x).float().square().mean().backward()
            assert conv.weight.grad is not None
            gradients.append(conv.weight.grad.clone())
        exact, rounded = gradients
        worst = max(worst, float((exact - rounded).abs().max() / exact.abs().max()))
    return worst


@cache
def choose_precision(accelerator: str) -> Precision:
    """Return bf16-mixed on a GPU that has it and on a CPU with avx512_bf16 that passes a self-test, else 32-true.

    Args:
        accelerator: `cuda`, `cpu` or another device type of torch.
    """
    if accelerator == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16-mixed", "the GPU computes bfloat16")
        return Precision("32-true", "the GPU has no bfloat16")
    if accelerator != "cpu":
        return Precision("32-true", f"bfloat16 is not tried on {accelerator}")
    if not torch.cpu.get_capabilities().get("avx512_bf16", False):
        return Precision("32-true", "the CPU has no fast bfloat16 (avx512_bf16)")
    error = _bf16_error()
    if not error < 0.02:
        return Precision(
            "32-true", f"bfloat16 failed its self-test: convolution gradients off by {error:.1%}"
        )
    return Precision("bf16-mixed", "the CPU computes bfloat16 and passed the self-test")
