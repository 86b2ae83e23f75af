"""What onnxruntime computes of a written network is what the network computes."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from resdomains.core import BatchNorm, PooledHead, ResNet2d
from resdomains.interop import joined, onnx_graph, onnx_text, save_onnx
from resdomains.interop import onnx as onnx_module


class Classifier(nn.Module):
    """A residual network whose batch norms have seen something."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet2d(layers=(1, 1), channels=(8, 16))
        self.head = PooledHead(self.backbone.out_channels[-1], 5)
        for norm in self.modules():
            if isinstance(norm, BatchNorm):
                nn.init.uniform_(norm.running_mean, -0.5, 0.5)
                nn.init.uniform_(norm.running_var, 0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(x))
        return logits


def written(network: nn.Module, folder: Path) -> onnxruntime.InferenceSession:
    """A network over pictures of any number and size, as onnxruntime reads it from the file."""
    sizes = {0: Dim("batch"), 2: Dim("height"), 3: Dim("width")}
    model = onnx_graph(network, {"x": torch.zeros(2, 3, 28, 20)}, ["logits"], {"x": sizes})
    save_onnx(model, folder, {"task": "tiny", "classes": ["a", "ü"]})
    return onnxruntime.InferenceSession(folder / "model.onnx")


def test_outputs_are_equal_for_other_batches_and_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Classifier()
    network.train()
    session = written(network, tmp_path)
    assert network.training  # a copy was folded and written
    for shape in ((1, 3, 28, 20), (5, 3, 17, 40)):
        x = torch.randn(shape)
        (found,) = session.run(None, {"x": x.numpy()})
        expected = network.eval()(x)
        assert np.abs(found - expected.detach().numpy()).max() < 1e-5
        assert expected.std() > 1e-3
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert "BatchNormalization" not in kinds


class Counting(nn.Module):
    """Asks Python for the number of items."""

    def forward(self, x: Tensor) -> Tensor:
        return x * len(x)


def test_a_network_of_one_size_is_refused() -> None:
    with pytest.raises(ValueError, match="x can have no other size than 2 along axis 0 in ONNX"):
        onnx_graph(Counting(), {"x": torch.zeros(2, 3)}, ["y"], {"x": {0: Dim("batch")}})


def test_a_file_says_what_a_program_must_know(tmp_path: Path) -> None:
    session = written(Classifier(), tmp_path)
    assert json.loads((tmp_path / "spec.json").read_text()) == {
        "task": "tiny",
        "classes": ["a", "ü"],
    }
    told = session.get_modelmeta().custom_metadata_map
    assert told == {"task": "tiny", "classes": '["a", "ü"]'}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "spec.json"]
    assert [entry.version for entry in onnx.load(tmp_path / "model.onnx").opset_import] == [20]


def test_weights_too_large_for_one_file_stand_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_module, "_LARGEST", 1000)
    network = Classifier().eval()
    session = written(network, tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size > 4 * 16 * 16 * 9
    x = torch.randn(3, 3, 28, 20)
    (found,) = session.run(None, {"x": x.numpy()})
    assert np.abs(found - network(x).detach().numpy()).max() < 1e-5


def test_graphs_are_joined_by_the_names_of_their_ends(tmp_path: Path) -> None:
    double = onnx_text(
        "double (float[n] a) => (float[n] b, float[n] rest) { b = Add (a, a) rest = Neg (a) }"
    )
    product = onnx_text(
        "product (float[n] b, float[n] a, float[n] c) => (float[n] d) "
        "{ e = Mul (a, b) d = Add (e, c) }"
    )
    save_onnx(joined(double, product), tmp_path, {})
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [value.name for value in session.get_inputs()] == ["a", "c"]
    assert [value.name for value in session.get_outputs()] == ["rest", "d"]
    a, c = np.array([1, 2, 3], np.float32), np.array([10, 20, 30], np.float32)
    rest, d = session.run(None, {"a": a, "c": c})
    assert rest.tolist() == [-1, -2, -3]
    assert d.tolist() == [12, 28, 48]


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_what_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=rf"{name} is needed here: pip install 'resdomains\[onnx\]'"
    ):
        onnx_graph(Classifier(), {"x": torch.zeros(2, 3, 28, 20)}, ["logits"], {})
