"""The embedded default: scenes of real handwritten digits on textured ground, composed when they are read."""

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import Transform

from resdomains.schema import Split

from .annotations import Annotated, Corpus, Picture, objects
from .data import DetectionData
from .mosaic import Mosaic
from .sizes import ShorterSide, Size
from .textures import Field, colour, ground

_Bytes = npt.NDArray[np.uint8]
_Number = TypeVar("_Number", bound=np.generic)

_VAL, _TEST = 144, 360  # scans: the first validate, the last test
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_CELLS = 8  # a scan's side
_ROOM = 1.6  # a turned digit's canvas is that many times its size
_TRIES = 12
_MOST = 100
_SMALLEST = 8
_RIM = np.float32(0.8 / 255)  # a rim of the ground's colour parts a digit from those that it covers
_INK = 128  # of 255: where a digit covers that much of a pixel, the pixel is ink


class Glyph(NamedTuple):
    """A digit at its size.

    Args:
        ink: (h, w) uint8, how much of each pixel it covers, without empty rows and columns at the sides.
        rim: (h + 2, w + 2) uint8, how much of each pixel it or its rim covers.
        label: Which digit.
    """

    ink: _Bytes
    rim: _Bytes
    label: int


class Placed(NamedTuple):
    """A digit in a scene; `top` and `left` are those of its ink."""

    glyph: Glyph
    top: int
    left: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The corners x1, y1, x2, y2 of its ink in pixels."""
        height, width = self.glyph.ink.shape
        return self.left, self.top, self.left + width, self.top + height


class Composer:
    """Composes scenes; the same for the same arguments and number, on any machine and in any order.

    Args:
        scans: Of each split, (n, 8, 8) uint8 scans of digits.
        labels: Of each split, (n,) which digits.
        height: Pixels.
        width: Pixels.
        digits: The fewest and the most of a scene.
        sizes: The smallest and the largest height of a digit in pixels, before it is turned.
        covered: Share of a digit's ink that others may cover.
        seed: Of all scenes.
    """

    def __init__(
        self,
        scans: dict[Split, _Bytes],
        labels: dict[Split, npt.NDArray[np.int64]],
        height: int,
        width: int,
        digits: tuple[int, int],
        sizes: tuple[float, float],
        covered: float,
        seed: int,
    ) -> None:
        # Two pixels of nothing around each scan, so that strokes at its side end smoothly.
        self._scans = {split: np.pad(x, ((0, 0), (2, 2), (2, 2))) for split, x in scans.items()}
        self._labels = labels
        self.height, self.width = height, width
        self._digits, self._sizes, self._covered, self._seed = digits, sizes, covered, seed

    def layout(self, split: Split, number: int) -> list[Placed]:
        """Return the digits of a scene, the lowest first; each lies in the picture as a whole."""
        rng = self._rng(split, number, 0)
        fewest, most = self._digits
        count = fewest + int(rng.random() * (most - fewest + 1))
        placed: list[Placed] = []
        # Whose ink is seen at each pixel: 0 for the ground, 1 for the first digit.
        owner = np.zeros((self.height, self.width), np.uint8)
        # How many pixels of each digit's ink may still be covered.
        spare = np.empty(0, np.int64)
        for _ in range(count):
            glyph = self._glyph(rng, split)
            found = self._place(rng, glyph, owner, spare)
            if found is None:
                continue
            one, hidden = found
            placed.append(one)
            x1, y1, x2, y2 = one.box
            _window(owner, one)[_rim(one, owner) >= _INK] = 0
            ink = glyph.ink >= _INK
            owner[y1:y2, x1:x2][ink] = len(placed)
            spare = np.append(spare - hidden, int(self._covered * ink.sum()))
        return placed

    def paint(self, split: Split, number: int, placed: list[Placed]) -> _Bytes:
        """Return the picture, (H, W, 3) uint8, of digits on the ground that belongs to a scene."""
        rng = self._rng(split, number, 1)
        contrast = 0.04 + 0.1 * rng.random()
        brightness = 0.25 + 0.5 * rng.random()
        pixels = ground(rng, self.height, self.width, brightness, contrast)
        around = colour(rng, brightness, 0.5)
        inks: list[Field] = []
        for one in placed:
            under = [
                ink for ink, other in zip(inks, placed, strict=False) if _touch(one.box, other.box)
            ]
            inks.append(_ink(rng, brightness, contrast, under))
            window = _window(pixels, one)
            window += _rim(one, pixels)[..., None] * _RIM * (around - window)
            x1, y1, x2, y2 = one.box
            window = pixels[y1:y2, x1:x2]
            window += one.glyph.ink[..., None] * np.float32(1 / 255) * (inks[-1] - window)
        return (pixels * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)

    def _rng(self, split: Split, number: int, part: int) -> np.random.Generator:
        # Ground and digits have numbers of their own, so that boxes need no ground.
        return np.random.default_rng([self._seed, _SPLITS.index(split), number, part])

    def _glyph(self, rng: np.random.Generator, split: Split) -> Glyph:
        """Draw a digit: which scan, how large, wide, slanted, turned and thick."""
        pick, large, wide, slant, turn, thick = rng.random(6)
        which = int(pick * len(self._labels[split]))
        smallest, largest = self._sizes
        # Squared: small ones are likelier, as in most pictures.
        size = smallest + large * large * (largest - smallest)
        side = int(size * _ROOM) + 4
        step = _CELLS / size
        across = step / (0.8 + 0.4 * wide)
        slant = 0.3 * (slant - 0.5)
        # Cosine and sine of up to 14 degrees, without functions that machines round differently.
        half = 0.25 * (turn - 0.5)
        cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
        a, b = across * (cosine + slant * sine), across * (slant * cosine - sine)
        d, e = step * sine, step * cosine
        middle = _CELLS / 2 + 2
        image = Image.fromarray(self._scans[split][which]).transform(
            (side, side),
            Image.Transform.AFFINE,
            (a, b, middle - (a + b) * side / 2, d, e, middle - (d + e) * side / 2),
            Image.Resampling.BICUBIC,
        )
        field = np.asarray(image, np.float32)
        # A stroke's side is as steep as a pixel is wide, whatever the size.
        steep, level = np.float32(max(1.0, 0.8 / step)), np.float32(85.0 + 35.0 * thick)
        ink = np.clip((field - level) * steep + _INK, 0.0, 255.0).astype(np.uint8)
        rim = np.clip((field - (level - 60)) * steep + _INK, 0.0, 255.0).astype(np.uint8)
        rows, columns = (np.flatnonzero((ink >= _INK).any(axis)) for axis in (1, 0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        return Glyph(
            ink[top:bottom, left:right],
            rim[top - 1 : bottom + 1, left - 1 : right + 1],
            int(self._labels[split][which]),
        )

    def _place(
        self, rng: np.random.Generator, glyph: Glyph, owner: _Bytes, spare: npt.NDArray[np.int64]
    ) -> tuple[Placed, npt.NDArray[np.int64]] | None:
        """Find a place where a digit covers no other too much, and how much it covers; None after too many tries."""
        height, width = glyph.ink.shape
        for _ in range(_TRIES):
            down, across = rng.random(2)
            one = Placed(
                glyph,
                int(down * (self.height - height + 1)),
                int(across * (self.width - width + 1)),
            )
            under = _window(owner, one)[_rim(one, owner) >= _INK]
            hidden = np.bincount(under, minlength=len(spare) + 1)[1:]
            if (hidden <= spare).all():
                return one, hidden
        return None


def _window(pixels: npt.NDArray[_Number], one: Placed) -> npt.NDArray[_Number]:
    """Return the part of a picture, (H, W, ...), where a digit's rim lies."""
    x1, y1, x2, y2 = one.box
    return pixels[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1]


