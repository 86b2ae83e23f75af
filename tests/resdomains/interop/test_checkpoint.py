import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from resdomains.classification import Labels
from resdomains.core import (
    FirstTokenHead,
    Head,
    KMaxHead,
    PooledHead,
    ResidualMLP,
    ResNet2d,
    TanhPooler,
    TaskHead,
    bert,
)
from resdomains.interop import Checkpoint
from resdomains.training.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Letters(Spec):
    about: ClassVar[str] = "letters"
    tokens: str
    names: list[str]

    @property
    def input_meaning(self) -> dict[str, Any]:
        return {"tokenizer": self.tokens}

    @property
    def output_names(self) -> list[str]:
        return self.names


def labels(*names: str, **values: Any) -> Labels:
    return Labels(classes=list(names), **values)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet2d": lambda: ResNet2d(layers=[1], channels=[8], in_channels=3),
    "ResidualEncoder": lambda: bert(layers=1, width=8, heads=2, in_channels=11),
    "ResidualMLP": lambda: ResidualMLP(layers=1, width=8),
    "Sequential": lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8)),
}


def mlp() -> ResidualMLP:
    return ResidualMLP(layers=1, width=8)


def save(
    path: Path, network: nn.Module, head: nn.Module | None = None, spec: Spec | None = None
) -> str:
    """A checkpoint of a run that trained the network and the head."""
    state = {f"backbone.{key}": value for key, value in network.state_dict().items()}
    if head is not None:
        state |= {f"head.{key}": value for key, value in head.state_dict().items()}
    said = {"format": 1, "recipe": None, "spec": {} if spec is None else spec.plain()}
    torch.save({"resdomains": said, "state_dict": {**state, "threshold": torch.ones(1)}}, path)
    return str(path)


def random(module: nn.Module) -> Any:
    for tensor in module.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape) if tensor.is_floating_point() else tensor + 3)
    return module


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_any_kind_are_filled_whole(name: str, tmp_path: Path) -> None:
    source = random(NETWORKS[name]())
    network = NETWORKS[name]()
    loaded = Checkpoint(save(tmp_path / "a.ckpt", source, nn.Linear(2, 2))).load(network)
    for key, value in source.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key
    assert set(loaded.filled) == set(source.state_dict())
    assert loaded.left_out == ("head.weight", "head.bias", "threshold")
    assert loaded.reason == "no head was given"


def test_a_head_of_the_same_classes_in_another_order_gives_the_same_logits(tmp_path: Path) -> None:
    source, head = random(mlp()), random(PooledHead(8, 3))
    path = save(tmp_path / "a.ckpt", source, head, labels("a", "b", "c"))
    network, ours = mlp(), PooledHead(8, 3)
    loaded = Checkpoint(path).load(network, ours, labels("c", "a", "b"))
    x = torch.randn(5, 4)
    assert torch.equal(ours(network(x)), head(source(x))[:, [2, 0, 1]])
    assert loaded.reason == ""
    assert "head.linear.weight" in loaded.filled
    assert loaded.left_out == ("threshold",)


