"""COCO's JSON: one file for all pictures of a split."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, TypeGuard

from torchvision.transforms.v2 import Transform

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import BadSamples
from resdomains.training.folders import existing_folder, leaves
from resdomains.training.holding_out import check_fraction

from .annotations import Corpus
from .data import DetectionData
from .files import Folders, Listing, Stated, shortly
from .mosaic import Mosaic
from .sizes import Size

_CALLED: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
_ROBOFLOW = "_annotations.coco.json"
_NOT_STATED = float("nan")
_LARGEST = 2**53  # whole numbers up to this are exact in float64
_LONGEST = 80  # characters of a wrong value that a message shows


class CocoFiles(DetectionData):
    """Pictures with COCO's JSON files.

    Without `train`, the first of these that is there is taken:

    - `root/annotations/instances_train*.json` with `instances_val*.json` and `instances_test*.json`, or `train.json`,
      `val.json` and `test.json`, in `root/annotations` or `root`;
    - `root/train/_annotations.coco.json` with `valid` and `test` beside, as Roboflow exports;
    - a single JSON file in `root/annotations` or `root`.

    A picture is looked for, by its `file_name`, in `root/NAME` and `root/images/NAME`, where NAME is that of the JSON
    file without `instances_`, then in the JSON file's folder, `root/images` and `root`; where there is none, all that
    again without the leading folders of `file_name`. A relative one may not leave `root` by `..`; an absolute one is
    taken as it is.

    Classes are the categories by rising id, whether they occur or not; a category that only groups others, and that no
    object has, is no class. Pictures without objects count. `iscrowd` marks crowds, `ignore` what evaluation shall
    not count, and `area` (of the mask, in COCO) decides what is small, medium and large.

    Args:
        root: The folder.
        batch_size: Pictures of a batch over all processes together; pictures of a batch have similar shapes.
        train: The JSON file that trains, below `root`.
        val: The JSON file that validates. Without, a share of the training pictures validates.
        test: The JSON file that tests.
        train_pictures: The folder of the training pictures, below `root`, if it is not found as above.
        val_pictures: That of the validation pictures.
        test_pictures: That of the test pictures.
        val_fraction: Share of the training pictures that validates where nothing else does, by a hash of their names.
        class_names: The classes to detect, in order; objects of others are left out. All if not given.
        size: To what size pictures are brought, before augmentation; the shorter side 800 pixels if not given.
        channels: 1 reads pictures as grey, 3 as colour.
        augment: torchvision.transforms.v2 transforms of training pictures and their boxes, in order.
        mosaic: How several training pictures become one, before `augment`; never if not given.
        bad_samples: `refuse` stops at a picture or an object that cannot be used and names it; `skip` reads every
            picture once before training, names those that fail, also by one of their objects, and leaves them out.
        smallest: Pixels; objects of which augmentation leaves less in height or width are left out.
        kept_mib: MiB of pictures, at the network's size, that each loader process keeps in memory.
        num_workers: Loader processes; 0 reads in the training process.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        root: str,
        batch_size: int,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        train_pictures: str | None = None,
        val_pictures: str | None = None,
        test_pictures: str | None = None,
        val_fraction: float = 0.1,
        class_names: list[str] | None = None,
        size: Size | None = None,
        channels: int = 3,
        augment: list[Transform] | None = None,
        mosaic: Mosaic | None = None,
        bad_samples: BadSamples = "refuse",
        smallest: float = 1.0,
        kept_mib: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            size=size,
            channels=channels,
            augment=augment,
            mosaic=mosaic,
            bad_samples=bad_samples,
            smallest=smallest,
            kept_mib=kept_mib,
            num_workers=num_workers,
            seed=seed,
        )
        check_fraction("val_fraction", val_fraction)
        given = {"train": train, "val": val, "test": test}
        if train is None and any(given.values()):
            others = " and ".join(name for name, value in given.items() if value is not None)
            raise ValueError(f"train must name a JSON file where {others} does, got None")
        self.root, self.val_fraction, self.class_names = root, val_fraction, class_names
        self.files: dict[Split, str | None] = {"train": train, "val": val, "test": test}
        self.pictures: dict[Split, str | None] = {
            "train": train_pictures,
            "val": val_pictures,
            "test": test_pictures,
        }

    def read(self) -> Corpus:
        """Read the JSON files.

        Raises:
            BadSample: If a picture or an object cannot be used and `bad_samples` is `refuse`.
            ValueError: If a JSON file is missing or broken, or nothing is left to train on.
        """
        root = existing_folder(self.root)
        listing = Listing(root, "{where}: annotation {mark}")
        folders = Folders()
        categories: dict[Split, dict[str, int]] = {}
        parents: set[str] = set()
        for split, path in self._files(root).items():
            given = self.pictures[split]
            if given is not None and not (root / given).is_dir():
                raise ValueError(f"{split}_pictures: {root / given} is no folder")
            places = [root / given] if given is not None else _folders(root, path)
            document = _Document(path, listing.name(path))
            categories[split] = {name: number for number, name in document.names.items()}
            parents |= document.parents
            document.take(split, listing, _Finder(root, folders, places))
        numbers = categories["train"]
        self._say_numbers(listing, categories)
        used = {x.name for found in listing.found.values() for one in found for x in one.stated}
        grouping = [name for name in numbers if name in parents and name not in used]
        if grouping:
            listing.notes.append(
                f"no class, as it only groups others and no object has it: {shortly(grouping)}"
            )
        unknown = [name for name in self.class_names or () if name not in numbers]
        if unknown:
            raise ValueError(
                f"class_names: no category is called {shortly(unknown)}; there are {shortly(list(numbers))}"
            )
        names = [name for name in numbers if name not in grouping]
        return listing.corpus(
            class_names=self.class_names if self.class_names is not None else names,
            selected=self.class_names is not None,
            val_fraction=self.val_fraction,
            bad_samples=self.bad_samples,
            left_out=self.left_out,
            category_ids=numbers,
        )

    def _files(self, root: Path) -> dict[Split, Path]:
        """Return the JSON file of each split.

        Raises:
            ValueError: If one is missing, or it is not clear which is meant.
        """
        if self.files["train"] is None:
            return _discovered(root)
        found = {split: root / name for split, name in self.files.items() if name is not None}
        for split, path in found.items():
            if not path.is_file():
                what = "is a folder" if path.is_dir() else "does not exist"
                raise ValueError(
                    f"{split}: {path} {what}; give the name of a JSON file below root, {root}"
                )
        return found

    def _say_numbers(self, listing: Listing, categories: dict[Split, dict[str, int]]) -> None:
        """Say where a split's categories have other ids than those of the training file."""
        for split, numbers in categories.items():
            differing = [
                name
                for name, number in numbers.items()
                if categories["train"].get(name, number) != number
            ]
            if differing:
                listing.notes.append(
                    f"{split}: categories have other ids than in train, and are told by their names: "
                    f"{shortly(differing)}"
                )


