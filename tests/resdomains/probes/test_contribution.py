from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

import resdomains.core
from resdomains.core import (
    Add,
    BranchOnly,
    DeepNorm,
    DropPath,
    Highway,
    HyperConnection,
    LayerScale,
    Merge,
    Nothing,
    PreActivationBasic,
    Recompute,
    ResidualEncoder,
    ResNet1d,
    ResNet2d,
    Reverse,
    Reversible,
    ReZero,
    ShortcutOnly,
    Site,
    Store,
)
from resdomains.probes import CompositeGain, Contribution, GradientFlow, Lesion, Watch, blocks_of
from resdomains.probes.contribution import terms
from tests.resdomains.probes.toy import Blocks, hooks, rows, side, trainer


def watched(network: nn.Module, *inputs: Any) -> tuple[list[float], list[float]]:
    with Watch(blocks_of(network)) as watch:
        network(*inputs)
    return watch.take(lambda sums: sums)


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        (Add, 1.0),
        (partial(LayerScale, init=0.25), 0.25),
        (partial(LayerScale, init=1e-5), 1e-5),
        (ReZero, 0.0),
        (ShortcutOnly, 0.0),
        # exp(bias) = t / (1 - t): the gate's weights are set to zero below.
        (partial(Highway, bias=-2.0), 0.1353352832),
    ],
)
def test_known_branches_have_known_contributions(
    merge: Callable[[Site], Merge], expected: float
) -> None:
    network = Blocks(3, merge, branch=nn.Identity)
    for module in network.modules():
        if isinstance(module, Highway):
            nn.init.zeros_(module.gate.weight)  # type: ignore[arg-type]
    ratios, _ = watched(network, torch.randn(8, 4))
    assert ratios == pytest.approx([expected] * 3, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        ratios, _ = watched(network, torch.randn(8, 4).bfloat16())
    assert ratios == pytest.approx([expected] * 3, rel=1e-2)


def test_a_plain_block_has_no_contribution_but_a_response() -> None:
    ratios, deviations = watched(Blocks(2, BranchOnly), torch.randn(8, 4))
    assert all(ratio != ratio for ratio in ratios)
    assert all(deviation > 0 for deviation in deviations)


def test_responses_have_the_deviation_of_all_values() -> None:
    network = Blocks(2)
    batches = [torch.randn(count, 4) for count in (5, 9)]
    with Watch(blocks_of(network)) as watch:
        for batch in batches:
            network(batch)
    _, deviations = watch.take(lambda sums: sums)
    first, second = (layer.branch for layer in network.residuals())
    x = torch.cat(batches)
    expected = [first(x), second(x + first(x))]
    assert deviations == pytest.approx([y.std(correction=0).item() for y in expected], rel=1e-5)


@pytest.mark.parametrize(
    "merge",
    [
        getattr(resdomains.core, name)
        for name in resdomains.core.__all__
        if isinstance(part := getattr(resdomains.core, name), type)
        and issubclass(part, Merge)
        and part is not Merge
    ],
)
def test_the_terms_of_every_merge_add_up_to_it_and_the_branch_s_is_linear(
    merge: Callable[[Site], Merge],
) -> None:
    torch.manual_seed(0)
    made = merge(Site(4, -1, 1, 3))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    stream = torch.randn(made.streams, 5, 4) if made.streams > 1 else torch.randn(5, 4)
    s, v, state = made.read(stream)
    b = torch.randn_like(v)
    brought, added = terms(made, s, b, state)
    _, doubled = terms(made, s, 2 * b, state)
    torch.testing.assert_close(doubled, 2 * added)
    torch.testing.assert_close(brought + added, made(s, b.clone(), state).detach())
    if made.reads_shortcut and made.reads_branch:
        without = made(s, torch.zeros_like(b), state).detach()
        torch.testing.assert_close(brought, without)


def test_dropped_branches_count_as_they_enter_the_sum() -> None:
    network = Blocks(1, partial(DropPath, p=0.5, linear=False), branch=nn.Identity)
    x = torch.ones(64, 4)
    torch.manual_seed(1)
    (ratio,), _ = watched(network, x)
    torch.manual_seed(1)
    with torch.no_grad():
        added = network.layers[0](x) - x
    assert ratio == pytest.approx(float(added.norm() / x.norm()))


@pytest.mark.parametrize("merge", [partial(LayerScale, init=0.5), HyperConnection])
def test_padding_of_sequences_does_not_count(merge: Callable[[Site], Merge]) -> None:
    torch.manual_seed(0)
    network = ResidualEncoder(2, 8, in_channels=20, merge=merge).eval()
    x, lengths = torch.randint(0, 20, (2, 9)), torch.tensor([5, 9])
    with Watch(blocks_of(network)) as watch:
        network(x[:1, :5])
        network(x[1:])
    alone = watch.take(lambda sums: sums)
    for one, other in zip(alone, watched(network, x, lengths), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_padding_does_not_count() -> None:
    torch.manual_seed(0)
    network = ResNet1d((2,), (4,), in_channels=2, merge=partial(Add, zero_init=False)).eval()
    x = torch.randn(1, 2, 12)
    alone = watched(network, x)
    padded = torch.cat([x, torch.full((1, 2, 20), 7.0)], 2)
    for one, other in zip(alone, watched(network, padded, torch.tensor([12])), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("memory", [Store, Recompute, Reverse])
def test_passes_that_recompute_count_once(
    memory: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    add = Watch._add

    def counts(self: Watch, index: int, *rest: Any) -> None:
        calls.append(index)
        add(self, index, *rest)

    monkeypatch.setattr(Watch, "_add", counts)
    found = []
    for kept in (Store(), memory()):
        torch.manual_seed(0)
        network = ResNet2d(
            (3,), (4,), block=PreActivationBasic, coupling=Reversible(), memory=kept, after=Nothing,
            merge=partial(Add, zero_init=False),
        )  # fmt: skip
        with Watch(blocks_of(network)) as watch:
            network(torch.randn(2, 3, 8, 8)).maps[-1].square().mean().backward()
        found.append(watch.take(lambda sums: sums))
        assert hooks(network) == 0
        assert calls == [0, 1, 2]
        calls.clear()
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.slow
def test_compiled_blocks_are_watched_as_written_and_stay_compiled() -> None:
    network = ResNet2d((2,), (4,)).eval()
    x = torch.randn(2, 3, 8, 8)
    compilations = 0

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        nonlocal compilations
        compilations += 1
        return graph.forward

    with torch.no_grad():
        expected = watched(network, x)
        for _, block in network.blocks():
            block.compile(backend=backend)
        network(x)
        before = compilations
        found = watched(network, x)
        network(x)
    assert before == compilations > 0
    for one, other in zip(expected, found, strict=True):
        assert one == pytest.approx(other)


class _Fails(Callback):
    def on_before_zero_grad(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: object
    ) -> None:
        assert hooks(pl_module) > 0
        raise RuntimeError("in the middle of a step")


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    task, data = side()
    with pytest.raises(RuntimeError, match="in the middle"):
        trainer(tmp_path, [Contribution(), _Fails()]).fit(task, data)
    assert hooks(task) == 0
    task, data = side()
    trainer(tmp_path, [Contribution(every_n_steps=1)]).fit(task, data)
    assert hooks(task) == 0
    trainer(tmp_path, [Contribution(), CompositeGain(), Lesion()]).validate(
        task, data, verbose=False
    )
    assert hooks(task) == 0


class _Hooked(Callback):
    """Notes at which steps anything is attached to the network."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_before_zero_grad(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: object
    ) -> None:
        if hooks(pl_module):
            self.steps.append(trainer.global_step)


def test_hooks_are_there_for_observed_steps_only(tmp_path: Path) -> None:
    task, data = side()
    hooked, probe = _Hooked(), Contribution(every_n_steps=3)
    trainer(tmp_path, [probe, hooked], accumulate_grad_batches=2, max_epochs=4).fit(task, data)
    assert set(hooked.steps) == {0, 3, 6}
    table = rows(tmp_path / "probes" / "contribution.csv")
    assert [row["step"] for row in table if row["block"] == "1"] == ["0", "3", "6"]


class Noise(nn.Module):
    """Draws random numbers in evaluation, too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * torch.randn_like(x)


def noisy() -> Blocks:
    """A network that draws random numbers and keeps statistics."""
    return Blocks(
        merge=partial(DropPath, p=0.3),
        branch=lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), Noise()),
    )


def test_a_run_with_probes_is_the_run_without(tmp_path: Path) -> None:
    states = []
    probes = [GradientFlow(1), Contribution(1), CompositeGain(), Lesion(draws=1)]
    for callbacks in ([], probes):
        task, data = side(noisy)
        trainer(tmp_path, callbacks).fit(task, data)
        state = {**task.state_dict(), "random": torch.get_rng_state()}
        states.append({**state, "score": task.results["val"]["score"]})
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_finished_run_is_watched_on_its_validation(tmp_path: Path) -> None:
    task, data = side(partial(Blocks, 2, partial(LayerScale, init=0.5), nn.Identity))
    probe = Contribution()
    trainer(tmp_path, [probe, CompositeGain(batches=9)]).validate(task, data, verbose=False)
    assert probe.newest["contribution"] == pytest.approx([0.5, 0.5])
    x = data.points[40:53]
    expected = [float((x * 1.5**i).std(correction=0)) for i in range(2)]
    assert probe.newest["response_std"] == pytest.approx(expected, rel=1e-5)


def test_deep_norm_weighs_the_shortcut() -> None:
    made = DeepNorm(Site(4, -1, 0, 16))
    s = torch.randn(5, 4)
    brought, added = terms(made, s, s.clone(), None)
    torch.testing.assert_close(brought, 2 * s)
    torch.testing.assert_close(added, s)


def test_the_interval_is_checked() -> None:
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got -1"):
        Contribution(every_n_steps=-1)
