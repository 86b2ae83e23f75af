"""What holds of the arithmetic, whatever the network is made of."""

import math
from collections.abc import Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor

import resdomains.core
from resdomains import schema
from resdomains.cli.errors import CliError
from resdomains.core import Coupling, Memory, Merge, Recompute
from resdomains.probes import CompositeGain, Contribution, GradientFlow, Lesion
from resdomains.testing.bench import (
    Bench,
    gradients,
)
from resdomains.testing.rules.rule import Broken, rule
from resdomains.training import DataModule


@rule(
    "compute losses and other sums over many values in float32 (logits.float()); keep exponentials and logarithms "
    "inside torch's own loss functions"
)
def bfloat16_is_close_to_float32(bench: Bench) -> None:
    """Under bf16 autocast a step's loss and the direction of its gradient stay close to those in float32."""
    task, data = bench.build({"data.batch_size": "8"})
    batch = bench.batch(task, data)
    state = {name: value.clone() for name, value in task.state_dict().items()}
    exact_loss, exact = gradients(task, batch)
    task.load_state_dict(state)
    with torch.autocast("cpu", torch.bfloat16):
        loss, rounded = gradients(task, batch)
    off = abs(float(loss) - float(exact_loss)) / max(abs(float(exact_loss)), 1e-3)
    if not off <= bench.case.bf16_tolerance:
        raise Broken(
            f"the loss is {float(loss):.5g} in bfloat16 and {float(exact_loss):.5g} in float32: off by {off:.1%}, "
            f"allowed {bench.case.bf16_tolerance:.1%}"
        )
    one, two = (
        torch.cat([g.double().flatten() for g in grads.values()]) for grads in (exact, rounded)
    )
    cosine = float(one @ two / (one.norm() * two.norm()))
    if not cosine >= 0.95:
        raise Broken(
            f"the gradients in bfloat16 and float32 have a cosine of {cosine:.3f}, expected at least 0.95"
        )


@rule(
    "take the backbone as given: a network of resdomains.core, whose `merge` any config may change; build a merge's "
    "refusals in its own `check`"
)
def takes_every_merge(bench: Bench) -> None:
    """Every merge of the core either runs one step, or is refused when built with the reason."""
    ran = []
    _, data = bench.build({"data.batch_size": "8"})
    for name in parts(Merge):
        try:
            task = bench.task(data, {"model.backbone.merge": name})
        except CliError as error:
            if name not in str(error):
                raise Broken(f"merge {name} is refused without a reason: {error}") from error
            continue
        used = {type(getattr(block, "merge", None)).__name__ for _, block in task.blocks()}
        if name not in used:
            raise Broken(
                f"asked for merge {name}, the backbone's blocks have {', '.join(sorted(used)) or 'none'}"
            )
        loss, grads = gradients(task, bench.batch(task, data))
        if not loss.isfinite() or not all(g.isfinite().all() for g in grads.values()):
            raise Broken(f"with merge {name} the loss or a gradient is not finite")
        ran.append(name)
    if "Add" not in ran or "BranchOnly" not in ran:
        raise Broken(
            f"only {', '.join(ran) or 'no merge'} ran; the residual sum and the plain network must"
        )


def parts(base: type) -> list[str]:
    """Return the names of the core's parts of a kind, in the order in which it lists them."""
    return [
        name
        for name in resdomains.core.__all__
        if isinstance(part := getattr(resdomains.core, name), type)
        and issubclass(part, base)
        and part is not base
    ]


def combine(bench: Bench, data: DataModule, merge: str, coupling: str) -> bool:
    """Take a step with a merge, a coupling, and each memory that the network allows with them.

    Returns:
        Whether the network allows any.

    Raises:
        Broken: If one is refused without a reason, is not what is built, or computes something else than the others.
    """
    expected: tuple[float, float] | None = None
    batch: Any = None
    for memory in parts(Memory):
        asked = {"merge": merge, "coupling": coupling, "memory": memory}
        said = ", ".join(f"{key} {name}" for key, name in asked.items())
        changes = {f"model.backbone.{key}": name for key, name in asked.items()}
        try:
            task = bench.task(data, changes)
        except CliError as error:
            if not any(name in str(error) for name in asked.values()):
                raise Broken(f"{said} is refused without a reason: {error}") from error
            continue
        used = {type(m).__name__ for m in task.modules()}
        used |= {type(getattr(m, key, None)).__name__ for m in task.modules() for key in asked}
        absent = [name for name in asked.values() if name not in used]
        if absent:
            raise Broken(f"asked for {said}, the backbone has no {', '.join(absent)}")
        if expected is None:
            # One for all: environments would have moved on.
            batch = bench.batch(task, data)
        torch.manual_seed(0)
        loss, grads = gradients(task, batch)
        norm = torch.stack([g.double().norm() for g in grads.values()]).norm()
        found = float(loss), float(norm)
        if not all(map(math.isfinite, found)):
            raise Broken(f"with {said} the loss is {found[0]}, the gradient's norm {found[1]}")
        # Where memory is computed anew it is rounded anew.
        if expected is not None and not all(
            math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6)
            for a, b in zip(expected, found, strict=True)
        ):
            raise Broken(
                f"with {said} the loss is {found[0]:.6g} and the gradient's norm {found[1]:.6g}, with another memory "
                f"{expected[0]:.6g} and {expected[1]:.6g}"
            )
        expected = found
    return expected is not None


