"""The mistakes that a picture classifier is surest of, to be read without a caption."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from resdomains.classification.figures import short


def mistakes(
    rows: Tensor, shape: tuple[int, int, int], classes: Sequence[str], title: str
) -> Figure:
    """Draw the wrong predictions of the highest confidence.

    Args:
        rows: (n, 4 + C H W): confidence, true class, predicted class, sample, picture in [0, 1].
        shape: (C, H, W).
        classes: Class names.
        title: What the figure shows.
    """
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(max(5.0, 2.2 * columns), 2.75 * lines + 0.9), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, axes in zip(rows, grid.flat, strict=False):
        confidence, true, predicted, index = row[:4].tolist()
        picture = row[4:].view(shape).permute(1, 2, 0)
        if shape[0] == 1:
            axes.imshow(picture[..., 0].numpy(), cmap="gray", vmin=0.0, vmax=1.0)
        else:
            axes.imshow(picture.numpy())
        axes.set_title(
            f"{short(classes[int(predicted)], 20)}  {confidence:.0%}",
            fontsize=10,
            color="firebrick",
            pad=16,
        )
        axes.text(
            0.5,
            1.03,
            f"true: {short(classes[int(true)], 20)}",
            transform=axes.transAxes,
            ha="center",
            fontsize=9,
        )
        axes.text(
            0.5,
            -0.03,
            f"sample {int(index)}",
            transform=axes.transAxes,
            ha="center",
            va="top",
            fontsize=7,
            color="0.55",
        )
    figure.suptitle(f"Wrong with the most confidence (red: predicted)\n{title}", fontsize=11)
    return figure
