"""Writing a network as ONNX, which runs without Python and without this library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resdomains.core import fold
from resdomains.interop.sources import library

OPSET = 20
_IR = 10  # the version of the file format that belongs to the operator set
_ONNX = "pip install 'resdomains[onnx]'"
_LARGEST = 2**31 - 2**24  # bytes of weights that a file of Protocol Buffers holds beside its graph


def onnx_graph(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, Any]],
) -> Any:
    """The graph of a network in evaluation, batch norms folded, as an ``onnx.ModelProto``.

    Args:
        network: Its ``forward`` takes the inputs in order and returns a tensor for each output.
        inputs: An example of each input, by name. Sizes that may differ in use must not be 1, nor become 1 inside the
            network, and should differ from each other: the exporter takes a 1, and equal sizes, for granted.
        outputs: Names of what is returned.
        dynamic: For an input's name its axes of any size, each with a ``torch.export.Dim``.

    Raises:
        ValueError: The network works for the example's sizes alone.
        ImportError: onnx or onnxscript is not installed.
    """
    library("onnx", _ONNX)
    library("onnxscript", _ONNX)
    program = torch.onnx.export(
        fold(network).cpu(),
        tuple(inputs.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=tuple(dict(dynamic.get(name, {})) for name in inputs),
        verbose=False,
    )
    assert program is not None  # as it is without `dynamo`
    model = program.model_proto
    _check_dynamic(model, dynamic)
    return model


def _check_dynamic(model: Any, dynamic: Mapping[str, Mapping[int, Any]]) -> None:
    """Refuse a graph of one size where others were asked for: torch then exports without a word.

    Raises:
        ValueError: An input has the example's size.
    """
    for value in model.graph.input:
        for axis in dynamic.get(value.name, {}):
            size = value.type.tensor_type.shape.dim[axis]
            if not size.dim_param:
                raise ValueError(
                    f"{value.name} can have no other size than {size.dim_value} along axis {axis} in ONNX, because "
                    "the network computes with it as a number of Python's"
                )


def onnx_text(text: str) -> Any:
    """A graph written in ONNX's own notation, as an ``onnx.ModelProto`` of the version of ``onnx_graph``.

    Args:
        text: Its name, inputs, outputs, and nodes.
    """
    header = f'<ir_version: {_IR}, opset_import: ["" : {OPSET}]>'
    return library("onnx.parser", _ONNX).parse_model(f"{header}\n{text}")


def joined(first: Any, second: Any) -> Any:
    """Two graphs as one: outputs of the first go where the second has inputs of their names.

    Other outputs of the first, and other inputs of the second, stay; an input of both is one. What is inside the second
    is called by its name too, so graphs that are joined need names of their own.
    """
    helper = library("onnx.helper", _ONNX)
    after = library("onnx.compose", _ONNX).add_prefix(
        second, f"{second.graph.name}_", rename_inputs=False, rename_outputs=False
    )
    one, two = first.graph, after.graph
    given = {value.name for value in [*one.output, *one.input]}
    read = {value.name for value in two.input}
    graph = helper.make_graph(
        [*one.node, *two.node],
        one.name,
        [*one.input, *(value for value in two.input if value.name not in given)],
        [*(value for value in one.output if value.name not in read), *two.output],
        [*one.initializer, *two.initializer],
        value_info=[*one.value_info, *two.value_info],
    )
    functions = [*first.functions, *after.functions]
    model = helper.make_model(graph, opset_imports=first.opset_import, functions=functions)
    model.ir_version = max(first.ir_version, _IR)
    return model


def save_onnx(model: Any, folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``model.onnx``, checked and with its weights inside, and ``spec.json``, what a program must know to use it.

    What is told stands in the file's metadata too, text as it is, all else as JSON. Weights of more than two gigabytes,
    which one file cannot hold, stand in ``model.onnx.data`` beside it.

    Args:
        model: An ``onnx.ModelProto``.
        folder: Where to.
        about: Plain values, by name.
    """
    onnx = library("onnx", _ONNX)
    for name, value in about.items():
        entry = model.metadata_props.add()
        entry.key = name
        entry.value = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    path = folder / "model.onnx"
    onnx.save_model(
        model,
        path,
        save_as_external_data=sum(len(w.raw_data) for w in model.graph.initializer) > _LARGEST,
        location="model.onnx.data",
    )
    onnx.checker.check_model(path, full_check=True)
    text = json.dumps(about, indent=2, ensure_ascii=False)
    (folder / "spec.json").write_text(text + "\n", encoding="utf-8")