@rule(
    "take the backbone as given: how it joins, couples and keeps its blocks is its own affair, and what it cannot do "
    "it refuses when it is built; no part of the task may ask for one of them"
)
def takes_sampled_combinations(bench: Bench) -> None:
    """With each coupling a merge, drawn by the task's name, runs with every memory that the network allows."""
    _, data = bench.build({"data.batch_size": "4"})
    names, random = parts(Merge), Random(bench.case.plugin.name)
    for coupling in parts(Coupling):
        drawn = random.sample(names, len(names))
        ran = any(combine(bench, data, merge, coupling) for merge in drawn)
        if coupling == "Plain" and not ran:
            raise Broken("no merge runs, even if blocks are not coupled")


@rule(
    "take the backbone as given, and run it once a step: what counts passes must ask resdomains.core.recomputing()"
)
def recomputing_gives_equal_gradients(bench: Bench) -> None:
    """With Recompute memory a step's loss, gradients and statistics equal those with Store."""
    found: list[tuple[Tensor, dict[str, Tensor], Mapping[str, Tensor]]] = []
    for memory in ("Store", "Recompute"):
        task, data = bench.build({"model.backbone.memory": memory, "data.batch_size": "8"})
        kinds = {type(getattr(m, "memory", None)) for m in task.modules()}
        if memory == "Recompute" and Recompute not in kinds:
            raise Broken("the backbone does not use the memory that its config names")
        torch.manual_seed(0)
        loss, grads = gradients(task, bench.batch(task, data))
        found.append((loss, grads, dict(task.named_buffers())))
    (loss, grads, buffers), (loss2, grads2, buffers2) = found
    if not torch.allclose(loss, loss2, rtol=1e-6):
        raise Broken(f"the loss is {float(loss)} with Store and {float(loss2)} with Recompute")
    largest = max(float(g.abs().max()) for g in grads.values())
    for name, gradient in grads.items():
        if name not in grads2 or float((gradient - grads2[name]).abs().max()) > 1e-6 * max(
            largest, 1e-6
        ):
            raise Broken(f"the gradient of {name} differs between Store and Recompute")
    for name, buffer in buffers.items():
        if not torch.allclose(buffer.double(), buffers2[name].double(), equal_nan=True):
            raise Broken(
                f"{name} differs between Store and Recompute: statistics are updated twice"
            )


@rule(
    "let step run the backbone by calling it, with gradients in training; keep all that the score needs in the "
    "metrics of build_metrics, which a probe replaces for each network that it scores"
)
def probes_run(bench: Bench) -> None:
    """All probes measure every block in a short run, and the whole network scores what validation says."""
    probes = [
        GradientFlow(every_n_steps=1),
        Contribution(every_n_steps=1),
        CompositeGain(draws=1),
        lesion := Lesion(removed=[1], draws=1),
    ]
    changes = dict.fromkeys(("trainer.max_epochs", "trainer.limit_val_batches"), "1")
    trained = bench.fit({**changes, "trainer.limit_train_batches": "2"}, callbacks=probes)
    for probe in probes:
        for name, values in probe.newest.items():
            strange = [v for v in values if isinstance(v, float) and not math.isfinite(v)]
            if strange or (name in ("gradient_norm", "gain") and not any(values)):
                raise Broken(f"{name} of the blocks is {list(values)}")
    score = float(trained.task.results["val"][schema.SCORE])
    if lesion.baseline is None or abs(lesion.baseline - score) > 1e-6:
        raise Broken(
            f"the probe scores the whole network {lesion.baseline}, validation on the same batches {score}"
        )
