"""A detector as ONNX computes it: pixels of any size in, boxes out.

The network itself is what torch exports. Around it stand graphs of ONNX's own operators: before it, normalisation and
padding; after it, clipping to the picture and, if wanted, non-maximum suppression, which torch cannot export for
several pictures at once.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from resdomains.core import Features
from resdomains.interop import joined, onnx_graph, onnx_text, save_onnx

from .fcos import FCOSHead
from .sizes import MULTIPLE
from .spec import DetectionSpec


class _Dense(nn.Module):
    """Maps normalised pictures (B, C, H, W) to the box of every position (B, L, 4) and its scores (B, L, K)."""

    def __init__(self, backbone: nn.Module, head: FCOSHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, padded: Tensor) -> tuple[Tensor, Tensor]:
        features: Features = self.backbone(padded)
        dense = self.head(features)
        scores = (dense.logits.sigmoid() * dense.centerness.sigmoid().unsqueeze(2)).sqrt()
        near, far = dense.distances[..., :2], dense.distances[..., 2:]
        return torch.cat((dense.points - near, dense.points + far), 2), scores


def write_onnx(
    backbone: nn.Module,
    head: nn.Module,
    spec: DetectionSpec,
    folder: Path,
    nms: str,
    threshold: float,
) -> str:
    """Write the network as ONNX in a folder, and return in words what was written.

    The head's limit of `candidates` a level is left out: more boxes are compared where more reach the threshold.

    Args:
        backbone: A network over (B, C, H, W) that returns `Features`.
        head: What maps them to boxes.
        spec: The description of the data.
        folder: Where to.
        nms: `inside` or `outside`: where boxes that overlap surer ones of their class are dropped.
        threshold: The least score of a box, with NMS inside.

    Raises:
        ValueError: If the head is no `FCOSHead`.
    """
    if not isinstance(head, FCOSHead):
        raise ValueError(f"the head {type(head).__name__} has no form in ONNX, only FCOSHead has")
    # No map of the example may have a side of 1, or two equal sides: the exporter would take that for granted.
    side = max(MULTIPLE, *head.strides)
    example = torch.zeros(2, spec.channels, 2 * side, 3 * side)
    dense = onnx_graph(
        _Dense(backbone, head),
        {"padded": example},
        ["dense_boxes", "dense_scores"],
        {"padded": {0: Dim("batch"), 2: MULTIPLE * Dim("rows"), 3: MULTIPLE * Dim("columns")}},
    )
    model = joined(joined(_before(spec), dense), _clipped(spec, "all_" if nms == "inside" else ""))
    if nms == "inside":
        model = joined(model, _suppressed(head, threshold))
    meaning = _SUPPRESSED if nms == "inside" else _ALL
    about: dict[str, Any] = {
        "task": "object_detection",
        "input": f"images: uint8 (batch, {spec.channels}, height, width), "
        f"{'grey' if spec.channels == 1 else 'red, green, blue'}, resized as spec says, not normalised, not padded",
        "output": meaning,
        "classes": spec.classes,
        "spec": spec.plain(),
    }
    if nms == "inside":
        about |= {"threshold": threshold, "iou": head.iou, "detections": head.detections}
    save_onnx(model, folder, about)
    return (
        f"model.onnx: uint8 pixels (batch, {spec.channels}, height, width) to boxes of {len(spec.classes)} classes, "
        f"non-maximum suppression {nms}"
    )


_SUPPRESSED = (
    "for each object found, picture by picture and the surest first: boxes float32 (found, 4), x1, y1, x2, y2 in "
    "pixels; scores float32 (found,); labels int64 (found,), places in the classes; pictures int64 (found,), places in "
    "the batch"
)
_ALL = (
    "for each position: boxes float32 (batch, positions, 4), x1, y1, x2, y2 in pixels; scores float32 "
    "(batch, positions, classes)"
)


def _before(spec: DetectionSpec) -> Any:
    """Normalise, then pad with zeros below and to the right, to what the network sees in evaluation."""
    std, mean = torch.tensor(spec.std), torch.tensor(spec.mean)
    channels = spec.channels
    return onnx_text(f"""
        before (uint8[batch, {channels}, height, width] images)
            => (float[batch, {channels}, rows, columns] padded)
        <
            float[{channels}, 1, 1] scale = {_numbers((1.0 / (255.0 * std)).tolist())},
            float[{channels}, 1, 1] shift = {_numbers((-mean / std).tolist())},
            int64[2] multiple = {_numbers([MULTIPLE] * 2)},
            int64[2] rest = {_numbers([MULTIPLE - 1] * 2)},
            int64[2] least = {_numbers(spec.fitting.canvas(1, 1))},
            int64[2] nothing = {{0, 0}},
            int64[2] sides = {{2, 3}}
        > {{
            pixels = Cast <to = 1> (images)
            scaled = Mul (pixels, scale)
            normalised = Add (scaled, shift)
            size = Shape <start = 2> (images)
            beyond = Add (size, rest)
            times = Div (beyond, multiple)
            whole = Mul (times, multiple)
            wanted = Max (whole, least)
            behind = Sub (wanted, size)
            pads = Concat <axis = 0> (nothing, behind)
            padded = Pad (normalised, pads, , sides)
        }}""")


def _clipped(spec: DetectionSpec, name: str) -> Any:
    """Clip boxes to the picture; those of which nothing is left have a score of 0.

    Args:
        spec: The description of the data.
        name: What the names of the outputs begin with.
    """
    return onnx_text(f"""
        clip (uint8[batch, {spec.channels}, height, width] images,
              float[batch, positions, 4] dense_boxes, float[batch, positions, classes] dense_scores)
            => (float[batch, positions, 4] {name}boxes, float[batch, positions, classes] {name}scores)
        <float zero = {{0}}, int64[4] flipped = {{1, 0, 1, 0}}, int64[1] last = {{2}}> {{
            size = Shape <start = 2> (images)
            pixels = Cast <to = 1> (size)
            edge = Gather (pixels, flipped)
            inner = Max (dense_boxes, zero)
            {name}boxes = Min (inner, edge)
            upper, lower = Split <axis = 2, num_outputs = 2> ({name}boxes)
            spans = Greater (lower, upper)
            ones = Cast <to = 1> (spans)
            real = ReduceMin <keepdims = 1> (ones, last)
            {name}scores = Mul (dense_scores, real)
        }}""")


def _suppressed(head: FCOSHead, threshold: float) -> Any:
    """Drop boxes that overlap a surer one of their class, and keep the best of each picture.

    Boxes are ordered by their score less twice their picture's place, so that pictures follow each other.
    """
    return onnx_text(f"""
        suppress (float[batch, positions, 4] all_boxes, float[batch, positions, classes] all_scores)
            => (float[found, 4] boxes, float[found] scores,
                int64[found] labels, int64[found] pictures)
        <
            int64[1] most = {{{head.detections}}}, float[1] iou = {{{float(head.iou)!r}}},
            float[1] threshold = {{{float(threshold)!r}}},
            int64 zero = {{0}}, int64 one = {{1}}, int64[1] first = {{0}},
            int64[1] second = {{1}}, int64[2] ends = {{0, 2}}, double twice = {{2}}
        > {{
            by_class = Transpose <perm = [0, 2, 1]> (all_scores)
            chosen = NonMaxSuppression (all_boxes, by_class, most, iou, threshold)
            chosen_scores = GatherND (by_class, chosen)
            at = Gather <axis = 1> (chosen, ends)
            chosen_boxes = GatherND (all_boxes, at)
            chosen_pictures = Gather <axis = 1> (chosen, zero)
            chosen_labels = Gather <axis = 1> (chosen, one)

            sure = Cast <to = 11> (chosen_scores)
            place = Cast <to = 11> (chosen_pictures)
            later = Mul (place, twice)
            order_by = Sub (sure, later)
            count = Shape (order_by)
            ordered, order = TopK (order_by, count)
            own = Gather (chosen_pictures, order)

            shape = Shape (all_scores)
            batch = Gather (shape, zero)
            all = Range (zero, batch, one)
            column = Unsqueeze (own, second)
            is_of = Equal (column, all)
            of = Cast <to = 7> (is_of)
            counts = ReduceSum <keepdims = 0> (of, first)
            begins = CumSum <exclusive = 1> (counts, zero)
            begin = Gather (begins, own)
            scalar = Squeeze (count, first)
            number = Range (zero, scalar, one)
            rank = Sub (number, begin)
            best = Less (rank, most)
            kept = Compress <axis = 0> (order, best)

            boxes = Gather (chosen_boxes, kept)
            scores = Gather (chosen_scores, kept)
            labels = Gather (chosen_labels, kept)
            pictures = Gather (chosen_pictures, kept)
        }}""")


def _numbers(values: Iterable[float]) -> str:
    return "{" + ", ".join(map(repr, values)) + "}"