def _discovered(root: Path) -> dict[Split, Path]:
    """Return the JSON file of each split, by the usual layouts.

    Raises:
        ValueError: If there is none, or it is not clear which is meant.
    """
    for folder in (root / "annotations", root):
        found = {
            split: _only(
                split,
                folder,
                (
                    f
                    for x in called
                    for p in (f"instances_{x}*.json", f"{x}.json")
                    for f in folder.glob(p)
                ),
            )
            for split, called in _CALLED.items()
        }
        if found["train"] is not None:
            return {split: path for split, path in found.items() if path is not None}
    found = {
        split: _only(split, root, (root / x / _ROBOFLOW for x in called))
        for split, called in _CALLED.items()
    }
    if found["train"] is not None:
        return {split: path for split, path in found.items() if path is not None}
    for folder in (root / "annotations", root):
        single = _only("train", folder, folder.glob("*.json"))
        if single is not None:
            return {"train": single}
    raise ValueError(
        f"root: {root} holds no JSON file in a layout that is known (annotations/instances_train*.json, "
        f"annotations/train.json, train/{_ROBOFLOW}, or a single one); name it with --data.train"
    )


def _only(split: Split, folder: Path, paths: Iterable[Path]) -> Path | None:
    found = sorted({path for path in paths if path.is_file()})
    if len(found) > 1:
        raise ValueError(
            f"root: {folder} holds {shortly([path.name for path in found])}; name the JSON file that is meant with "
            f"--data.{split}" + (" (and --data.train)" if split != "train" else "")
        )
    return found[0] if found else None


