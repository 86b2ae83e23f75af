"""Finding small objects in large pictures, tile by tile (Akyon et al. 2022)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from .annotations import Rows
from .fcos import Found

Place = tuple[int, int, int, int]
"""Top, left, height and width of a tile in pixels of the picture."""

_MARGIN = 1.0  # pixels: a box that ends so near to where a tile is cut may go on behind it


def cut(height: int, width: int, tile: int, overlap: float) -> list[Place]:
    """Return the tiles of a picture, row by row.

    Every pixel is in a tile, all tiles have one size, and neighbours have at least `overlap` of it in common. A side
    no longer than a tile is not cut.

    Args:
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        tile: Largest height and width of a tile, in pixels.
        overlap: Share of a tile, from 0 to below 1. Objects smaller than that are seen whole in one tile at least.

    Raises:
        ValueError: If tile or overlap cannot be used.
    """
    if tile < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {tile}")
    if not 0.0 <= overlap < 1.0:
        raise ValueError(
            f"overlap must be a share of the tile from 0 to below 1, got {overlap}; 0.25 is usual"
        )
    common = min(round(tile * overlap), tile - 1)
    return [
        (top, left, min(tile, height), min(tile, width))
        for top in _starts(height, tile, common)
        for left in _starts(width, tile, common)
    ]


def _starts(length: int, tile: int, common: int) -> list[int]:
    if length <= tile:
        return [0]
    steps = -(-(length - tile) // (tile - common))
    return [i * (length - tile) // steps for i in range(steps + 1)]


def merge(founds: Sequence[Found], places: Sequence[Place], iou: float = 0.6) -> Found:
    """Return what is found in a picture from what is found in its tiles, each object once.

    Two detections of a class from different tiles are one object if, within what both tiles see, their boxes overlap
    by at least `iou`; each has at most one partner in another tile, so objects that one tile tells apart stay apart.
    Of a box that one tile sees whole and another cut, the whole one is kept; of two whole ones the surer; two that are
    cut become the box around both. At last, pieces that lie in a box of their class are left out.

    Args:
        founds: Of each tile, in pixels of the tile.
        places: Where the tiles lie, as `cut` returns them.
        iou: Intersection over union; for pieces, the share of the piece that lies in the other box.

    Returns:
        The surest first, in pixels of the picture.
    """
    height, width = (max(p[axis] + p[axis + 2] for p in places) for axis in (0, 1))
    picture = np.array([0.0, 0.0, width, height])
    kept = _Objects.none()
    for found, (top, left, tall, wide) in zip(founds, places, strict=True):
        tile = np.array([left, top, left + wide, top + tall], np.float64)
        boxes = found.boxes.double().cpu().numpy() + np.array([left, top, left, top])
        known = np.tile(tile, (len(boxes), 1))
        new = _Objects(
            boxes,
            found.scores.double().cpu().numpy(),
            found.labels.cpu().numpy(),
            known,
        )
        new.known[~new.pieces(picture)] = picture
        kept = _joined(kept, new, tile, picture, iou)
    kept = kept.some(~_inside(kept, kept.pieces(picture), iou))
    kept = kept.some(np.argsort(-kept.scores, kind="stable"))
    like = founds[0]
    return Found(
        torch.from_numpy(kept.boxes).to(like.boxes),
        torch.from_numpy(kept.scores).to(like.scores),
        torch.from_numpy(kept.labels).to(like.labels),
    )


class _Objects:
    """Objects in pixels of the picture.

    Args:
        boxes: (n, 4).
        scores: (n,).
        labels: (n,).
        known: (n, 4), the part of the picture in which the box is known: for whole objects, all of it.
    """

    def __init__(
        self, boxes: Rows, scores: Rows, labels: npt.NDArray[np.int64], known: Rows
    ) -> None:
        self.boxes, self.scores, self.labels, self.known = boxes, scores, labels, known

    @staticmethod
    def none() -> "_Objects":
        return _Objects(
            np.empty((0, 4)), np.empty(0), np.empty(0, dtype=np.int64), np.empty((0, 4))
        )

    def some(self, which: npt.NDArray[np.generic]) -> "_Objects":
        return _Objects(
            self.boxes[which], self.scores[which], self.labels[which], self.known[which]
        )

    def and_also(self, others: "_Objects") -> "_Objects":
        return _Objects(
            np.concatenate([self.boxes, others.boxes]),
            np.concatenate([self.scores, others.scores]),
            np.concatenate([self.labels, others.labels]),
            np.concatenate([self.known, others.known]),
        )

    def pieces(self, picture: Rows) -> npt.NDArray[np.bool_]:
        """Return which end where the known part ends and the picture goes on."""
        low = (self.boxes[:, :2] <= self.known[:, :2] + _MARGIN) & (self.known[:, :2] > picture[:2])
        high = (self.boxes[:, 2:] >= self.known[:, 2:] - _MARGIN) & (
            self.known[:, 2:] < picture[2:]
        )
        return np.asarray((low | high).any(1))


def _joined(kept: _Objects, new: _Objects, tile: Rows, picture: Rows, iou: float) -> _Objects:
    """Join what one more tile shows to what is known."""
    near = np.flatnonzero(_area(_common(kept.boxes, tile)))
    # Both as the other's view would show them; what lies outside it has no area.
    ours = _clipped(kept.boxes[near], tile)[:, None]
    theirs = _clipped(new.boxes[None], kept.known[near][:, None])
    common = _area(_common(ours, theirs))
    union = _area(ours) + _area(theirs) - common
    share = np.where(
        kept.labels[near][:, None] == new.labels, common / np.maximum(union, 1e-9), 0.0
    )
    pairs = np.argwhere(share >= iou)
    order = np.argsort(-share[pairs[:, 0], pairs[:, 1]], kind="stable")
    mine, taken = set[int](), set[int]()
    for row, n in pairs[order].tolist():
        k = int(near[row])
        if k in mine or n in taken:
            continue
        mine.add(k)
        taken.add(n)
        whole = (kept.known[k] == picture).all(), (new.known[n] == picture).all()
        if whole == (False, False):
            for hull in (kept.boxes, kept.known):
                other = (new.boxes if hull is kept.boxes else new.known)[n]
                hull[k, :2] = np.minimum(hull[k, :2], other[:2])
                hull[k, 2:] = np.maximum(hull[k, 2:], other[2:])
            kept.scores[k] = max(kept.scores[k], new.scores[n])
        elif whole == (False, True) or (all(whole) and new.scores[n] > kept.scores[k]):
            kept.boxes[k], kept.scores[k] = new.boxes[n], new.scores[n]
            kept.known[k] = picture
    alone = np.array([n not in taken for n in range(len(new.boxes))], dtype=bool)
    return kept.and_also(new.some(alone))


def _inside(found: _Objects, pieces: npt.NDArray[np.bool_], share: float) -> npt.NDArray[np.bool_]:
    """Return which are pieces of which at least `share` lies in a larger box of their class."""
    inside = np.zeros(len(found.boxes), dtype=bool)
    area = _area(found.boxes)
    for piece in np.flatnonzero(pieces):
        larger = (found.labels == found.labels[piece]) & (area > area[piece])
        within = _area(_common(found.boxes[larger], found.boxes[piece]))
        inside[piece] = bool((within >= share * area[piece]).any())
    return inside


def _clipped(boxes: Rows, to: Rows) -> Rows:
    return np.concatenate(
        [
            np.clip(boxes[..., :2], to[..., :2], to[..., 2:]),
            np.clip(boxes[..., 2:], to[..., :2], to[..., 2:]),
        ],
        axis=-1,
    )


def _common(a: Rows, b: Rows) -> Rows:
    return np.concatenate(
        [np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], axis=-1
    )


def _area(boxes: Rows) -> Rows:
    area: Rows = (boxes[..., 2:] - boxes[..., :2]).clip(0.0).prod(-1)
    return area
