"""Every option can be written in YAML, by its short name."""

import re
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from resdomains import core
from resdomains.core import DropPath, GroupNorm, LayerScale, Memory, Recompute, ResNet, Stack


class Model:
    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone


def parser() -> ArgumentParser:
    built = ArgumentParser(exit_on_error=False)
    built.add_class_arguments(Model, "model")
    return built


def from_yaml(text: str, name: str = "resnet20") -> ResNet:
    options = yaml.safe_load(text)
    backbone = {"class_path": f"resdomains.core.{name}", "init_args": options}
    return made(parser().parse_object({"model": {"backbone": backbone}}))


def made(config: Any) -> ResNet:
    backbone: ResNet = parser().instantiate(config).model.backbone
    return backbone


def merges(network: ResNet) -> set[type]:
    return {type(block.merge) for _, block in network.blocks()}


def memory_of(network: ResNet) -> Memory:
    stack = network.get_submodule("stages.0.stack")
    assert isinstance(stack, Stack)
    return stack.memory


@pytest.mark.parametrize(
    "name", ["Add", "BranchOnly", "ShortcutOnly", "Highway", "ReZero", "LayerScale", "DropPath"]
)
@pytest.mark.parametrize("network", ["resnet20", "resnet1d20", "ResNet2d"])
def test_each_merge_by_name(name: str, network: str) -> None:
    assert merges(from_yaml(f"merge: {name}", network)) == {getattr(core, name)}


def test_deep_norm_by_name() -> None:
    network = from_yaml("{merge: DeepNorm, after: NormActivated}")
    assert merges(network) == {core.DeepNorm}


def test_merges_nest() -> None:
    network = from_yaml(
        "merge: {class_path: DropPath, init_args:"
        " {p: 0.2, merge: {class_path: LayerScale, init_args: {init: 0.5}}}}"
    )
    merge = list(network.blocks())[-1][1].merge
    assert isinstance(merge, DropPath)
    assert merge.p == pytest.approx(0.2)
    assert isinstance(merge.merge, LayerScale)
    assert torch.equal(merge.merge.scale, torch.full((64, 1, 1), 0.5))


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("memory: Recompute", 1),
        ("memory: {class_path: Recompute, init_args: {every: 2}}", 2),
    ],
)
def test_memory(text: str, every: int) -> None:
    memory = memory_of(from_yaml(text))
    assert isinstance(memory, Recompute)
    assert memory.every == every


def test_parts() -> None:
    network = from_yaml(
        """
        norm: {class_path: GroupNorm, init_args: {channels_per_group: 4}}
        activation: SiLU
        stem: ImageNetStem
        shortcut: PooledProjection
        block:
          class_path: Bottleneck
          init_args: {groups: 2, attention: {class_path: SqueezeExcitation, init_args: {ratio: 0.5}}}
        """
    )
    kinds = {type(module) for module in network.modules()}
    assert {core.SiLU, core.ImageNetStem, core.PooledProjection, core.Bottleneck} <= kinds
    assert core.SqueezeExcitation in kinds
    assert core.BatchNorm not in kinds
    assert {m.channels // m.groups for m in network.modules() if isinstance(m, GroupNorm)} == {4}


def test_what_leads_passes_and_follows_a_stage() -> None:
    network = from_yaml(
        "{entry: PoolEntry, inner_shortcut: ConstantScaling, tail: {class_path: SeparableTail,"
        " init_args: {channels: 24, kernel: 5}}}",
        "resnet1d20",
    )
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(core.PoolEntry) == 2
    assert kinds.count(core.ConstantScaling) == 7
    assert network.out_channels == (16, 32, 24)


@pytest.mark.parametrize("name", ["ResNet1d", "resnet1d20"])
def test_a_block_for_each_stage_is_read_and_written(name: str) -> None:
    text = """
        block:
          - {class_path: Basic, init_args: {kernel: 5}}
          - PreActivationBasic
          - {class_path: Separable, init_args: {kernel: 11}}
        """
    config = yaml.safe_load(text)
    backbone = {"class_path": f"resdomains.core.{name}", "init_args": config}
    parsed = parser().parse_object({"model": {"backbone": backbone}})
    for network in (made(parsed), made(parser().parse_string(parser().dump(parsed)))):
        branches = [block.branch for _, block in network.blocks()]
        kinds = [type(branch) for branch in branches]
        assert kinds == [core.Basic] * 3 + [core.PreActivationBasic] * 3 + [core.Separable] * 3
        assert branches[0].get_parameter("conv1.weight").shape[3] == 5
        assert branches[-1].get_parameter("depthwise1.weight").shape[3] == 11


@pytest.mark.parametrize("name", ["quartznet5x5", "vdcnn9", "impala"])
def test_names_of_other_fields_take_merges(name: str) -> None:
    network = from_yaml("{in_channels: 4, merge: Highway}", name)
    assert merges(network) == {core.Highway}
    assert network.in_channels == 4


def test_the_command_line_takes_one_key() -> None:
    arguments = [
        "--model.backbone=resdomains.core.resnet20",
        "--model.backbone.merge=Highway",
        "--model.backbone.memory=Recompute",
    ]
    network = made(parser().parse_args(arguments))
    assert merges(network) == {core.Highway}
    assert isinstance(memory_of(network), Recompute)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mergee: Highway", "'mergee' is not accepted"),
        ("merge: Highwai", "Highwai"),
        ("merge: GroupNorm", "GroupNorm"),
        ("{class_path: LayerScale, init_args: {initial: 1}}", "is not accepted"),
    ],
)
def test_mistakes_are_refused(text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(message)):
        from_yaml(text)


def test_weights_by_name() -> None:
    from resdomains.interop import Timm, Weights

    built = ArgumentParser(exit_on_error=False)
    built.add_argument("--weights", type=Weights | None, default=None)
    config = built.parse_args(["--weights=Timm", "--weights.source=x.pth"])
    weights = built.instantiate(config).weights
    assert isinstance(weights, Timm)
    assert weights.source == "x.pth"


@pytest.mark.parametrize("name", ["ResNet2d", "resnet1d20"])
def test_a_written_config_reads_back(name: str) -> None:
    arguments = [
        f"--model.backbone=resdomains.core.{name}",
        "--model.backbone.merge=DropPath",
        "--model.backbone.merge.merge=LayerScale",
        "--model.backbone.memory=Recompute",
    ]
    text = parser().dump(parser().parse_args(arguments))
    network = made(parser().parse_string(text))
    assert merges(network) == {DropPath}
    assert isinstance(memory_of(network), Recompute)