def _rim(one: Placed, pixels: npt.NDArray[_Number]) -> _Bytes:
    """Return the part of a digit's rim that lies in the picture."""
    x1, y1, x2, y2 = one.box
    height, width = pixels.shape[:2]
    return one.glyph.rim[
        max(1 - y1, 0) : min(y2 + 1, height) - y1 + 1, max(1 - x1, 0) : min(x2 + 1, width) - x1 + 1
    ]


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """Return whether two boxes have an area in common."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ink(rng: np.random.Generator, brightness: float, contrast: float, under: list[Field]) -> Field:
    """Return a random colour that stands out from the ground, and from the inks that it covers in part."""
    clear = contrast + 0.24
    dark, light = max(brightness - clear - 0.02, 0.0), max(0.98 - brightness - clear, 0.0)
    drawn = []
    for _ in range(4):
        at = rng.random() * (dark + light)
        drawn.append(colour(rng, 0.02 + at if at < dark else brightness + clear + (at - dark), 1.0))
    return max(drawn, key=lambda ink: min((float(abs(ink - x).max()) for x in under), default=0.0))


class Scene(Picture):
    """A scene, composed each time it is read."""

    def __init__(self, composer: Composer, split: Split, number: int) -> None:
        self._composer, self._split, self._number = composer, split, number
        self.height, self.width = composer.height, composer.width

    def read(self, channels: int) -> Tensor:
        """Compose it; grey is ITU-R BT.601's luma."""
        placed = self._composer.layout(self._split, self._number)
        pixels = self._composer.paint(self._split, self._number, placed)
        if channels == 1:
            pixels = np.array(Image.fromarray(pixels).convert("L"))[..., None]
        return torch.from_numpy(pixels).permute(2, 0, 1)


