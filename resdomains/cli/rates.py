"""Find a learning rate with Lightning's Tuner."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning import seed_everything
from pytorch_lightning.tuner.tuning import Tuner

from resdomains.cli.arguments import Arguments
from resdomains.cli.errors import FAILED, CliError
from resdomains.cli.fitting import build_trainer, compose, print_or_explain
from resdomains.cli.main import complain
from resdomains.cli.quiet import quiet


def find_rate(arguments: Arguments) -> int:
    """Run the test, draw it and print the suggestion; 1 if the loss never fell.

    Raises:
        CliError: If the options make no sense.
    """
    quiet()
    first, last = _rate(arguments, "min_lr", 1e-6), _rate(arguments, "max_lr", 1.0)
    if first >= last:
        raise CliError(f"--min_lr {first:g} must be below --max_lr {last:g}")
    output = Path(arguments.options.get("output", "lr_find.png"))
    if not output.absolute().parent.is_dir():
        raise CliError(f"--output {output}: its folder does not exist")
    session = compose(arguments)
    if print_or_explain(arguments, session):
        return 0
    seed_everything(session.seed, workers=True, verbose=False)
    data = session.data()
    task = session.task(data.spec)
    if not task.automatic_optimization:
        raise CliError(
            f"lr-find: {type(task).__name__} optimises by hand, so that its loss over one step says nothing of a rate; "
            "compare runs with different --model.optimization.lr"
        )
    with tempfile.TemporaryDirectory() as folder:
        # The Tuner keeps the initial weights in a file under the trainer's root.
        trainer, _ = build_trainer(session, [], Path(folder), bar=sys.stderr.isatty())
        if trainer.world_size > 1:
            raise CliError(
                "trainer.devices: lr-find runs in one process; its rate holds for the same global batch"
            )
        found = Tuner(trainer).lr_find(
            task,
            datamodule=data,
            min_lr=first,
            max_lr=last,
            num_training=arguments.number("steps", 100),
            attr_name="lr",
            update_attr=False,
        )
    assert found is not None
    suggestion = found.suggestion()
    draw(found.results["lr"], found.results["loss"], suggestion, output)
    print(f"picture     {output}")
    if suggestion is None:
        complain(
            "no rate can be suggested: the loss did not fall; try --steps 300 or another range"
        )
        return FAILED
    print(f"suggestion  --model.optimization.lr {suggestion:.3g}")
    return 0


def _rate(arguments: Arguments, name: str, default: float) -> float:
    text = arguments.options.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise CliError(f"--{name} {text}: expected a number above 0")
    return value


def draw(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None, path: Path
) -> None:
    """Draw the smoothed loss over the learning rate, with the suggestion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses)
    if suggestion is not None:
        axes.axvline(
            suggestion, color="tab:red", linestyle="--", label=f"suggestion {suggestion:.3g}"
        )
        axes.legend()
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (smoothed)")
    figure.savefig(path, dpi=120)
