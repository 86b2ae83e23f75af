"""Make the README's picture of a run of a shipped config, of what it drew side by side.

python -m tests.benchmarks.picture runs/image_classification/digits/<time>
python -m tests.benchmarks.picture runs/object_detection/scenes/<time>
python -m tests.benchmarks.picture runs/rl_policy/lunarlander/<time>
"""

import argparse
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parent / "pictures"
PARTS = {
    "digits": ("learning_curves", "test_confusion", "test_mistakes"),
    "scenes": ("test_pictures", "test_precision_recall"),
    "lunarlander": ("learning_curves", "test_episode", "test_returns"),
}
HEIGHTS = {"digits": 420, "scenes": 560, "lunarlander": 420}
FRAMES = (3, 2)  # of a film: columns and rows


def drawn(folder: Path, part: str) -> Image.Image:
    """Return a picture of a run, or some frames of a film, evenly spaced."""
    still = folder / f"{part}.png"
    if still.exists():
        with Image.open(still) as picture:
            return picture.convert("RGB")
    columns, rows = FRAMES
    with Image.open(folder / f"{part}.gif") as film:
        last = getattr(film, "n_frames", 1) - 1
        sheet = Image.new("RGB", (columns * film.width, rows * film.height), "white")
        for place in range(columns * rows):
            film.seek(place * last // (columns * rows - 1))
            corner = (place % columns * film.width, place // columns * film.height)
            sheet.paste(film.convert("RGB"), corner)
    return sheet


def main() -> None:
    """Compose and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run.resolve()
    name = run.parent.name
    height = HEIGHTS[name]
    parts = []
    for part in PARTS[name]:
        picture = drawn(run / "pictures", part)
        size = (picture.width * height // picture.height, height)
        parts.append(picture.resize(size, Image.Resampling.LANCZOS))
    whole = Image.new("RGB", (sum(part.width for part in parts), height), "white")
    left = 0
    for picture in parts:
        whole.paste(picture, (left, 0))
        left += picture.width
    FOLDER.mkdir(exist_ok=True)
    whole.quantize(256).save(FOLDER / f"{name}.png", optimize=True)
    print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
