import copy

import pytest
import torch
from torch import Tensor, nn

from resdomains.training.clipping import clip_by_norm

LARGE, SMALL = (512, 129), (7, 3)


def parameters(*shapes: tuple[int, ...], scale: float = 1.0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for parameter in made:
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return made


def gradient(of: nn.Parameter) -> Tensor:
    assert of.grad is not None
    return of.grad


@pytest.mark.parametrize("norm", [0.1, 1e6])
@pytest.mark.parametrize(
    "shapes", [[SMALL, (5,)], [LARGE], [SMALL, LARGE, (5,), LARGE]], ids=["small", "large", "both"]
)
def test_gradients_are_clipped_as_torch_does(shapes: list[tuple[int, ...]], norm: float) -> None:
    ours = [*parameters(*shapes), nn.Parameter(torch.zeros(3))]
    theirs = copy.deepcopy(ours)
    for a, b in zip(ours, theirs, strict=True):
        b.grad = None if a.grad is None else a.grad.clone()
    clip_by_norm(ours, norm)
    nn.utils.clip_grad_norm_(theirs, norm)
    assert ours[-1].grad is None
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_layout_and_type_do_not_matter() -> None:
    odd = parameters((64, 32, 8, 8), LARGE)
    odd[0].grad = gradient(odd[0]).to(memory_format=torch.channels_last)
    plain = parameters((64, 32, 8, 8), LARGE)
    double = [nn.Parameter(p.detach().double()) for p in plain]
    for a, b in zip(plain, double, strict=True):
        b.grad = gradient(a).double()
    for of in (odd, plain, double):
        clip_by_norm(of, 0.5)
    for a, b, c in zip(odd, plain, double, strict=True):
        torch.testing.assert_close(gradient(a), gradient(b))
        torch.testing.assert_close(gradient(b).double(), gradient(c), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_what_is_short_enough_stays_as_it_is(shape: tuple[int, ...]) -> None:
    (short,) = parameters(shape, scale=1e-6)
    before = gradient(short).clone()
    clip_by_norm([short], 1.0)
    assert torch.equal(gradient(short), before)


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_a_gradient_that_is_not_a_number_spoils_all_as_with_torch(shape: tuple[int, ...]) -> None:
    spoiled = parameters(shape, SMALL)
    gradient(spoiled[0])[0, 0] = torch.nan
    clip_by_norm(spoiled, 1.0)
    assert all(gradient(p).isnan().all() for p in spoiled)


def test_without_gradients_nothing_happens() -> None:
    parameter = nn.Parameter(torch.ones(2))
    clip_by_norm([parameter], 1.0)
    assert parameter.grad is None