def _folders(root: Path, path: Path) -> list[Path]:
    """Return where a JSON file's pictures may be."""
    name = path.stem.removeprefix("instances_")
    places = (root / name, root / "images" / name, path.parent, root / "images", root)
    return [folder for folder in dict.fromkeys(places) if folder.is_dir()]


class _Finder:
    """Finds pictures by their `file_name`.

    Args:
        root: The folder that a relative name may not leave by `..`.
        folders: What is in folders.
        places: Below which folders they may be, in order.
    """

    def __init__(self, root: Path, folders: Folders, places: Sequence[Path]) -> None:
        self.root, self.folders, self.places = root, folders, places
        self._below: dict[str, list[str]] = {}

    def find(self, name: str) -> str | None:
        """Return a picture's path, if there is such a file."""
        for given in dict.fromkeys((name, PureWindowsPath(name).name)):
            parent, _, base = given.rpartition("/")
            if parent not in self._below:
                # A leading slash stays: a path from the top of the disk is taken as it is.
                top = given.startswith("/")
                below = [str(place / (f"{parent}/" if top else parent)) for place in self.places]
                self._below[parent] = [x for x in below if top or not leaves(self.root, x)]
            for folder in self._below[parent]:
                if base in self.folders.files(folder):
                    return f"{folder}{os.sep}{base}"
        return None


