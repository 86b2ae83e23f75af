import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from resdomains.core import Highway, PooledHead, ResidualMLP, ResNet2d, impala, resnet18, resnet50
from resdomains.interop import Timm, Torchvision, load_state

models = pytest.importorskip("torchvision.models")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    loaded: dict[str, Tensor] = models.resnet18(num_classes=10).state_dict()
    return loaded


def first_weight(network: ResNet2d) -> Tensor:
    return network.get_parameter("stem.conv.weight").detach().clone()


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_files_are_read(ending: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    else:
        save_file(state, path)
    network = resnet18()
    loaded = Torchvision(str(path)).load(network)
    assert torch.equal(first_weight(network), state["conv1.weight"])
    assert loaded.left_out == ("fc.weight", "fc.bias")
    assert loaded.reason == "no head was given"


def test_another_number_of_classes_leaves_the_head(state: dict[str, Tensor]) -> None:
    head = PooledHead(512, 3)
    before = head.linear.weight.clone()
    loaded = load_state(resnet18(), state, "torchvision", head)
    assert loaded.reason == "the source has 10 classes, the head 3"
    assert torch.equal(head.linear.weight, before)


def test_what_does_not_fit_is_listed_and_nothing_changes(state: dict[str, Tensor]) -> None:
    network = resnet18()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    broken = dict(state)
    del broken["layer2.0.bn1.bias"]
    broken["layer9.0.conv1.weight"] = torch.zeros(1)
    broken["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    with pytest.raises(ValueError, match="do not fit this ResNet2d") as caught:
        load_state(network, broken, "torchvision")
    text = str(caught.value)
    assert "missing: 1\n  layer2.0.bn1.bias (for stages.1.transition.0.branch.norm1.bias)" in text
    assert "unexpected: 1\n  layer9.0.conv1.weight" in text
    assert "stem.conv.weight: expected (64, 3, 7, 7), got (64, 1, 7, 7)" in text
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_parts_the_library_lacks_are_named(state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=re.escape("merge.gate.weight (no counterpart in torch")):
        load_state(resnet18(merge=Highway), state, "torchvision")
    with pytest.raises(
        ValueError, match=re.escape("stages.1.entry.conv.weight (no counterpart in")
    ):
        load_state(impala(), state, "torchvision")


def test_another_network_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"missing: \d+"):
        load_state(resnet50(), state, "torchvision")


def test_library_is_checked(state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="library: expected one of torchvision, timm, huggingface"):
        load_state(resnet18(), state, "keras")


def test_text_in_place_of_weights_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.pth"
    path.write_text("text")
    with pytest.raises(ValueError, match=r"notes.pth is damaged or holds no weights"):
        Torchvision(str(path)).load(resnet18())


def test_code_in_a_file_never_runs(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    marker = tmp_path / "ran"
    torch.save({"weight": Evil(marker)}, path)
    with pytest.raises(ValueError, match="holds more than tensors"):
        Timm(str(path)).load(resnet18())
    assert not marker.exists()


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (str(self.marker),)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.pth"))):
        Timm(str(tmp_path / "none.pth")).load(resnet18())


def test_a_runs_checkpoint_and_other_networks_are_not_for_a_librarys_names() -> None:
    with pytest.raises(ValueError, match=r"best.ckpt is a run's checkpoint, .* Checkpoint\)"):
        Torchvision("runs/best.ckpt").load(resnet18())
    with pytest.raises(ValueError, match=r"weights from timm are for .* not for this ResidualMLP"):
        load_state(ResidualMLP(), {}, "timm")


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="should hold tensors by name, but holds list"):
        Timm(str(tmp_path / "list.pt")).load(resnet18())


def test_absent_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ImportError, match="timm is needed here: pip install timm"):
        Timm("resnet50d").load(resnet18())
