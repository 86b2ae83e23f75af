"""Make the README's picture of a run: its learning curves, confusion matrix and mistakes side by side.

python -m tests.benchmarks.picture runs/image_classification/digits/<time>
"""

import argparse
from pathlib import Path

from PIL import Image

OUTPUT = Path(__file__).parent / "pictures" / "digits.png"
HEIGHT = 420


def main() -> None:
    """Compose and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run / "pictures"
    parts = []
    for name in ("learning_curves", "test_confusion", "test_mistakes"):
        with Image.open(folder / f"{name}.png") as picture:
            part = picture.convert("RGB")
        parts.append(
            part.resize((part.width * HEIGHT // part.height, HEIGHT), Image.Resampling.LANCZOS)
        )
    whole = Image.new("RGB", (sum(part.width for part in parts), HEIGHT), "white")
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width
    OUTPUT.parent.mkdir(exist_ok=True)
    whole.quantize(128).save(OUTPUT, optimize=True)
    print(OUTPUT)


if __name__ == "__main__":
    main()
