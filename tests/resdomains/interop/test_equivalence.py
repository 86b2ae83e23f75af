"""The same weights give the same logits as in the library they come from."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import resdomains.core as core
from resdomains.core import PooledHead, ResNet2d
from resdomains.interop import HuggingFace, Timm, Torchvision, load_state

TORCHVISION = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "resnext50_32x4d",
]
TIMM = {"resnet50d": "resnet50d", "seresnet50": "seresnet50", "preact_resnet50": "resnetv2_50"}


def shaken(model: Any) -> Any:
    """The model in eval mode, every norm's statistics and parameters random."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(-0.5, 0.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
    return model.eval()


def difference(ours: ResNet2d, head: PooledHead, theirs: Callable[[Tensor], Tensor]) -> float:
    torch.manual_seed(1)
    x = torch.randn(2, 3, 64, 64)
    ours.eval(), head.eval()
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 1e-3, "logits without variety prove nothing"
        return float((head(ours(x)) - expected).abs().max())


def build(name: str) -> tuple[ResNet2d, PooledHead]:
    network = getattr(core, name)()
    return network, PooledHead(network.out_channels[-1], 10)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_logits_are_equal(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    theirs = shaken(models.get_model(name, num_classes=10))
    ours, head = build(name)
    loaded = load_state(ours, theirs.state_dict(), "torchvision", head)
    assert not loaded.left_out
    assert difference(ours, head, theirs) < 1e-5


@pytest.mark.parametrize("name", TIMM)
def test_timm_logits_are_equal(name: str) -> None:
    timm = pytest.importorskip("timm")
    theirs = shaken(timm.create_model(TIMM[name], num_classes=10))
    ours, head = build(name)
    assert not load_state(ours, theirs.state_dict(), "timm", head).left_out
    assert difference(ours, head, theirs) < 1e-5


@pytest.mark.parametrize(("name", "kind"), [("resnet18", "basic"), ("resnet50", "bottleneck")])
def test_hugging_face_logits_are_equal(name: str, kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours, head = build(name)
    config = transformers.ResNetConfig(
        depths=[3, 4, 6, 3] if kind == "bottleneck" else [2, 2, 2, 2],
        hidden_sizes=list(ours.out_channels),
        layer_type=kind,
        num_labels=10,
    )
    theirs = shaken(transformers.ResNetForImageClassification(config))
    theirs.save_pretrained(tmp_path / "whole")
    assert not HuggingFace(str(tmp_path / "whole")).load(ours, head).left_out
    assert difference(ours, head, lambda x: theirs(x).logits) < 1e-5

    theirs.resnet.save_pretrained(tmp_path / "headless")
    ours, _ = build(name)
    loaded = HuggingFace(str(tmp_path / "headless")).load(ours, head)
    assert loaded.reason == "the source has no classifier"
    assert difference(ours, head, lambda x: theirs(x).logits) < 1e-5


def test_timm_is_refused_where_it_computes_pre_activation_differently() -> None:
    timm = pytest.importorskip("timm")
    state = timm.create_model("resnetv2_18", num_classes=10).state_dict()
    with pytest.raises(ValueError, match=re.escape("compute something else")):
        load_state(core.preact_resnet18(), state, "timm")


def test_sources_are_lazy_about_their_libraries() -> None:
    assert Torchvision("resnet18").library == "torchvision"
    assert Timm("resnet50d").library == "timm"
