"""Weights of torchvision's detectors."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from resdomains.core import TaskHead
from resdomains.interop import Loaded, Torchvision, load_state
from resdomains.interop.loading import refuse_misfits
from resdomains.interop.sources import LibraryWeights

from .fcos import FCOSHead, Rectified

if TYPE_CHECKING:
    from resdomains.training.spec import Spec

_BODY, _PYRAMID, _HEAD = "backbone.body.", "backbone.fpn.", "head."
_SHARED = ("weight", "bias")


class TorchvisionDetector(LibraryWeights):
    """Torchvision's FCOS: `fcos_resnet50_fpn`, `FCOS_ResNet50_FPN_Weights.COCO_V1`, or a file.

    For a ResNet-50 and an `FCOSHead` as it is, but with `Rectified` distances. With a `SpreadGrid` the boxes are
    torchvision's at every picture size; with a `StrideGrid` where 128 divides height and width.

    Outputs are filled whole where their number is that of the classes, or one more: torchvision counts the background
    as class 0, which FCOS does not learn. COCO's 91 outputs are filled by the names of the classes; others begin anew.

    Args:
        source: A name that torchvision knows, or a file that holds a `state_dict`.
    """

    library = "torchvision"

    def fetch(self, name: str) -> Mapping[str, Tensor]:
        return Torchvision(name).fetch(name)

    def load(
        self, network: nn.Module, head: TaskHead | None = None, spec: "Spec | None" = None
    ) -> Loaded:
        """Fill a network, and a head but for the outputs of classes that the weights do not know.

        Raises:
            ValueError: If they do not fit; nothing has been changed then.
        """
        state = {key.removeprefix("module."): value for key, value in self.state().items()}
        body = _below(_BODY, state)
        rest = {key: value for key, value in state.items() if not key.startswith(_BODY)}
        if head is None:
            loaded = load_state(network, body, self.library)
            return Loaded(loaded.filled, tuple(rest), "no head was given")
        if not isinstance(head, FCOSHead):
            raise ValueError(
                f"weights of torchvision's FCOS are for an FCOSHead, not for {type(head).__name__}"
            )
        if not isinstance(head.distances, Rectified):
            raise ValueError(
                "weights of torchvision's FCOS were trained with Rectified distances, not with "
                f"{type(head.distances).__name__}; set --model.head.distances Rectified"
            )
        given = _named(head, rest)
        own = head.state_dict()
        pairs, reason = _outputs(len(given.get("classify.bias", ())), head, spec)
        refuse_misfits(
            self.source,
            head,
            [key for key in own if key not in given],
            [key for key in given if key not in own],
            [
                f"{key}: expected {tuple(own[key].shape)}, got {tuple(value.shape)}"
                for key, value in given.items()
                if key in own and _width(head, key, own[key]) != _width(head, key, value)
            ],
        )
        loaded = load_state(network, body, self.library)
        with torch.no_grad():
            for key, value in given.items():
                if key not in head.rows:
                    own[key].copy_(value)
                elif pairs:
                    to, origin = torch.tensor(pairs).T
                    own[key][to] = value[origin].to(own[key])
        filled = [key for key in given if pairs or key not in head.rows]
        return Loaded(
            (*loaded.filled, *(f"head.{key}" for key in filled)),
            () if pairs else tuple(key for key in rest if ".cls_logits." in key),
            reason,
        )


def _named(head: FCOSHead, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's tensors under our names; what has none keeps its own."""
    pyramid = head.pyramid
    names: dict[str, tuple[str, ...]] = {}
    for i in range(len(pyramid.laterals)):
        names[f"pyramid.laterals.{i}.conv"] = (f"{_PYRAMID}inner_blocks.{i}.0",)
        names[f"pyramid.outputs.{i}.conv"] = (f"{_PYRAMID}layer_blocks.{i}.0",)
    for i in range(len(head.strides) - len(head.maps)):
        names[f"pyramid.coarser.convs.{i}"] = (f"{_PYRAMID}extra_blocks.p{6 + i}",)
    for tower in ("classification", "regression"):
        convs = sum(name.startswith("conv") for name, _ in getattr(head, tower).named_children())
        for i in range(convs):
            theirs = f"{_HEAD}{tower}_head.conv."
            names[f"{tower}.conv{i + 1}"] = (f"{theirs}{3 * i}",)
            names[f"{tower}.norm{i + 1}"] = (f"{theirs}{3 * i + 1}",)
    names["classify"] = (f"{_HEAD}classification_head.cls_logits",)
    of_boxes = f"{_HEAD}regression_head."
    names["locate"] = (f"{of_boxes}bbox_reg", f"{of_boxes}bbox_ctrness")
    named: dict[str, Tensor] = {}
    left = dict(state)
    for ours, parts in names.items():
        for last in _SHARED:
            keys = [f"{part}.{last}" for part in parts]
            if all(key in left for key in keys):
                named[f"{ours}.{last}"] = torch.cat([left.pop(key) for key in keys])
    return named | left


def _outputs(count: int, head: FCOSHead, spec: "Spec | None") -> tuple[list[tuple[int, int]], str]:
    """Return which of our outputs is which of theirs, and why not all are filled."""
    classes = head.classify.out_channels
    if count in (classes, classes + 1):
        return [(i, i + count - classes) for i in range(classes)], ""
    known = _coco()
    if spec is not None and count == len(known):
        names = spec.output_names
        pairs = [(i, known.index(name)) for i, name in enumerate(names) if name in known]
        fresh = [name for name in names if name not in known]
        return pairs, (
            f"{len(pairs)} of {len(names)} outputs are COCO's, the rest begin anew: {', '.join(fresh[:6])}"
            if fresh
            else ""
        )
    return [], f"the source has {count} classes, the head {classes}"


def _coco() -> list[str]:
    """Return what the outputs of torchvision's weights for COCO are called."""
    detection = importlib.import_module("torchvision.models.detection")
    return cast(list[str], detection.FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"])


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _width(head: FCOSHead, key: str, tensor: Tensor) -> torch.Size:
    return tensor.shape[1:] if key in head.rows else tensor.shape
