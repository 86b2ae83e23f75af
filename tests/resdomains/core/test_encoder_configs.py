"""Encoders and MLPs, with their lists of factories, can be written in YAML by short names."""

from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from resdomains import core
from resdomains.cli.errors import ConfigError
from resdomains.cli.schema import Keys, Schema
from resdomains.core import ResidualEncoder, ResidualMLP

CONFORMER = """
layers: 2
width: 16
in_channels: 8
stem: {class_path: SubsamplingStem, init_args: {positions: SinusoidalPositions}}
layer:
  - {class_path: FeedForward, init_args: {scale: 0.5, dropout: 0.1}}
  - class_path: SelfAttention
    init_args: {heads: 4, positions: {class_path: RotaryPositions, init_args: {base: 100.0}}}
  - class_path: ConvolutionModule
    init_args: {norm: {class_path: GroupNorm, init_args: {channels_per_group: 4}}}
  - SwiGLU
norm_position: ConformerNorm
norm: RMSNorm
activation: SiLU
merge: {class_path: DropPath, init_args: {merge: LayerScale}}
memory: Recompute
"""


class Model:
    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone


def parser() -> ArgumentParser:
    built = ArgumentParser(exit_on_error=False)
    built.add_class_arguments(Model, "model")
    return built


def normalised(text: str, name: str) -> dict[str, Any]:
    backbone = {"class_path": f"resdomains.core.{name}", "init_args": yaml.safe_load(text)}
    return Schema({"model": Keys(Model, {})}).normalise({"model": {"backbone": backbone}})


def built(text: str, name: str = "ResidualEncoder") -> Any:
    """Through the launcher's schema, written out, and read back."""
    config = parser().parse_object(normalised(text, name))
    again = parser().parse_string(parser().dump(config))
    return parser().instantiate(again).model.backbone


def test_an_encoder_from_a_list_of_factories() -> None:
    network = built(CONFORMER)
    assert isinstance(network, ResidualEncoder)
    branches = [type(getattr(b.branch, "body", b.branch)) for _, b in network.blocks()]
    assert branches == 2 * [
        core.FeedForward,
        core.SelfAttention,
        core.ConvolutionModule,
        core.SwiGLU,
    ]
    kinds = {type(module) for module in network.modules()}
    assert {core.RMSNorm, core.GroupNorm, core.DropPath, core.LayerScale} <= kinds
    assert {core.SubsamplingStem, core.SinusoidalPositions, core.RotaryPositions} <= kinds
    assert isinstance(network.norm_position, core.ConformerNorm)
    assert isinstance(network.stack.memory, core.Recompute)
    assert [m.base for m in network.modules() if isinstance(m, core.RotaryPositions)] == [100, 100]


def test_named_networks_take_the_same_keys() -> None:
    text = "{layer: [FeedForward], norm_position: PostNorm, merge: DeepNorm, dropout: 0.2}"
    network = built(text, "bert_small")
    assert len(list(network.blocks())) == 4
    assert {type(b.merge) for _, b in network.blocks()} == {core.DeepNorm}


@pytest.mark.parametrize("name", ["ResidualMLP", "simba"])
def test_mlps(name: str) -> None:
    network = built("{in_channels: 3, width: 8, layers: 3, merge: Highway, layer: [SwiGLU]}", name)
    assert isinstance(network, ResidualMLP)
    assert {type(b.merge) for _, b in network.blocks()} == {core.Highway}
    assert network.depth == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "layer: [FeedForwrd]",
            "layer.0: no SequenceBranch named 'FeedForwrd'; did you mean 'Feed",
        ),
        ("layer: [FeedForward, {class_path: SwiGLU, init_args: {drop: 1}}]", "layer.1.drop: unkno"),
        ("norm_position: PostNrm", "no NormPosition named 'PostNrm'; did you mean 'PostNorm'"),
        ("stem: ImageNetStem", "no SequenceStem named 'ImageNetStem'"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        normalised(text, "ResidualEncoder")
