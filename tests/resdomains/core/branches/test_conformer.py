"""The convolution module against torch's layers on the same items without padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core import (
    ConvolutionModule,
    GroupNorm,
    LayerNorm,
    NoNorm,
    SequencePlace,
    SiLU,
    Valid,
    fold,
)
from resdomains.core.masks import pack, packed

PLACE = SequencePlace(8, LayerNorm, SiLU)
LENGTHS = [9, 4, 1, 6]


def written_out(branch: ConvolutionModule, items: list[Tensor]) -> list[Tensor]:
    """Every item by itself but for the batch statistics, which are those of all frames."""
    state = dict(branch.named_parameters())
    filtered = []
    for item in items:
        x = F.glu(F.linear(item, state["expand.weight"], state["expand.bias"]), -1)
        kernel = state["depthwise.weight"].squeeze(2)
        y = F.conv1d(x.T[None], kernel, state["depthwise.bias"], padding=2, groups=8)
        filtered.append(y[0].T)
    frames = torch.cat(filtered)
    frames = (frames - frames.mean(0)) / (frames.var(0, correction=0) + 1e-5).sqrt()
    frames = F.silu(frames * state["norm.weight"] + state["norm.bias"])
    whole = F.linear(frames, state["project.weight"], state["project.bias"])
    return list(torch.split(whole, [len(item) for item in items]))


def module() -> ConvolutionModule:
    torch.manual_seed(0)
    branch = ConvolutionModule(PLACE, kernel=5)
    for parameter in branch.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    return branch.double()


def test_statistics_and_gradients_are_those_of_valid_frames() -> None:
    branch = module()
    x = torch.randn(4, 9, 8, dtype=torch.double)
    valid = packed(Valid.of(torch.tensor(LENGTHS), 9))
    got = branch(pack(x, valid), valid)
    expected = torch.cat(written_out(branch, [i[:n] for i, n in zip(x, LENGTHS, strict=True)]))
    torch.testing.assert_close(got, expected)
    parameters = list(branch.parameters())
    for a, b in zip(
        torch.autograd.grad(got.sin().sum(), parameters),
        torch.autograd.grad(expected.sin().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    mean = branch.get_buffer("norm.running_mean")
    assert mean.abs().max() > 0


def test_without_lengths_all_frames_count() -> None:
    branch = module()
    x = torch.randn(3, 7, 8, dtype=torch.double)
    torch.testing.assert_close(branch(x), torch.stack(written_out(branch, list(x))))


def test_its_norm_folds_into_the_convolution() -> None:
    branch = module()
    x = torch.randn(3, 7, 8, dtype=torch.double)
    branch(x)  # statistics off their starting values
    folded = fold(branch)
    assert isinstance(folded.norm, NoNorm)
    torch.testing.assert_close(folded(x), branch.eval()(x))


def test_its_norm_is_its_own() -> None:
    branch = ConvolutionModule(PLACE, norm=groups_of_4)
    assert isinstance(branch.norm, GroupNorm)
    assert branch.silence()
    assert not branch(torch.randn(2, 5, 8)).any()


def groups_of_4(channels: int) -> GroupNorm:
    return GroupNorm(channels, 4)


def test_kernels_are_odd() -> None:
    with pytest.raises(ValueError, match="kernel: expected an odd number"):
        ConvolutionModule(PLACE, kernel=32)
