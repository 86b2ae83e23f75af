"""Object detection: a residual network, a pyramid of its maps, and boxes read off at every position."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric

from resdomains.core import Features
from resdomains.interop import Weights
from resdomains.schema import Split
from resdomains.training import BadSample, Optimization, StepResult, Task
from resdomains.training.figures import Box, Boxed
from resdomains.vision import denormalise, read_picture, read_pictures, resize

from .annotations import COLUMNS
from .data import DetectionData, Pictures, padded, prepared
from .fcos import Dense, DetectionHead, FCOSHead, Found
from .metrics import build_metrics, tables
from .spec import DetectionSpec
from .tiles import cut, merge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EVALUATED = 0.05  # the score from which detections count in evaluation, as in Detectron2
_UNSURE = 0.3  # the score from which detections are reported where no validation has chosen one
_SHOWN = 6  # validation pictures that are drawn
_SAMPLES = 12  # training pictures that are drawn
_TOGETHER = 8  # tiles that are computed at once
_NAMES = {"val": "validation", "test": "test"}
NMS = ("inside", "outside")
_LABEL, _CROWD = COLUMNS.index("label"), COLUMNS.index("crowd")


class ObjectDetection(Task):
    """Find the objects in a picture: a box, a class and a score each.

    The score is COCO's average precision: the mean over classes, and over IoU 0.50, 0.55, ... 0.95, of the precision at
    101 recalls. Guessing boxes has none.

    The loss is that of the head, summed over the positions of all pictures and divided by the number (or the weight) of
    those that stand for an object, in all processes together.

    Args:
        backbone: A network over (B, C, H, W) that returns `Features`.
        spec: What a detection data module says of its pictures.
        head: What maps the backbone's features to boxes; called with their channels, their strides and the number of
            classes.
        threshold: The least score of what `predict` reports, in [0, 1]; that of the highest F1 on the validation
            split if not given.
        tile: Pixels; larger pictures are predicted tile by tile, each of this height and width. 0: as a whole.
        overlap: The share of a tile that the next one repeats, in [0, 1).
        weights: Weights to begin with, of another library or an earlier run; where classes differ the head's are new.
        optimization: Optimizer, rate and schedule.

    Raises:
        ValueError: If spec and backbone do not fit each other, or a number is out of range.
    """

    predict_options: ClassVar[Mapping[str, Any]] = {
        "threshold": float,
        "tile": int,
        "overlap": float,
    }
    exports: ClassVar[Sequence[str]] = ("onnx",)
    export_options: ClassVar[Mapping[str, Any]] = {"threshold": float, "nms": str}

    def __init__(
        self,
        *,
        backbone: nn.Module,
        spec: dict[str, Any],
        head: Callable[[Sequence[int], Sequence[int], int], DetectionHead] = FCOSHead,
        threshold: float | None = None,
        tile: int = 0,
        overlap: float = 0.2,
        weights: Weights | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        self.detection_spec = DetectionSpec.of(spec)
        channels = getattr(backbone, "in_channels", None)
        if channels is not None and channels != self.detection_spec.channels:
            raise ValueError(
                f"backbone takes pictures of {channels} channels, the data have {self.detection_spec.channels}; "
                f"set --model.backbone.in_channels {self.detection_spec.channels}, or --data.channels {channels}"
            )
        self.check_reads(
            torch.zeros(1, self.detection_spec.channels, 1, 1),
            "pictures",
            "take a network over pictures, such as ResNet2d or resnet50",
        )
        out_channels, strides = (
            getattr(backbone, name, None) for name in ("out_channels", "stride")
        )
        if not out_channels or not strides:
            raise TypeError(
                f"backbone {type(backbone).__name__} states no out_channels and stride; "
                "take a network over pictures of resdomains.core"
            )
        self._threshold: float | None = None
        if threshold is not None:
            self.threshold = threshold
        self.tile, self.overlap = tile, overlap
        self.nms = NMS[0]
        self.head = head(out_channels, strides, len(self.detection_spec.classes))
        self.begin_with(weights, self.head, self.detection_spec)
        self.to(memory_format=torch.channels_last)
        self._kept: dict[int, Found] = {}
        self.build_all_metrics()

    @property
    def threshold(self) -> float:
        """The least score of what is reported, in [0, 1]; by default that of the highest F1 on the validation split."""
        if self._threshold is not None:
            return self._threshold
        return self.chosen.get("threshold", _UNSURE)

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"threshold is a score and must lie in [0, 1], got {value}")
        self._threshold = value

    @property
    def nms(self) -> str:
        """Where an exported network drops boxes that overlap surer ones: inside, or outside by whoever runs it."""
        return self._nms

    @nms.setter
    def nms(self, value: str) -> None:
        if value not in NMS:
            raise ValueError(f"nms must be one of {', '.join(NMS)}, got {value!r}")
        self._nms = value

    @property
    def tile(self) -> int:
        """Height and width of a tile, in pixels; 0 predicts every picture as a whole."""
        return self._tile

    @tile.setter
    def tile(self, value: int) -> None:
        if value < 0:
            raise ValueError(f"tile must be at least 0 pixels, got {value}; 0 takes pictures whole")
        self._tile = value

    @property
    def overlap(self) -> float:
        """The share of a tile that the next one repeats."""
        return self._overlap

    @overlap.setter
    def overlap(self, value: float) -> None:
        if not 0.0 <= value < 1.0:
            raise ValueError(f"overlap is a share of a tile and must lie in [0, 1), got {value}")
        self._overlap = value

    def forward(self, images: Tensor) -> Dense:
        """Return what the head says of every position of (B, C, H, W) normalised pictures."""
        features: Features = self.backbone(images)
        return cast(Dense, self.head(features))

    def build_metrics(self) -> dict[str, Metric]:
        """Return COCO's metrics, and what is drawn of them."""
        return build_metrics(len(self.detection_spec.classes))

    def step(self, batch: Any, split: Split) -> StepResult:
        """Compute the loss of a batch; in evaluation picture by picture, and measure what is found."""
        if split != "train":
            return self._evaluated(batch, split)
        dense = self(batch["image"])
        losses = self.head.loss(dense, batch["boxes"], batch["labels"], batch["owner"])
        return StepResult(losses.total(_mean_over_processes), len(batch["image"]))

    def _evaluated(self, batch: Any, split: Split) -> StepResult:
        count = len(batch["image"])
        alone = batch["truth"][:, _CROWD] == 0
        losses: list[Tensor] = []
        found: dict[int, Found] = {}
        for places, images in self._alike(batch["image"], batch["sizes"]):
            dense = self(images)
            sizes, original = batch["sizes"][places], batch["original"][places]
            founds = self._found(dense, sizes, original, _EVALUATED)
            found.update(zip(places, founds, strict=True))
            for row, place in enumerate(places):
                own = alone & (batch["owner"] == place)
                boxes, labels = batch["boxes"][own], batch["labels"][own]
                loss = self.head.loss(dense.picture(row), boxes, labels, torch.zeros_like(labels))
                losses.append(loss.total())
        in_order = [found[place] for place in range(count)]
        for metric in self.metrics_of(split).values():
            metric.update(batch["index"], in_order, batch["truth"], batch["owner"])
        for index, own_found in zip(batch["index"].tolist(), in_order, strict=True):
            if len(self._kept) < _SHOWN:
                self._kept[index] = own_found
        return StepResult(torch.stack(losses).mean(), count)

    def _alike(self, images: Tensor, sizes: Tensor) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the places of pictures that alone would be padded alike, and the pictures, padded just so.

        What is behind a picture counts in group norm and near the edge, and so would its batch mates.
        """
        fitting = self.detection_spec.fitting
        alike: dict[tuple[int, int], list[int]] = {}
        for place, size in enumerate(sizes.tolist()):
            alike.setdefault(fitting.canvas(*size), []).append(place)
        for (height, width), places in alike.items():
            own = images if len(places) == len(images) else images[places]
            yield places, own[:, :, :height, :width]

    def _found(
        self, dense: Dense, sizes: Tensor, original: Tensor, threshold: float
    ) -> list[Found]:
        """Return what the network sees, in pixels of the pictures as they were read."""
        found = self.head.detect(dense, sizes, threshold)
        ratios = (original / sizes).flip(1).repeat(1, 2).float()
        return [
            own._replace(boxes=own.boxes * ratio) for own, ratio in zip(found, ratios, strict=True)
        ]

    def on_validation_epoch_start(self) -> None:
        """Forget which pictures were drawn."""
        self._kept = {}

    def on_test_epoch_start(self) -> None:
        """Forget which pictures were drawn."""
        self._kept = {}

    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        """Return COCO's average precision; 0 where there is no object to find."""
        return results["ap"].nan_to_num(0.0)

    @staticmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        """Return 0: boxes at random places hit nothing."""
        return 0.0

    def choose(self, results: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the threshold of the highest F1, if there is an object to find."""
        threshold = results["threshold"]
        return {} if threshold.isnan() else {"threshold": float(threshold)}

    def examples(self, split: Split, results: Mapping[str, Tensor]) -> list[str]:
        """Return the average precision of the classes."""
        rows = tables(results, self.detection_spec.classes)["classes"]
        return ["AP  " + "  ".join(f"{row['class']} {row['ap']:.3f}" for row in rows)]

    def tables(
        self, split: Split, results: Mapping[str, Tensor]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return how well each class is found, and what is wrong in each picture."""
        return tables(
            results,
            self.detection_spec.classes,
            lambda index: str(self.describe(split, index).get("source", f"sample {index}")),
        )

    def figures(self, split: Split, results: Mapping[str, Tensor]) -> "dict[str, Figure]":
        """Return precision over recall, F1 over the threshold, and the confusion of classes."""
        # Imported here: matplotlib takes half a second, for which only a figure should wait.
        from . import figures

        title = (
            f"{_NAMES.get(split, split)}: AP {float(results['ap']):.3f}, "
            f"AP50 {float(results['ap50']):.3f}, AP75 {float(results['ap75']):.3f}"
        )
        return figures.drawn(results, self.detection_spec.classes, title)

    def snapshots(self, split: Split, results: Mapping[str, Tensor]) -> dict[str, list[Boxed]]:
        """Return the first pictures of a split, with what there is and what was found, side by side."""
        from .drawing import side_by_side

        data, classes = self.data, self.detection_spec.classes
        if not isinstance(data, DetectionData):
            return {}
        pictures = data.ready_dataset(split)
        assert isinstance(pictures, Pictures)
        shown = []
        for index, own in self._kept.items():
            pixels, rows = pictures.annotated(index)
            truth = Found(
                torch.from_numpy(rows[:, :4]).float(),
                torch.ones(len(rows)),
                torch.from_numpy(rows[:, _LABEL]).long(),
            )
            sure = own.scores >= self.threshold
            found = Found(*(part[sure].cpu() for part in own))
            shown.append(
                Boxed(
                    drawn=side_by_side(pixels, truth, found, classes),
                    pixels=pixels,
                    layers={"truth": _layer(truth, False), "found": _layer(found, True)},
                    classes=classes,
                )
            )
        return {"pictures": shown}

    def samples(self, batch: Any) -> Tensor:
        """Return training pictures as the network gets them, with their boxes, (3, H, W) uint8."""
        from .drawing import contact_sheet, draw

        count = min(len(batch["image"]), _SAMPLES)
        pictures = denormalise(batch["image"][:count], self.detection_spec).mul(255).round().byte()
        drawn = []
        for place, (picture, (height, width)) in enumerate(
            zip(pictures.cpu(), batch["sizes"].tolist(), strict=False)
        ):
            own = (batch["owner"] == place).cpu()
            boxes, labels = batch["boxes"].cpu()[own], batch["labels"].cpu()[own]
            whole = picture[:, :height, :width]
            drawn.append(draw(whole, boxes, labels, None, self.detection_spec.classes))
        return contact_sheet(drawn)

    def read(self, inputs: Sequence[str]) -> Iterator[dict[str, Any] | BadSample]:
        """Yield the pictures in files and folders; a `BadSample` where one is broken.

        An item is `{"tiles": [(C, h, w) uint8 at the network's size], "places": [(top, left, height, width) of each in
        the picture, in pixels], "original": (height, width), "source": path}`; a picture that is not tiled is one tile.
        """
        for found in read_pictures(inputs, self.detection_spec.channels):
            yield found if isinstance(found, BadSample) else self._item(*found)

    def _item(self, source: str, picture: Tensor) -> dict[str, Any]:
        height, width = picture.shape[-2:]
        places = (
            cut(height, width, self.tile, self.overlap) if self.tile else [(0, 0, height, width)]
        )
        fitting = self.detection_spec.fitting
        tiles = [
            resize(
                picture[:, top : top + tall, left : left + wide],
                *fitting.scaled(tall, wide),
                "bilinear",
            )
            for top, left, tall, wide in places
        ]
        return {"tiles": tiles, "places": places, "original": (height, width), "source": source}

    def size(self, item: Any) -> int:
        """Return a picture's pixels at the network's size, over all its tiles."""
        return sum(tile[0].numel() for tile in item["tiles"])

    def collate(self, items: Sequence[Any]) -> dict[str, Any]:
        """Make a batch of what `read` yields."""
        return {name: [item[name] for item in items] for name in items[0]}

    @torch.no_grad()
    def predict(self, batch: Any) -> list[dict[str, Any]]:
        """Return a record for each picture.

        `source`, `width`, `height`, and `objects`, the surest first, each with `label`, `score` and `box`: the corners
        x1, y1, x2, y2 in pixels.
        """
        if "tiles" in batch:
            founds = self._tiled(batch)
            sources, originals = batch["source"], batch["original"]
        else:
            founds = self._seen(batch["image"], batch["sizes"], batch["original"])
            sources = [f"sample {index}" for index in batch["index"].tolist()]
            originals = batch["original"].tolist()
        return [
            {
                "source": str(source),
                "width": width,
                "height": height,
                "objects": self._named(found),
            }
            for source, (height, width), found in zip(sources, originals, founds, strict=True)
        ]

    def _named(self, found: Found) -> list[dict[str, Any]]:
        classes = self.detection_spec.classes
        rows = zip(
            found.labels.tolist(), found.scores.tolist(), found.boxes.double().tolist(), strict=True
        )
        return [
            {
                "label": classes[label],
                "score": round(score, 4),
                "box": [round(corner, 2) for corner in box],
            }
            for label, score, box in rows
        ]

    def _seen(self, images: Tensor, sizes: Tensor, original: Tensor) -> list[Found]:
        """Return what `predict` reports of normalised pictures, in pixels of the pictures as they were read."""
        found: dict[int, Found] = {}
        for places, own in self._alike(images, sizes):
            founds = self._found(self(own), sizes[places], original[places], self.threshold)
            found.update(zip(places, founds, strict=True))
        return [found[place] for place in range(len(images))]

    def _tiled(self, batch: Mapping[str, Any]) -> list[Found]:
        """Return what is found in each picture, whose tiles are computed a few at a time."""
        tiles = [tile for own in batch["tiles"] for tile in own]
        places = [place for own in batch["places"] for place in own]
        found: list[Found] = []
        for begin in range(0, len(tiles), _TOGETHER):
            some = padded(tiles[begin : begin + _TOGETHER], self.detection_spec.fitting)
            sizes = some["sizes"].to(self.device)
            images = prepared(some["image"].to(self.device), sizes, self.detection_spec)
            original = torch.tensor([place[2:] for place in places[begin : begin + _TOGETHER]])
            found += self._seen(images, sizes, original.to(self.device))
        merged, first = [], 0
        for own in batch["places"]:
            of_picture = found[first : first + len(own)]
            merged.append(of_picture[0] if len(own) == 1 else merge(of_picture, own))
            first += len(own)
        return merged

    def row(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return where a picture stands and how many objects of each class it has."""
        counts = Counter(found["label"] for found in record["objects"])
        said = ", ".join(f"{counts[n]} {n}" for n in self.detection_spec.classes if counts[n])
        return {"source": record["source"], "found": said or "nothing"}

    def formats(self) -> dict[str, Callable[[Sequence[Mapping[str, Any]]], str]]:
        """Return `coco`: the JSON list of detections that COCO's tools read.

        Pictures are numbered from 1 in the order of the records, and named: COCO's numbers of them are not known.
        """
        return {"coco": self._as_coco}

    def _as_coco(self, records: Sequence[Mapping[str, Any]]) -> str:
        spec = self.detection_spec
        category = dict(zip(spec.classes, spec.category_ids, strict=True))
        rows = []
        for number, record in enumerate(records, 1):
            for found in record["objects"]:
                x1, y1, x2, y2 = found["box"]
                rows.append(
                    {
                        "image_id": number,
                        "file_name": record["source"],
                        "category_id": category[found["label"]],
                        "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                        "score": found["score"],
                    }
                )
        return json.dumps(rows, ensure_ascii=False)

    def export(self, folder: Path, format: str) -> str:
        """Write the network for another library into an empty folder, and return in words what was written.

        Args:
            folder: Where to.
            format: `onnx`: pixels in, boxes out; `nms` says whether overlapping ones are dropped inside.

        Raises:
            ValueError: If the format cannot express the head.
        """
        # Imported here: few runs export.
        from .exporting import write_onnx

        return write_onnx(
            self.backbone, self.head, self.detection_spec, folder, self.nms, self.threshold
        )

    def draw(self, record: Mapping[str, Any]) -> Tensor:
        """Return a predicted picture with its boxes, (3, H, W) uint8.

        Raises:
            BadSample: If the picture can no longer be read.
        """
        from .drawing import draw

        classes, objects = self.detection_spec.classes, record["objects"]
        picture = read_picture(record["source"], 3)
        boxes = torch.tensor([found["box"] for found in objects]).view(-1, 4)
        labels = torch.tensor([classes.index(found["label"]) for found in objects]).long()
        scores = torch.tensor([found["score"] for found in objects])
        return draw(picture, boxes, labels, scores, classes)


def _layer(found: Found, scored: bool) -> list[Box]:
    rows = zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    return [Box(tuple(box), label, score if scored else None) for box, label, score in rows]


def _mean_over_processes(values: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
