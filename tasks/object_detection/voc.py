"""Pascal VOC: an XML file for each picture."""

from pathlib import Path
from typing import Literal

from torchvision.transforms.v2 import Transform

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import BadSamples
from resdomains.training.folders import existing_folder
from resdomains.training.holding_out import check_fraction
from resdomains.vision import SUFFIXES

from .annotations import Corpus
from .data import DetectionData
from .files import Folders, Listing, Stated
from .markup import Element, read_xml
from .mosaic import Mosaic
from .sizes import Size

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LONGEST = 80  # characters of a wrong value that a message shows


class VocFiles(DetectionData):
    """Pictures with Pascal VOC's XML files.

    The folder, or one folder in it, holds `JPEGImages`, `Annotations` with an XML file of the same name for each
    picture, and `ImageSets/Main` with text files that list names without suffixes, one a line. Without `ImageSets` all
    annotated pictures train and `val_fraction` of them validates.

    Where XML states no size or 0, that of the upright picture is read from its file. Objects marked as difficult train
    like others, and evaluation does not count them.

    Pascal VOC numbers pixels from 1, and a box includes its last pixel: it reaches from `xmin - 1` to `xmax` in
    coordinates in which the picture spans 0 to its width. Detectron2 reads it so, torchvision hands on the plain
    numbers. Boxes whose `xmax` is not above `xmin`, which clicks without a drag leave, are left out.

    Args:
        root: The folder.
        batch_size: Pictures of a batch over all processes together; pictures of a batch have similar shapes.
        train: The list in `ImageSets/Main` that trains, such as `trainval`.
        val: The list that validates, if there is such a list; None holds out `val_fraction` instead.
        test: The list that tests, if there is such a list; None for no test.
        val_fraction: Share of the training pictures that validates where no list does, by a hash of their names.
        class_names: The classes to detect, in order; objects of others are left out. All classes of the training
            pictures, sorted, if not given.
        first_pixel: The number of the first pixel in the XML files: 1 in Pascal VOC, 0 as some other tools write.
        size: To what size pictures are brought, before augmentation; the shorter side 800 pixels if not given.
        channels: 1 reads pictures as grey, 3 as colour.
        augment: torchvision.transforms.v2 transforms of training pictures and their boxes, in order.
        mosaic: How several training pictures become one, before `augment`; never if not given.
        bad_samples: `refuse` stops at a picture or an XML file that cannot be used and names it; `skip` reads every
            picture once before training, names those that fail and leaves them out.
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
        train: str = "train",
        val: str | None = "val",
        test: str | None = "test",
        val_fraction: float = 0.1,
        class_names: list[str] | None = None,
        first_pixel: Literal[0, 1] = 1,
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
        if first_pixel not in (0, 1):
            raise ValueError(
                f"first_pixel must be 1 (as in Pascal VOC) or 0, the number of the first pixel, got {first_pixel}"
            )
        self.root, self.val_fraction = root, val_fraction
        self.lists: dict[Split, str | None] = {"train": train, "val": val, "test": test}
        self.class_names, self.first_pixel = class_names, first_pixel

    def read(self) -> Corpus:
        """Read the lists and the XML files.

        Raises:
            BadSample: If a picture or its XML file cannot be used and `bad_samples` is `refuse`.
            ValueError: If the folder has another layout, or nothing is left to train on.
        """
        folder = _layout(existing_folder(self.root))
        listing, folders = Listing(folder), Folders()
        suffixes: dict[str, list[str]] = {}
        for file in sorted(folders.files(folder / "JPEGImages")):
            if Path(file).suffix.lower() in SUFFIXES:
                suffixes.setdefault(Path(file).stem, []).append(Path(file).suffix)
        zeros = 0
        for split, lines in self._listed(folder, folders).items():
            for where, name in lines:
                path = folder / "Annotations" / f"{name}.xml"
                try:
                    # A name is looked for among those of the two folders, so that it cannot lead out of them.
                    if f"{name}.xml" not in folders.files(folder / "Annotations"):
                        raise BadSample(where, f"{listing.name(path)} does not exist")
                    endings = suffixes.get(name)
                    if endings is None:
                        raise BadSample(where, f"JPEGImages has no picture {name}")
                    size, stated, file = _annotation(path, self.first_pixel)
                    zeros += sum(min(x.box[:2]) < 0 for x in stated)
                    ending = Path(file).suffix if Path(file).suffix in endings else endings[0]
                    picture = folder / "JPEGImages" / f"{name}{ending}"
                    listing.add(split, picture, size, stated, where=path)
                except BadSample as error:
                    listing.bad.append(error)
        if zeros:
            listing.notes.append(
                f"{zeros:,} boxes begin at pixel 0, though the first has number {self.first_pixel}: if the XML files "
                "count from 0, set --data.first_pixel 0"
            )
        return listing.corpus(
            class_names=self.class_names,
            selected=self.class_names is not None,
            val_fraction=self.val_fraction,
            bad_samples=self.bad_samples,
            left_out=self.left_out,
        )

    def _listed(self, folder: Path, folders: Folders) -> dict[Split, list[tuple[str, str]]]:
        """Return each split's names, with where they are listed.

        Raises:
            ValueError: If the list that trains does not exist, or has no names.
        """
        sets = folder / "ImageSets" / "Main"
        if not sets.is_dir():
            names = sorted(
                file.removesuffix(".xml")
                for file in folders.files(folder / "Annotations")
                if file.endswith(".xml")
            )
            return {
                "train": [(str(folder / "Annotations" / f"{name}.xml"), name) for name in names]
            }
        listed: dict[Split, list[tuple[str, str]]] = {}
        there = folders.files(sets)
        for split, name in self.lists.items():
            if name is None or (split != "train" and f"{name}.txt" not in there):
                continue
            path = sets / f"{name}.txt"
            if path.name not in there:
                raise ValueError(
                    f"{split}: {path} does not exist; the lists in {sets} are "
                    f"{', '.join(sorted(Path(file).stem for file in there)) or 'none'}"
                )
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
            listed[split] = [
                (f"{path}:{number}", line.strip())
                for number, line in enumerate(text.splitlines(), 1)
                if line.strip()
            ]
            if not listed[split] and split == "train":
                raise ValueError(f"{split}: {path} lists nothing")
        return listed


def _layout(root: Path) -> Path:
    """Return the folder of Pascal VOC's layout: `root`, or the only one in it.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = [
        folder
        for folder in (root, *sorted(root.iterdir()))
        if (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()
    ]
    if found and (found[0] == root or len(found) == 1):
        return found[0]
    if found:
        raise ValueError(
            f"root: {root} holds several data sets, {', '.join(folder.name for folder in found)}; set --data.root to "
            "one of them"
        )
    raise ValueError(
        f"root: {root} holds no folders Annotations and JPEGImages, nor does a folder in it; Pascal VOC's layout has "
        "JPEGImages/*.jpg, Annotations/*.xml and ImageSets/Main/train.txt"
    )


