"""Make the README's picture of probes: a run's gradients over its lesions.

resdomains fit --config image_classification/digits --config probes/all --model.backbone.layers "[9, 9]" \\
    --trainer.max_epochs 30
resdomains probe --ckpt_path runs/image_classification/digits/<time>/checkpoints/best.ckpt --draws 10
python -m tests.benchmarks.probe_picture runs/image_classification/digits/<time>
"""

import argparse
from pathlib import Path

from PIL import Image

OUTPUT = Path(__file__).parent / "pictures" / "probes.png"


def main() -> None:
    """Compose and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run / "probes"
    parts = []
    for path in (folder / "gradients.png", folder / "best" / "lesion.png"):
        with Image.open(path) as picture:
            parts.append(picture.convert("RGB"))
    size = (max(part.width for part in parts), sum(part.height for part in parts))
    whole = Image.new("RGB", size, "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    OUTPUT.parent.mkdir(exist_ok=True)
    whole.quantize(128).save(OUTPUT, optimize=True)
    print(OUTPUT)


if __name__ == "__main__":
    main()