class Scenes(DetectionData):
    """Digits scattered over textured ground: ten classes, `0` to `9`.

    The digits are scikit-learn's 1,797 scans of handwritten ones, 8 x 8 (Alpaydin and Kaynak 1998), enlarged by
    bicubic interpolation and cut to a smooth outline; slanted, stretched and turned a little, and inked in a colour
    that stands out. Ground is drawn by chance from `textures`. The same arguments give the same scenes on any machine.

    The file is in the order of the writers. The last 360 scans make the test scenes, so that their writers are mostly
    new, the first 144 the validation scenes and the others the training scenes: no two splits share a scan.

    A box encloses the ink of its digit as drawn: pixels that it covers by half or more, those under other digits too.
    A digit whose place would hide more than `covered` of another's ink is moved, and left out if 12 places fail; so a
    crowded scene may have fewer digits than `digits` says, but at least one.

    Args:
        batch_size: Pictures of a batch over all processes together.
        train: Training scenes.
        val: Validation scenes.
        test: Test scenes.
        height: Of a scene, in pixels.
        width: Of a scene, in pixels.
        digits: The fewest and the most digits of a scene.
        sizes: The smallest and the largest height of a digit in pixels, before it is turned.
        covered: Share of a digit's ink that others may cover, from 0 to below 1.
        scene_seed: Other scenes for another number; `seed` does not change them, so that runs can be compared.
        size: To what size scenes are brought; as they are, if not given.
        channels: 1 for grey, 3 for colour.
        augment: torchvision.transforms.v2 transforms of training scenes and their boxes, in order.
        mosaic: How several training scenes become one, before `augment`; never if not given.
        smallest: Pixels; digits of which augmentation leaves less in height or width are left out.
        kept_mib: MiB of scenes that each loader process keeps in memory.
        num_workers: Loader processes; 0 composes in the training process, 2 to 3 ms a scene once.
        seed: Seed of the order and of the augmentation.

    Raises:
        ValueError: If a value cannot be used.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        train: int = 2000,
        val: int = 200,
        test: int = 400,
        height: int = 128,
        width: int = 128,
        digits: tuple[int, int] = (3, 8),
        sizes: tuple[float, float] = (16.0, 64.0),
        covered: float = 0.25,
        scene_seed: int = 0,
        size: Size | None = None,
        channels: int = 3,
        augment: list[Transform] | None = None,
        mosaic: Mosaic | None = None,
        smallest: float = 1.0,
        kept_mib: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        for name, count, least in (("train", train, 1), ("val", val, 0), ("test", test, 0)):
            if count < least:
                raise ValueError(f"{name} must be at least {least} scenes, got {count}")
        if len(digits) != 2 or not 1 <= digits[0] <= digits[1] <= _MOST:
            raise ValueError(
                f"digits must be two rising numbers from 1 to {_MOST}, got {list(digits)}"
            )
        if len(sizes) != 2 or not _SMALLEST <= sizes[0] <= sizes[1]:
            raise ValueError(
                f"sizes must be two rising heights in pixels from {_SMALLEST}, got {list(sizes)}; below that a digit "
                "cannot be told"
            )
        if not sizes[1] * _ROOM <= min(height, width):
            raise ValueError(
                f"height and width must be at least {_ROOM} times the largest of sizes, which is {sizes[1]:g}, got "
                f"{height} and {width}; turned digits need the room"
            )
        if not 0.0 <= covered < 1.0:
            raise ValueError(f"covered must be a share from 0 to below 1, got {covered}")
        if scene_seed < 0:
            raise ValueError(f"scene_seed must be at least 0, got {scene_seed}")
        super().__init__(
            batch_size=batch_size,
            size=size if size is not None else ShorterSide(min(height, width), max(height, width)),
            channels=channels,
            augment=augment,
            mosaic=mosaic,
            smallest=smallest,
            kept_mib=kept_mib,
            num_workers=num_workers,
            seed=seed,
        )
        self.scenes: dict[Split, int] = {"train": train, "val": val, "test": test}
        self.height, self.width = height, width
        self.digits, self.sizes = (digits[0], digits[1]), (sizes[0], sizes[1])
        self.covered, self.scene_seed = covered, scene_seed

    def read(self) -> Corpus:
        """Lay out all scenes; they are painted when they are read."""
        # Imported here: it takes a second, which other data need not wait.
        from sklearn.datasets import load_digits

        bunch = load_digits()
        scans = (bunch.images * (255.0 / 16.0)).round().astype(np.uint8)
        parts: dict[Split, slice] = {
            "train": slice(_VAL, -_TEST),
            "val": slice(_VAL),
            "test": slice(-_TEST, None),
        }
        composer = Composer(
            {split: scans[part] for split, part in parts.items()},
            {split: bunch.target[part] for split, part in parts.items()},
            self.height,
            self.width,
            self.digits,
            self.sizes,
            self.covered,
            self.scene_seed,
        )
        return Corpus(
            classes=[str(name) for name in bunch.target_names],
            splits={
                split: [_annotated(composer, split, number) for number in range(count)]
                for split, count in self.scenes.items()
            },
        )


def _annotated(composer: Composer, split: Split, number: int) -> Annotated:
    placed = composer.layout(split, number)
    rows = objects([one.box for one in placed], [one.glyph.label for one in placed])
    return Annotated(Scene(composer, split, number), rows, f"scene {split} {number}", number)
