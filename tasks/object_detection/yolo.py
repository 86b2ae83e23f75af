"""YOLO's text files: one for each picture, a line for each object."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from torchvision.transforms.v2 import Transform

from resdomains.plain_yaml import TooLarge, check_size
from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import BadSamples
from resdomains.training.folders import existing_folder, leaves
from resdomains.training.holding_out import check_fraction
from resdomains.vision import SUFFIXES, find_pictures

from .annotations import Corpus
from .data import DetectionData
from .files import Folders, Listing, Stated, shortly, upright_size
from .mosaic import Mosaic
from .sizes import Size

_CALLED: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid"),
    "test": ("test",),
}
_BEYOND = 1e-3  # what rounding may add to a fraction
_LONGEST = 80  # characters of a wrong line that a message shows


class YoloFiles(DetectionData):
    """Pictures with YOLO's text files.

    A line of a text file is `class cx cy w h`: the class's number from 0, then the middle, width and height of the box
    as fractions of the upright picture's width and height. A line of three or more points instead,
    `class x1 y1 x2 y2 x3 y3 ...`, is a polygon, of which the enclosing box is taken. A picture with an empty text file,
    or none, has no objects.

    The text file of `.../images/train/a.jpg` is `.../labels/train/a.txt`: the last folder called `images` becomes
    `labels`; where no folder is called so, it stands beside the picture. Pictures are found in this order:

    - as `root/data.yaml` (or the single `*.yaml` in root) says: `names`, and `train`, `val` and `test`, each a folder,
      a text file that lists pictures, or a list of these, below `path`;
    - in `root/images/train`, `root/images/val` and `root/images/test`;
    - in `root/train/images`, `root/valid/images` and `root/test/images`;
    - in `root/images`, where `val_fraction` of them validates.

    What `data.yaml` and lists name by relative paths stays below `root`; absolute ones are taken as they are.

    Without `data.yaml`, classes are named by `class_names` or by `classes.txt`, in `root` or `root/labels`, a name a
    line.

    Args:
        root: The folder.
        batch_size: Pictures of a batch over all processes together; pictures of a batch have similar shapes.
        class_names: The name of each class number, where no file names them.
        val_fraction: Share of the training pictures that validates where nothing else does, by a hash of their names.
        size: To what size pictures are brought, before augmentation; the shorter side 800 pixels if not given.
        channels: 1 reads pictures as grey, 3 as colour.
        augment: torchvision.transforms.v2 transforms of training pictures and their boxes, in order.
        mosaic: How several training pictures become one, before `augment`; never if not given.
        bad_samples: `refuse` stops at a picture or a line that cannot be used and names it; `skip` reads every picture
            once before training, names those that fail and leaves them out.
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
        class_names: list[str] | None = None,
        val_fraction: float = 0.1,
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
        self.root, self.class_names, self.val_fraction = root, class_names, val_fraction

    def read(self) -> Corpus:
        """List the pictures, and read their text files and the headers of their files.

        Raises:
            BadSample: If a picture or a line cannot be used and `bad_samples` is `refuse`.
            ValueError: If the folder has another layout, or nothing is left to train on.
        """
        root = existing_folder(self.root)
        names, places = self._described(root)
        listing, folders = Listing(root), Folders()
        polygons, unlabelled, first = 0, 0, ""
        for split, sources in places.items():
            for picture, where in _pictures(split, sources):
                path = _labels(picture)
                stated: list[Stated] = []
                try:
                    if where is not None and leaves(root, picture):
                        raise BadSample(
                            where,
                            f"{picture} is not below {root}; a relative path may not leave it by '..'",
                        )
                    size = upright_size(picture)
                    if path.name in folders.files(path.parent):
                        stated, enclosed = _objects(path, names, size)
                        polygons += enclosed
                    else:
                        unlabelled += 1
                        first = first or f"{listing.name(picture)}, without {listing.name(path)}"
                    listing.add(split, picture, size, stated, where=path)
                except BadSample as error:
                    listing.bad.append(error)
        if unlabelled:
            listing.notes.append(
                f"{unlabelled:,} pictures have no text file, and so no objects, such as {first}"
            )
        if polygons:
            listing.notes.append(f"{polygons:,} polygons are taken as the boxes around them")
        return listing.corpus(
            class_names=names,
            selected=False,
            val_fraction=self.val_fraction,
            bad_samples=self.bad_samples,
            left_out=self.left_out,
        )

    def _described(self, root: Path) -> tuple[list[str], dict[Split, list[Path]]]:
        """Return the classes' names, and the folders and lists of each split.

        Raises:
            ValueError: If nothing names the classes or says where pictures are.
        """
        path = _only_yaml(root)
        if path is not None:
            content = _yaml(path)
            names = self.class_names if "names" not in content else _names(path, content)
            if "names" in content and self.class_names is not None:
                raise ValueError(
                    f"class_names: {path} already names the classes ({shortly(names or [])}); leave one of the two out"
                )
            places = _stated_places(root, path, content)
        else:
            names = self.class_names if self.class_names is not None else _listed_names(root)
            places = _usual_places(root)
        if not names:
            raise ValueError(
                f"class_names: nothing in {root} names the classes; give their names in the order of their numbers, or "
                "a data.yaml with `names`"
            )
        return names, places