def _annotation(path: Path, first_pixel: int) -> tuple[tuple[int, int] | None, list[Stated], str]:
    """Return what an XML file states: height and width, if it does, the objects, and the picture's name.

    Raises:
        BadSample: If it is not XML as Pascal VOC has it.
    """
    top = read_xml(path)
    if top.tag != "annotation":
        raise BadSample(
            f"{path}:{top.line}", f"the outermost element must be <annotation>, not <{top.tag}>"
        )
    stated = []
    for item in top.all("object"):
        name = item.said("name")
        if not name:
            raise BadSample(f"{path}:{item.line}", "an <object> without a <name>")
        box = item.first("bndbox")
        if box is None:
            raise BadSample(
                f"{path}:{item.line}", f"an <object> ({name[:_LONGEST]}) without <bndbox>"
            )
        xmin, ymin, xmax, ymax = (_number(path, box, corner) for corner in _CORNERS)
        if xmax > xmin and ymax > ymin:
            xmin, ymin = xmin - first_pixel, ymin - first_pixel
        difficult = item.said("difficult") not in ("", "0")
        stated.append(Stated(item.line, name, (xmin, ymin, xmax, ymax), difficult=difficult))
    return _size(path, top), stated, top.said("filename")


def _size(path: Path, top: Element) -> tuple[int, int] | None:
    size = top.first("size")
    if size is None:
        return None
    height, width = _number(path, size, "height"), _number(path, size, "width")
    if height == 0 and width == 0:
        return None
    if not (height >= 1 and width >= 1 and height % 1 == 0 and width % 1 == 0):
        raise BadSample(
            f"{path}:{size.line}",
            f"<size> must state whole pixels from 1, got {width:g} x {height:g} (width x height)",
        )
    return int(height), int(width)


def _number(path: Path, parent: Element, tag: str) -> float:
    """Return a child's number.

    Raises:
        BadSample: If there is none.
    """
    text = parent.said(tag)
    try:
        return float(text)
    except ValueError:
        pass
    found = parent.first(tag) or parent
    raise BadSample(
        f"{path}:{found.line}",
        f"<{tag}> in <{parent.tag}> must be a number, got {text[:_LONGEST]!r}",
    )
