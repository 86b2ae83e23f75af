"""Make the README's picture of a run of a shipped config, of what it drew side by side.

python -m tests.benchmarks.picture runs/image_classification/digits/<time>
python -m tests.benchmarks.picture runs/object_detection/scenes/<time>
"""

import argparse
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parent / "pictures"
PARTS = {
    "digits": ("learning_curves", "test_confusion", "test_mistakes"),
    "scenes": ("test_pictures", "test_precision_recall"),
}
HEIGHTS = {"digits": 420, "scenes": 560}


def main() -> None:
    """Compose and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run.resolve()
    name = run.parent.name
    height = HEIGHTS[name]
    parts = []
    for part in PARTS[name]:
        with Image.open(run / "pictures" / f"{part}.png") as picture:
            drawn = picture.convert("RGB")
        size = (drawn.width * height // drawn.height, height)
        parts.append(drawn.resize(size, Image.Resampling.LANCZOS))
    whole = Image.new("RGB", (sum(part.width for part in parts), height), "white")
    left = 0
    for drawn in parts:
        whole.paste(drawn, (left, 0))
        left += drawn.width
    FOLDER.mkdir(exist_ok=True)
    whole.quantize(256).save(FOLDER / f"{name}.png", optimize=True)
    print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
