"""Write annotated pictures as COCO's JSON, which most tools read."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resdomains.schema import Split
from resdomains.vision import read_header

from .annotations import Annotated, Corpus, Rows
from .data import DetectionData
from .files import PictureFile


def write_coco(data: Corpus | DetectionData, folder: str | Path) -> dict[Split, Path]:
    """Write all splits: `folder/annotations/instances_SPLIT.json` with the pictures in `folder/SPLIT`.

    `CocoFiles(root=folder)` reads the same objects. Files of pictures are copied. Those that EXIF turns are written as
    they stand upright, with their boxes, so that tools that ignore EXIF see both alike; they and pictures that are no
    files become PNG. `iscrowd` marks crowds, and `ignore` is 1 for what evaluation shall not count. (pycocotools does
    not read `ignore`.) Pictures keep their numbers as ids, unless two of a split have the same.

    Args:
        data: The pictures, or a data module, such as `VocFiles`, that lists them.
        folder: Where to; it must not exist, or be empty.

    Returns:
        The JSON file of each split.

    Raises:
        BadSample: If a picture cannot be read.
        ValueError: If the folder is not empty, or is a file.
    """
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        what = "is not empty" if target.is_dir() else "is a file"
        raise ValueError(f"folder: {target} {what}; give a new one")
    corpus = data.read() if isinstance(data, DetectionData) else data
    ids = list(corpus.category_ids or range(1, len(corpus.classes) + 1))
    written: dict[Split, Path] = {}
    for split, found in corpus.splits.items():
        (target / split).mkdir(parents=True)
        images, annotations = _split(found, ids, target / split)
        categories = [
            {"id": number, "name": name, "supercategory": "object"}
            for number, name in zip(ids, corpus.classes, strict=True)
        ]
        written[split] = target / "annotations" / f"instances_{split}.json"
        written[split].parent.mkdir(exist_ok=True)
        content = {
            "info": {"description": f"{split} of {len(found)} pictures"},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        written[split].write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    return written


def _split(
    pictures: Sequence[Annotated], ids: Sequence[int], folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write a split's pictures; return its images and annotations."""
    numbers = [found.number for found in pictures]
    if len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(numbers) + 1))
    stems = [_stem(found) for found in pictures]
    if len({stem.lower() for stem in stems}) < len(stems):  # some disks do not tell cases apart
        stems = [f"{place:06d}_{stem}" for place, stem in enumerate(stems)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for found, number, stem in zip(pictures, numbers, stems, strict=True):
        name, boxes, height, width = _write(found, folder, stem)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for (x1, y1, x2, y2), (label, crowd, difficult, area) in zip(
            boxes.tolist(), found.objects[:, 4:].tolist(), strict=True
        ):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": ids[int(label)],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": area,
                "iscrowd": int(crowd),
            }
            annotations.append(annotation | ({"ignore": 1} if difficult else {}))
    return images, annotations


def _stem(found: Annotated) -> str:
    if isinstance(found.picture, PictureFile):
        return Path(found.picture.path).stem
    return f"{found.number:06d}"


def _write(found: Annotated, folder: Path, stem: str) -> tuple[str, Rows, int, int]:
    """Write a picture; return its name, the boxes on it, its height and its width."""
    picture, boxes = found.picture, found.objects[:, :4]
    if isinstance(picture, PictureFile) and _plain(picture):
        path = Path(picture.path)
        shutil.copyfile(path, folder / f"{stem}{path.suffix}")
        return f"{stem}{path.suffix}", boxes, picture.height, picture.width
    pixels = np.ascontiguousarray(picture.read(3).permute(1, 2, 0).numpy())
    height, width = pixels.shape[:2]
    Image.fromarray(pixels).save(folder / f"{stem}.png")
    return f"{stem}.png", picture.upright(boxes, height, width), height, width


def _plain(picture: PictureFile) -> bool:
    """Whether a picture is stored upright, in the size that its boxes were drawn on."""
    return read_header(picture.path) == (picture.height, picture.width, 1)
