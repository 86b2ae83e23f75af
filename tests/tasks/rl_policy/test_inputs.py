from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resdomains.core import (
    Features,
    ResidualEncoder,
    ResidualMLP,
    ResNet1d,
    ResNet2d,
    VectorStem,
    impala,
    simba,
)
from resdomains_tasks.rl_policy.inputs import Inputs

VECTOR = {"layout": "vector", "shape": [4], "dtype": "float32", "scale": 1}
HISTORY = {"layout": "sequence", "shape": [3, 5], "dtype": "float32", "scale": 1}
PICTURE = {"layout": "picture", "shape": [2, 24, 20], "dtype": "uint8", "scale": 255}


def of(part: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"observation": part}


def batch(part: dict[str, Any], count: int = 6) -> Tensor:
    shape = (count, *part["shape"])
    if part["dtype"] == "uint8":
        return torch.randint(0, 256, shape, dtype=torch.uint8)
    return 3 + 2 * torch.randn(shape)


@pytest.mark.parametrize(
    ("part", "network", "shape"),
    [
        (VECTOR, simba(1, 8, in_channels=4), (8,)),
        (HISTORY, ResNet1d((1, 1), (4, 6), in_channels=3), (6, 3)),
        (HISTORY, ResidualEncoder(1, 16, 3, stem=partial(VectorStem, length=5)), (16, 5)),
        (PICTURE, impala(in_channels=2), (32, 3, 3)),
    ],
)
def test_every_layout_reaches_a_network(
    part: dict[str, Any], network: nn.Module, shape: tuple[int, ...]
) -> None:
    network.train()
    inputs = Inputs(of(part))
    assert (inputs.layout, inputs.in_channels) == (part["layout"], part["shape"][0])
    assert inputs.output_shape(network) == shape
    features: Features = network(inputs({"observation": batch(part)}))
    assert tuple(features.maps[-1].shape[1:]) == shape
    assert network.training


def test_pictures_are_divided_by_their_scale_and_lie_in_channels_last() -> None:
    picture = batch(PICTURE)
    read = Inputs(of(PICTURE))({"observation": picture})
    torch.testing.assert_close(read, picture.float() / 255)
    assert read.is_contiguous(memory_format=torch.channels_last)
    as_is = Inputs(of(PICTURE | {"scale": 1}))({"observation": picture})
    assert torch.equal(as_is, picture.float())


def test_vectors_are_normalised_by_what_update_was_given() -> None:
    inputs = Inputs(of(VECTOR))
    x = batch(VECTOR, 200)
    assert torch.equal(inputs({"observation": x}), x)  # before the first update
    valid = torch.arange(200) < 150
    inputs.update({"observation": x}, valid)
    counted = x[valid]
    expected = (x - counted.mean(0)) / counted.std(0, correction=0)
    torch.testing.assert_close(inputs({"observation": x}), expected)
    again = Inputs(of(VECTOR))
    again.load_state_dict(inputs.state_dict())
    assert torch.equal(again({"observation": x}), inputs({"observation": x}))


def test_a_history_is_normalised_by_its_newest_step() -> None:
    inputs = Inputs(of(HISTORY))
    x = batch(HISTORY, 100)
    x[:, :, :-1] += 7  # older steps were the newest of earlier observations
    inputs.update({"observation": x}, torch.ones(100, dtype=torch.bool))
    newest = x[:, :, -1]
    mean, std = newest.mean(0)[:, None], newest.std(0, correction=0)[:, None]
    torch.testing.assert_close(inputs({"observation": x}), (x - mean) / std)


def test_normalisation_can_be_left_out() -> None:
    inputs = Inputs(of(VECTOR), normalize=False)
    x = batch(VECTOR)
    inputs.update({"observation": x}, torch.ones(6, dtype=torch.bool))
    assert inputs({"observation": x}) is x
    assert not inputs.state_dict()


def test_several_parts_become_one_vector() -> None:
    camera = ResNet2d((1,), (5,), in_channels=2)
    inputs = Inputs({"camera": PICTURE, "vector": VECTOR}, {"camera": camera}, normalize=False)
    assert (inputs.layout, inputs.in_channels) == ("vector", 9)
    parts = {"camera": batch(PICTURE), "vector": batch(VECTOR)}
    read = inputs.eval()(parts)
    seen = camera(parts["camera"].float() / 255).maps[-1].mean((2, 3))
    torch.testing.assert_close(read, torch.cat((seen, parts["vector"]), 1))
    assert inputs.output_shape(ResidualMLP(1, 8, 9)) == (8,)


@pytest.mark.parametrize(
    ("part", "network", "message"),
    [
        (
            VECTOR,
            simba(1, 8, in_channels=6),
            "the observation has 4 numbers, backbone reads 6; set --model.backbone.in_channels 4",
        ),
        (
            PICTURE,
            impala(in_channels=4),
            "the observation has 2 channels, backbone reads 4; set --model.backbone.in_channels 2",
        ),
        (VECTOR, impala(), "backbone ResNet2d cannot read a vector of 4 .*; take ResidualMLP"),
        (PICTURE, simba(1, 8), "cannot read a picture of 2 x 24 x 20 .*; take ResNet2d"),
        (HISTORY, simba(1, 8), "cannot read a sequence of 3 x 5 .*; take ResNet1d, or Residual"),
        (HISTORY, ResidualEncoder(1, 16), "expected integers .*with stem=VectorStem"),
        (
            HISTORY,
            ResidualEncoder(1, 16, 3, stem=partial(VectorStem, length=4)),
            "expected at most 4 positions",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_named(
    part: dict[str, Any], network: nn.Module, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Inputs(of(part)).output_shape(network)


def test_a_network_must_say_what_it_reads() -> None:
    with pytest.raises(TypeError, match="backbone Linear states no in_channels"):
        Inputs(of(VECTOR)).output_shape(nn.Linear(4, 2))


def test_stems_that_do_not_fit_are_named() -> None:
    parts = {"camera": PICTURE, "vector": VECTOR}
    with pytest.raises(ValueError, match=r"its picture camera of 2 x 24 x 20 needs .* set --model"):
        Inputs(parts)
    with pytest.raises(ValueError, match=r"stems.lidar stands for no part .* camera, vector"):
        Inputs(parts, {"lidar": simba(1, 8)})
    with pytest.raises(ValueError, match=r"set --model.stems.camera.in_channels 2"):
        Inputs(parts, {"camera": impala(in_channels=3)})