def test_classes_that_the_run_knew_keep_their_rows_and_others_begin_anew(tmp_path: Path) -> None:
    head = random(PooledHead(8, 3))
    path = save(tmp_path / "a.ckpt", mlp(), head, labels("a", "b", "c"))
    ours = PooledHead(8, 4)
    fresh = {key: value.clone() for key, value in ours.state_dict().items()}
    loaded = Checkpoint(path).load(mlp(), ours, labels("x", "c", "y", "a"))
    for key, value in head.state_dict().items():
        assert torch.equal(ours.state_dict()[key][[1, 3]], value[[2, 0]])
        assert torch.equal(ours.state_dict()[key][[0, 2]], fresh[key][[0, 2]])
    assert loaded.reason == "2 of 4 outputs are the source's, the rest begin anew: x, y"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (labels("x", "y", "z"), "the source's outputs are others: a, b, c; these are x, y, z"),
        (
            labels("a", "b", "c", multilabel=True, prevalence=[0.1, 0.1, 0.1]),
            "the source's outputs are others: a, b, c; these are label a, label b, label c",
        ),
        (None, "no spec was given that says what the outputs mean"),
        (Spec(), "the source's outputs are not those of samples"),
    ],
)
def test_outputs_that_mean_something_else_begin_anew(
    spec: Spec | None, reason: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.ckpt", mlp(), random(PooledHead(8, 3)), labels("a", "b", "c"))
    ours = PooledHead(8, 3)
    before = ours.linear.weight.clone()
    loaded = Checkpoint(path).load(mlp(), ours, spec)
    assert torch.equal(ours.linear.weight, before)
    assert loaded.reason == reason
    assert not any(key.startswith("head") for key in loaded.filled)


def test_what_lies_below_the_outputs_is_kept(tmp_path: Path) -> None:
    def head(classes: int) -> Head:
        return FirstTokenHead(8, classes, pooler=TanhPooler)

    source = random(head(2))
    path = save(tmp_path / "a.ckpt", mlp(), source, labels("a", "b"))
    ours = head(3)
    loaded = Checkpoint(path).load(mlp(), ours, labels("x", "y", "z"))
    for key in ("pooler.linear.weight", "pooler.linear.bias"):
        assert torch.equal(ours.state_dict()[key], source.state_dict()[key])
    assert [key for key in loaded.filled if key.startswith("head")] == [
        "head.pooler.linear.weight",
        "head.pooler.linear.bias",
    ]
    assert loaded.left_out == ("head.linear.weight", "head.linear.bias", "threshold")


def test_a_head_of_other_parts_begins_anew(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", mlp(), PooledHead(8, 2), labels("a", "b"))
    for head in (KMaxHead(8, 2, k=2, hidden=8), PooledHead(9, 2)):
        loaded = Checkpoint(path).load(mlp(), head, labels("a", "b"))
        assert loaded.reason == f"the source's head has other parts than this {type(head).__name__}"


def test_what_does_not_fit_is_listed_and_nothing_changes(tmp_path: Path) -> None:
    source = nn.ModuleDict({"same": nn.Linear(2, 2), "wide": nn.Linear(3, 2), "gone": nn.ReLU()})
    source["old"] = nn.Linear(1, 1, bias=False)
    network = nn.ModuleDict({"same": nn.Linear(2, 2), "wide": nn.Linear(2, 2)})
    network["new"] = nn.Linear(1, 1, bias=False)
    head = PooledHead(2, 2)
    path = save(tmp_path / "a.ckpt", source, random(PooledHead(2, 2)), labels("a", "b"))
    before = {k: v.clone() for m in (network, head) for k, v in m.state_dict().items()}
    with pytest.raises(ValueError, match=r"a.ckpt do not fit this ModuleDict:") as caught:
        Checkpoint(path).load(network, head, labels("a", "b"))
    text = str(caught.value)
    assert "missing: 1\n  new.weight" in text
    assert "unexpected: 1\n  old.weight" in text
    assert "of another shape: 1\n  wide.weight: expected (2, 2), got (2, 3)" in text
    for module in (network, head):
        assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_ids_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", mlp(), None, Letters(tokens="abc", names=[]))
    with pytest.raises(
        ValueError,
        match=r"a.ckpt was trained with another tokenizer than the data's \(abc and xyz\), .* give the data the tok",
    ):
        Checkpoint(path).load(mlp(), None, Letters(tokens="xyz", names=[]))
    assert Checkpoint(path).load(mlp(), None, Letters(tokens="abc", names=["a"])).filled


def test_a_run_on_data_without_what_inputs_mean_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", mlp(), None, labels("a", "b"))
    with pytest.raises(
        ValueError, match=r"was not trained on letters, whose tokenizer its network"
    ):
        Checkpoint(path).load(mlp(), None, Letters(tokens="abc", names=[]))


def test_files_that_are_no_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    for name, message in {
        "gone.ckpt": "no such checkpoint file",
        "other.ckpt": "not a checkpoint of resdomains",
        "text.ckpt": "damaged or not a checkpoint|refused",
    }.items():
        with pytest.raises(ValueError, match=rf"source: .*{re.escape(name)}: .*({message})"):
            Checkpoint(str(tmp_path / name)).load(mlp())


def test_a_changed_byte_of_the_weights_is_seen(tmp_path: Path) -> None:
    path = Path(save(tmp_path / "a.ckpt", random(mlp())))
    weight = next(iter(torch.load(path, weights_only=True)["state_dict"].values()))
    content = bytearray(path.read_bytes())
    content[content.find(weight.numpy().tobytes()) + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.ckpt: damaged .*the checksum of its part .* is wrong"):
        Checkpoint(str(path)).load(mlp())


class Grid(TaskHead):
    """A head of another task: an output a class, and something that all classes share."""

    rows = ("outputs.weight",)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.outputs = nn.Conv2d(8, classes, 3, bias=False)
        self.shared = nn.Linear(8, 5)


def test_heads_of_any_task_say_which_rows_have_names(tmp_path: Path) -> None:
    head = random(Grid(2))
    path = save(tmp_path / "a.ckpt", mlp(), head, labels("a", "b"))
    ours = Grid(3)
    fresh = ours.outputs.weight[0].clone()
    loaded = Checkpoint(path).load(mlp(), ours, labels("x", "b", "a"))
    assert torch.equal(ours.outputs.weight[1:], head.outputs.weight.flip(0))
    assert torch.equal(ours.outputs.weight[0], fresh)
    assert torch.equal(ours.shared.weight, head.shared.weight)
    assert loaded.reason == "2 of 3 outputs are the source's, the rest begin anew: x"


def test_rows_of_another_width_are_another_head(tmp_path: Path) -> None:
    head = random(Grid(2))
    head.outputs = nn.Conv2d(8, 2, 1, bias=False)
    path = save(tmp_path / "a.ckpt", mlp(), head, labels("a", "b"))
    loaded = Checkpoint(path).load(mlp(), Grid(2), labels("a", "b"))
    assert loaded.reason == "the source's head has other parts than this Grid"