def _only_yaml(root: Path) -> Path | None:
    """Return the file that describes the data, if there is one.

    Raises:
        ValueError: If it is not clear which is meant.
    """
    found = sorted(path for path in (*root.glob("*.yaml"), *root.glob("*.yml")) if path.is_file())
    named = [path for path in found if path.stem == "data"]
    if len(named or found) > 1:
        raise ValueError(
            f"root: {root} holds {shortly([path.name for path in named or found])}; call the file that is meant "
            "data.yaml, and remove or rename the others"
        )
    return next(iter(named or found), None)


def _yaml(path: Path) -> dict[Any, Any]:
    """Read a YAML file; it can only hold plain values.

    Raises:
        ValueError: If it is not YAML, or holds no keys.
    """
    try:
        text = path.read_bytes()
        check_size(text)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise ValueError(f"{path}:{line}: not YAML ({error.problem})") from error
    except TooLarge as error:
        raise ValueError(f"{path}:{error.line}: {error.reason}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: not YAML ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must have keys such as `names` and `train`")
    if "kpt_shape" in content:
        raise ValueError(f"{path}: describes key points (`kpt_shape`), which are not read")
    return content


def _names(path: Path, content: Mapping[Any, Any]) -> list[str]:
    """Return the name of each class.

    Raises:
        ValueError: If `names` is neither a list nor a mapping from 0, 1, ..., or `nc` counts others.
    """
    names = content["names"]
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f"{path}: `names` must number the classes 0, 1, ... without gaps")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(x, str | int | float) for x in names):
        raise ValueError(
            f"{path}: `names` must be a list of names, or a mapping of numbers to names"
        )
    count = content.get("nc", len(names))
    if not isinstance(count, int) or count != len(names):
        said = count if isinstance(count, int) else "no whole number"
        raise ValueError(f"{path}: `nc` is {said}, but `names` has {len(names)}")
    return [str(name) for name in names]


def _listed_names(root: Path) -> list[str]:
    """Return the lines of classes.txt, none if there is no such file."""
    for path in (root / "classes.txt", root / "labels" / "classes.txt"):
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return [line.strip() for line in lines if line.strip()]
    return []


def _stated_places(root: Path, path: Path, content: Mapping[Any, Any]) -> dict[Split, list[Path]]:
    """Return what the YAML file says of each split.

    Raises:
        ValueError: If it names no training pictures, or what it names does not exist.
    """
    base = path.parent
    if isinstance(content.get("path"), str) and _is_there(root, base, content["path"]):
        base = base / content["path"]
    found: dict[Split, list[Path]] = {}
    for split in _CALLED:
        given = content.get(split)
        if given is None and split == "val":
            given = content.get("valid")
        if given is None or given == "":
            continue
        places = given if isinstance(given, list) else [given]
        if not all(isinstance(place, str) for place in places):
            raise ValueError(f"{path}: `{split}` must be a folder, a text file, or a list of these")
        found[split] = [_existing(root, path, split, base, place) for place in places]
    if "train" not in found:
        raise ValueError(f"{path}: `train` must say where the training pictures are")
    return found