class _Document:
    """A COCO JSON file.

    Args:
        path: The file.
        where: What messages and notes call it.

    Raises:
        ValueError: If it is not JSON, or lacks what every such file has.
    """

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where = str(path), where
        content = _content(path)
        self.images: list[Any] = content["images"]
        self.annotations: list[Any] = content["annotations"]
        self.names: dict[int, str] = {}
        """The category of each id, by rising id."""
        self.parents: set[str] = set()
        """What categories are grouped by."""
        for place, category in enumerate(content["categories"]):
            number = category.get("id") if isinstance(category, dict) else None
            name = category.get("name") if isinstance(category, dict) else None
            if not _whole(number) or not isinstance(name, str) or not name:
                raise ValueError(
                    f"{path}: categories[{place}] must have a whole number as 'id' and a 'name', got "
                    f"{_cut(category)}"
                )
            if number in self.names or name in self.names.values():
                raise ValueError(
                    f"{path}: categories[{place}], {number} ({name}), has the id or the name of another category"
                )
            self.names[number] = name
            parent = category.get("supercategory")
            if isinstance(parent, str) and parent != name:
                self.parents.add(parent)
        self.names = dict(sorted(self.names.items()))

    def take(self, split: Split, listing: Listing, finder: _Finder) -> None:
        """List the pictures with their objects."""
        stated: dict[int, list[Stated]] = {}
        spoilt: set[int] = set()
        sound: list[tuple[int, str, tuple[int, int] | None]] = []
        files: dict[str, int] = {}
        for place, image in enumerate(self.images):
            try:
                number = _id(image, self.path, "images", place)
                where = f"{self.path}: image {number}"
                if number in stated:
                    spoilt.add(number)
                    raise BadSample(where, "another image has the same id")
                stated[number] = []
                name, size = image.get("file_name"), _size(image, where)
                if not isinstance(name, str) or not name or "\0" in name:
                    raise BadSample(where, f"'file_name' must name a file, got {_cut(name)}")
                path = finder.find(name)
                if path is None:
                    rule = "; a relative name may not leave root by '..'" if ".." in name else ""
                    raise BadSample(
                        where,
                        f"{name[:_LONGEST]} is in none of the folders {', '.join(map(str, finder.places))}{rule}",
                    )
                if path in files:
                    raise BadSample(where, f"{name} is also image {files[path]}")
            except BadSample as error:
                listing.bad.append(error)
                continue
            files[path] = number
            sound.append((number, path, size))
        marks = Counter[int]()
        for place, annotation in enumerate(self.annotations):
            try:
                mark = _id(annotation, self.path, "annotations", place)
                marks[mark] += 1
                image = annotation.get("image_id")
                if not _whole(image) or image not in stated:
                    raise self._bad(mark, f"no image has the id {_cut(image)}, its 'image_id'")
                try:
                    stated[image].append(self._object(annotation, mark))
                except BadSample:
                    spoilt.add(image)  # what it marks would count as background
                    raise
            except BadSample as error:
                listing.bad.append(error)
        repeated = [str(mark) for mark, count in marks.items() if count > 1]
        if repeated:
            listing.notes.append(
                f"{self.where}: {len(repeated):,} annotation ids occur more than once, and all are kept: "
                f"{shortly(repeated)}"
            )
        for number, path, size in sound:
            if number not in spoilt:
                listing.add(split, path, size, stated[number], where=self.path, number=number)

    def _object(self, annotation: dict[str, Any], mark: int) -> Stated:
        category = annotation.get("category_id")
        name = self.names.get(category) if _whole(category) else None
        if name is None:
            known = [f"{number} ({name})" for number, name in self.names.items()]
            raise self._bad(mark, f"unknown category {_cut(category)}; there are {shortly(known)}")
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_number, box)):
            raise self._bad(
                mark, f"'bbox' must be four numbers, x, y, width and height, got {_cut(box)}"
            )
        x, y, width, height = box
        area = annotation.get("area")
        return Stated(
            mark,
            name,
            (x, y, x + width, y + height),
            bool(annotation.get("iscrowd")),
            bool(annotation.get("ignore")),
            area if _number(area) else _NOT_STATED,
        )

    def _bad(self, mark: int, reason: str) -> BadSample:
        return BadSample(f"{self.path}: annotation {mark}", reason)


def _content(path: Path) -> dict[str, list[Any]]:
    """Read a JSON file.

    Raises:
        ValueError: If it is not COCO's.
    """
    try:
        content = json.loads(path.read_bytes(), object_hook=_lean)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 (at byte {error.start:,})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            there = shortly(list(content)) if isinstance(content, dict) else type(content).__name__
            raise ValueError(
                f"{path}: not COCO's JSON, which has lists 'images', 'annotations' and 'categories'; it has "
                f"{there or 'nothing'}"
            )
    found: dict[str, list[Any]] = content
    return found


def _lean(entry: dict[str, Any]) -> dict[str, Any]:
    """Forget masks, which are most of a large file, as it is read."""
    entry.pop("segmentation", None)
    return entry


def _id(entry: object, path: str, key: str, place: int) -> int:
    """Return the id of an entry of a list.

    Raises:
        BadSample: If it has none.
    """
    number = entry.get("id") if isinstance(entry, dict) else None
    if not _whole(number):
        raise BadSample(
            f"{path}: {key}[{place}]",
            f"must be an object with a whole number as 'id', got {_cut(entry)}",
        )
    return number


def _size(image: dict[str, Any], where: str) -> tuple[int, int] | None:
    """Return the height and width that are stated, if they are."""
    height, width = image.get("height"), image.get("width")
    if not height and not width:
        return None
    if not (_whole(height) and _whole(width) and height >= 1 and width >= 1):
        raise BadSample(
            where,
            f"'height' and 'width' must be whole pixels from 1, got {_cut(height)} and {_cut(width)}",
        )
    return height, width


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, float) or _whole(value)


def _cut(value: object) -> str:
    return repr(value)[:_LONGEST]
