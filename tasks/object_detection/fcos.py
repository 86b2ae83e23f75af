"""FCOS: each position of a pyramid says what it lies in, and how far the sides of the box are.

Tian et al. 2019, https://arxiv.org/abs/1904.01355. Distances to the left, top, right and bottom side are in pixels of
the batch's pictures.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, generalized_box_iou_loss

from resdomains.core import (
    Chain,
    Conv,
    FeaturePyramid,
    Features,
    GroupNorm,
    Norm,
    ReLU,
    TaskHead,
)

from .assignment import Assignment, CenterSampling, Level
from .losses import ByCenterness, FocalLoss, Weighting, centerness, relative_entropy


class Found(NamedTuple):
    """What was found in a picture, the surest first: corners in pixels (n, 4), scores (n,), labels (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Dense(NamedTuple):
    """What a head says of every position, all levels one after another, finest first.

    Args:
        logits: (B, L, K), one a class.
        distances: (B, L, 4) to the left, top, right and bottom side, in pixels, at least 0, float32.
        centerness: (B, L) logits.
        points: (L, 2) x and y of the positions in pixels.
        strides: (L,) of their level, in pixels.
        levels: The maps that the positions come from.
    """

    logits: Tensor
    distances: Tensor
    centerness: Tensor
    points: Tensor
    strides: Tensor
    levels: tuple[Level, ...]

    def picture(self, place: int) -> "Dense":
        """Return what is said of one picture of the batch, as a batch of one."""
        one = slice(place, place + 1)
        return self._replace(
            logits=self.logits[one],
            distances=self.distances[one],
            centerness=self.centerness[one],
        )


class Losses(NamedTuple):
    """What is minimised, by name: sums over the batch's positions, and what each is divided by.

    In several processes the mean of a divisor over them makes the mean of their losses that of one process.

    Args:
        terms: Sums.
        divisors: At least 0; where one is 0, so is its term, or it counts as 1.
    """

    terms: dict[str, Tensor]
    divisors: dict[str, Tensor]

    def total(self, mean: Callable[[Tensor], Tensor] = lambda divisors: divisors) -> Tensor:
        """Return the sum of the terms, each over its divisor.

        Args:
            mean: Makes of the divisors, (M,), their mean over all processes.
        """
        divisors = mean(torch.stack([self.divisors[name] for name in self.terms]))
        return (torch.stack(list(self.terms.values())) / divisors.where(divisors > 0, 1.0)).sum()


class DetectionHead(TaskHead, ABC):
    """Maps a backbone's features to boxes.

    Built by a factory of the backbone's `out_channels`, its strides, and the number of classes.
    """

    @abstractmethod
    def forward(self, features: Features) -> Dense:
        """Say of every position what it lies in."""

    @abstractmethod
    def loss(self, dense: Dense, boxes: Tensor, labels: Tensor, owner: Tensor) -> Losses:
        """Compare with the objects of the batch, in float32.

        Args:
            dense: What `forward` said.
            boxes: (N, 4) corners in pixels of the batch's pictures; N may be 0.
            labels: (N,) class numbers.
            owner: (N,) place in the batch.
        """

    @abstractmethod
    def detect(self, dense: Dense, sizes: Tensor, threshold: float) -> list[Found]:
        """Return what is found in each picture.

        Args:
            dense: What `forward` said.
            sizes: (B, 2) heights and widths of the pictures in pixels; boxes are clipped to these.
            threshold: Only scores above it count.
        """


class Distances(nn.Module, ABC):
    """Maps what a convolution says to distances in strides, at least 0; built of the number of levels."""

    def __init__(self, levels: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, level: int) -> Tensor:
        """Map values of any shape, of one level."""


class Rectified(Distances):
    """max(x, 0), as torchvision has it; where x is below 0 nothing is learned."""

    def forward(self, x: Tensor, level: int) -> Tensor:
        return x.relu()


class Exponential(Distances):
    """exp(scale x) with a scale of each level that is learned, at first 1 (Tian et al. 2019).

    A step changes near and far sides by the same share, and every position learns from the first step on.
    """

    def __init__(self, levels: int) -> None:
        super().__init__(levels)
        self.scale = nn.Parameter(torch.ones(levels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        # A thousand strides are more than any picture has; an infinite distance would have no gradient.
        return (self.scale[level] * x).clamp(max=math.log(1000.0)).exp()


class Grid(ABC):
    """Where the positions of a map stand."""

    @abstractmethod
    def level(self, height: int, width: int, stride: int, picture: tuple[int, int]) -> Level:
        """Describe a map of this size and stride, of a batch of pictures of this height and width."""


class StrideGrid(Grid):
    """At multiples of the stride, where the centre of what they see is."""

    def level(self, height: int, width: int, stride: int, picture: tuple[int, int]) -> Level:
        return Level(height, width, stride, stride, stride)


class SpreadGrid(Grid):
    """Torchvision's: at multiples of the picture's size over the map's, rounded down.

    The same as `StrideGrid` where the stride divides the picture, and what torchvision's weights were trained with.
    """

    def level(self, height: int, width: int, stride: int, picture: tuple[int, int]) -> Level:
        return Level(height, width, stride, picture[0] // height, picture[1] // width)


class FCOSHead(DetectionHead):
    """FCOS (Tian et al. 2019).

    Two towers of convolutions see every level of a feature pyramid: one gives the logits of the classes, the other the
    distances to the sides and the centre-ness sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)). The score of a box
    is sqrt(sigmoid(class) sigmoid(centre-ness)). Losses are the focal loss over all positions, and over those that
    stand for an object 1 - GIoU and the cross-entropy of centre-ness.

    Args:
        out_channels: Of the backbone's maps.
        strides: Of the backbone's maps, in pixels.
        classes: How many there are.
        levels: Numbers of the pyramid's levels, each one more than the last; level l has a stride of 2^l pixels. Those
            that the backbone has are built of its maps, coarser ones by the pyramid. Small pictures need no 6 and 7.
        channels: Width of pyramid and towers.
        convs: Convolutions of a tower.
        pyramid: Built of the channels of the maps it reads, `channels`, and the number of coarser levels.
        norm: Of the towers; group norm over 8 channels a group, 32 groups of 256, if not given.
        distances: `Exponential` as the paper or `Rectified` as torchvision.
        grid: Where positions stand; at multiples of the stride if not given.
        assignment: Which positions stand for which object; `CenterSampling` if not given.
        weighting: How much each position's box counts in the loss; by its centre-ness if not given.
        prior: The probability that each class begins with at every position.
        box_weight: Of the loss of boxes.
        candidates: Boxes of each level that are compared with each other, the best ones.
        iou: Of two boxes of a class that overlap more than this, the surer one stays.
        detections: How many a picture has at most.

    Raises:
        ValueError: If a number is out of range, or the backbone has no map of the finest level.
    """

    rows = ("classify.weight", "classify.bias")

    def __init__(
        self,
        out_channels: Sequence[int],
        strides: Sequence[int],
        classes: int,
        levels: Sequence[int] = (3, 4, 5, 6, 7),
        channels: int = 256,
        convs: int = 4,
        pyramid: Callable[[Sequence[int], int, int], FeaturePyramid] = FeaturePyramid,
        norm: Callable[[int], Norm] | None = None,
        distances: Callable[[int], Distances] = Exponential,
        grid: Grid | None = None,
        assignment: Assignment | None = None,
        weighting: Weighting | None = None,
        prior: float = 0.01,
        box_weight: float = 1.0,
        candidates: int = 1000,
        iou: float = 0.6,
        detections: int = 100,
    ) -> None:
        super().__init__()
        for name, value in (
            ("classes", classes),
            ("channels", channels),
            ("candidates", candidates),
            ("detections", detections),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if convs < 0:
            raise ValueError(f"convs must be at least 0, got {convs}")
        if not 0 < prior < 1:
            raise ValueError(f"prior is a probability between 0 and 1, got {prior}")
        if not 0 <= iou <= 1:
            raise ValueError(f"iou must lie in [0, 1], got {iou}")
        if box_weight < 0:
            raise ValueError(f"box_weight must be at least 0, got {box_weight}")
        self.maps = _maps_of(levels, strides)
        self.strides = [2**level for level in levels]
        self.pyramid = pyramid(
            [out_channels[i] for i in self.maps], channels, len(levels) - len(self.maps)
        )
        self.classification = _tower(channels, convs, norm or _groups_of_eight)
        self.regression = _tower(channels, convs, norm or _groups_of_eight)
        self.classify = Conv(channels, classes, 3, bias=True)
        # One convolution for the four distances and the centre-ness: both read the same map.
        self.locate = Conv(channels, 5, 3, bias=True)
        for conv in (self.classify, self.locate):
            nn.init.normal_(conv.weight, std=0.01)
        # Nearly all positions are background: without this the first steps only learn that.
        nn.init.constant_(cast(Tensor, self.classify.bias), -math.log((1 - prior) / prior))
        self.distances = distances(len(levels))
        self.grid = grid or StrideGrid()
        self.assignment = assignment or CenterSampling()
        self.weighting = weighting or ByCenterness()
        self.focal = FocalLoss()
        self.box_weight = box_weight
        self.candidates, self.iou, self.detections = candidates, iou, detections

    def forward(self, features: Features) -> Dense:
        maps = self.pyramid([features.maps[i] for i in self.maps])
        height, width = features.maps[self.maps[-1]].shape[-2:]
        stride = self.strides[len(self.maps) - 1]
        picture = (height * stride, width * stride)
        levels: list[Level] = []
        logits: list[Tensor] = []
        distances: list[Tensor] = []
        centerness: list[Tensor] = []
        for number, x in enumerate(maps):
            located = _rows(self.locate(self.regression(x))).float()
            logits.append(_rows(self.classify(self.classification(x))))
            distances.append(self.distances(located[..., :4], number) * self.strides[number])
            centerness.append(located[..., 4])
            levels.append(self.grid.level(x.shape[-2], x.shape[-1], self.strides[number], picture))
        device = maps[0].device
        return Dense(
            torch.cat(logits, 1),
            torch.cat(distances, 1),
            torch.cat(centerness, 1),
            torch.cat([_points(level, device) for level in levels]),
            torch.cat([torch.full((v.height * v.width,), v.stride, device=device) for v in levels]),
            tuple(levels),
        )

    def loss(self, dense: Dense, boxes: Tensor, labels: Tensor, owner: Tensor) -> Losses:
        with torch.autocast(dense.logits.device.type, enabled=False):
            batch, count = dense.logits.shape[:2]
            position, row = self.assignment(boxes, owner, dense.levels, batch)
            points = dense.points[position % count]
            truth = boxes[row].float()
            sides = torch.cat((points - truth[:, :2], truth[:, 2:] - points), 1)
            centred = centerness(sides)
            predicted = _corners(points, dense.distances.flatten(0, 1)[position].float())
            overlap = generalized_box_iou_loss(predicted, truth)
            said = dense.centerness.flatten()[position].float()
            weight = self.weighting(centred)
            terms = {
                "classification": self.focal(dense.logits.flatten(0, 1), position, labels[row]),
                "boxes": self.box_weight * (weight * overlap).sum(),
                "centerness": relative_entropy(said, centred),
            }
            positives = torch.tensor(float(len(position)), device=boxes.device)
            return Losses(
                terms,
                {"classification": positives, "boxes": weight.sum(), "centerness": positives},
            )

    @torch.no_grad()
    def detect(self, dense: Dense, sizes: Tensor, threshold: float) -> list[Found]:
        with torch.autocast(dense.logits.device.type, enabled=False):
            centred = dense.centerness.float().sigmoid().unsqueeze(2)
            scores = (dense.logits.float().sigmoid() * centred).sqrt()
            return [
                self._found(scores[i], dense, dense.distances[i].float(), size, threshold)
                for i, size in enumerate(sizes)
            ]

    def _found(
        self, scores: Tensor, dense: Dense, distances: Tensor, size: Tensor, threshold: float
    ) -> Found:
        """What is found in one picture, of scores (L, K)."""
        classes = scores.shape[1]
        best, place = [], []
        first = 0
        for level in dense.levels:
            count = level.height * level.width
            own = scores[first : first + count].flatten()
            above = (own > threshold).nonzero().squeeze(1)
            value, index = own[above].topk(min(self.candidates, len(above)))
            best.append(value)
            place.append(above[index] + first * classes)
            first += count
        score, flat = torch.cat(best), torch.cat(place)
        position, label = flat // classes, flat % classes
        box = _corners(dense.points[position], distances[position])
        edge = size.flip(0).repeat(2).to(box)
        box = torch.minimum(box.clamp(min=0), edge)
        # A position beyond the picture has nothing left of its box.
        real = (box[:, 2:] > box[:, :2]).all(1)
        box, score, label = box[real], score[real], label[real]
        kept = batched_nms(box, score, label, self.iou)[: self.detections]
        return Found(box[kept], score[kept], label[kept])


def _corners(points: Tensor, distances: Tensor) -> Tensor:
    return torch.cat((points - distances[:, :2], points + distances[:, 2:]), 1)


def _rows(x: Tensor) -> Tensor:
    """(B, K, H, W) as (B, H * W, K), without a copy if channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _points(level: Level, device: torch.device) -> Tensor:
    y = torch.arange(level.height, device=device, dtype=torch.float32) * level.down
    x = torch.arange(level.width, device=device, dtype=torch.float32) * level.across
    size = (level.height, level.width)
    return torch.stack((x.expand(size), y[:, None].expand(size)), 2).flatten(0, 1)


def _groups_of_eight(channels: int) -> Norm:
    return GroupNorm(channels, channels_per_group=8)


def _tower(channels: int, convs: int, norm: Callable[[int], Norm]) -> Chain:
    parts: dict[str, nn.Module] = {}
    for i in range(1, convs + 1):
        # With a bias, as torchvision: a group's mean takes only the mean of its channels' biases away.
        conv = Conv(channels, channels, 3, bias=True)
        parts |= {f"conv{i}": conv, f"norm{i}": norm(channels), f"act{i}": ReLU()}
    return Chain(**parts)


def _maps_of(levels: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return which maps of the backbone the levels are built of, finest first."""
    levels = list(levels)
    if not levels or levels != list(range(levels[0], levels[0] + len(levels))):
        raise ValueError(
            f"levels must be numbers one after another, such as [3, 4, 5], got {levels}"
        )
    maps: list[int] = []
    for level in levels:
        own = [i for i, stride in enumerate(strides) if stride == 2**level]
        if not own:
            break
        maps.append(own[-1])
    if not maps:
        raise ValueError(
            f"levels begin at {levels[0]}, a stride of {2 ** levels[0]} pixels, but the backbone's maps have "
            f"strides {list(strides)}; begin at the level of one of these"
        )
    if maps[-1] != len(strides) - 1:
        raise ValueError(
            f"levels {levels} do not use the backbone's map of stride {strides[-1]}, whose stage would learn nothing; "
            f"its strides are {list(strides)}: go on to its deepest map, or take a backbone of fewer stages"
        )
    return maps