def _existing(root: Path, path: Path, split: Split, base: Path, given: str) -> Path:
    # Roboflow writes ../train/images into a data.yaml that stands beside train.
    within = given.removeprefix("../")
    for folder, name in ((base, given), (path.parent, given), (base, within)):
        if _is_there(root, folder, name):
            return folder / name
    raise ValueError(
        f"{path}: `{split}` is {given}, but {base / given} does not exist below {root}; correct it, or `path`"
    )


def _is_there(root: Path, folder: Path, given: str) -> bool:
    """Say whether something exists that a file names; a relative name may not leave root."""
    try:
        return (folder / given).exists() and (
            Path(given).is_absolute() or not leaves(root, folder / given)
        )
    except OSError:  # such as a name that is too long
        return False


def _usual_places(root: Path) -> dict[Split, list[Path]]:
    """Return the folders of each split, by the usual layouts.

    Raises:
        ValueError: If there are none.
    """
    for layout in ("images/{}", "{}/images"):
        found = {
            split: [folder for name in called if (folder := root / layout.format(name)).is_dir()]
            for split, called in _CALLED.items()
        }
        if found["train"]:
            return {split: folders for split, folders in found.items() if folders}
    if (root / "images").is_dir():
        return {"train": [root / "images"]}
    raise ValueError(
        f"root: {root} holds no data.yaml and no folder images/train, train/images or images; YOLO's layout has "
        "images/train/*.jpg and labels/train/*.txt"
    )


def _pictures(split: Split, sources: Sequence[Path]) -> list[tuple[Path, str | None]]:
    """Return the pictures of a split, in order, and of those that a list names by relative paths, where.

    Raises:
        ValueError: If there are none.
    """
    found: dict[Path, str | None] = {}
    for source in sources:
        if source.is_dir():
            found.update((Path(path), None) for path in find_pictures(source))
        elif source.suffix.lower() in SUFFIXES:
            found[source] = None
        else:
            lines = source.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
            for number, line in enumerate(map(str.strip, lines), 1):
                if line:
                    where = None if Path(line).is_absolute() else f"{source}:{number}"
                    found[source.parent / line] = where
    if not found:
        raise ValueError(f"{split}: {', '.join(map(str, sources))} holds no pictures")
    return list(found.items())


def _labels(picture: PurePath) -> Path:
    """Return a picture's text file."""
    parts = list(picture.parts)
    folders = parts[:-1]
    if "images" in folders:
        parts[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _objects(path: Path, names: Sequence[str], size: tuple[int, int]) -> tuple[list[Stated], int]:
    """Return what a text file states, and how many of its lines are polygons.

    Raises:
        BadSample: If a line is no object.
    """
    height, width = size
    stated, polygons = [], 0
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadSample(str(path), f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BadSample(str(path), f"not UTF-8 (at byte {error.start:,})") from error
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}:{number}"
        polygon = len(words) >= 7 and len(words) % 2 == 1
        if len(words) != 5 and not polygon:
            raise BadSample(
                where,
                f"must be `class cx cy w h`, or `class` and the points of a polygon, but has {len(words)} columns: "
                f"{line[:_LONGEST]!r}",
            )
        label = _label(where, words[0], names)
        values = [_fraction(where, word) for word in words[1:]]
        if polygon:
            xs, ys = values[::2], values[1::2]
            box = (min(xs), min(ys), max(xs), max(ys))
            polygons += 1
        else:
            x, y, w, h = values
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        corners = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        stated.append(Stated(number, label, corners))
    return stated, polygons


def _label(where: str, word: str, names: Sequence[str]) -> str:
    try:
        number = float(word)  # some tools write 0.0
    except ValueError:
        number = math.nan
    if number not in range(len(names)):
        raise BadSample(
            where,
            f"the class must be a number from 0 to {len(names) - 1}, as there are the classes {shortly(names)}; "
            f"got {word[:_LONGEST]!r}",
        )
    return names[int(number)]


def _fraction(where: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not -_BEYOND <= value <= 1.0 + _BEYOND:
        raise BadSample(
            where,
            f"numbers after the class must be fractions of the picture's size, from 0 to 1, got {word[:_LONGEST]!r}",
        )
    return value
