"""Several processes do what one does, and end together when one fails. Every run here is the real command."""

import socket
import sys
from pathlib import Path

import pytest
import torch
import yaml

from resdomains import schema
from resdomains.training import load_task, read_checkpoint
from tests.resdomains.launching import ALONE, DIGITS, TORCHRUN, TWO, Finished, end, launch, start

pytestmark = pytest.mark.slow

Runs = dict[str, Finished]

# One validation, in the middle of the epoch: the last checkpoint is of step 13, and some of the runs go on from there.
OPTIONS = [
    *DIGITS,
    *("--model.backbone.norm", "SynchronisedBatchNorm", "--trainer.val_check_interval", "13"),
    *("--model.optimization.schedule", "resdomains.training.Constant"),
    # A higher rate lets the order of sums show.
    *("--model.optimization.schedule.warmup", "0", "--model.optimization.lr", "0.02"),
]
SHARED = ["--config", "trainer/fsdp", "--trainer.devices", "2"]
# By name, how many there are.
SEVERAL = {"ddp": 2, "machines": 2, "fsdp": 2, "machines, shared within each": 4}


def on_two_machines(
    command: list[str], strategy: str, processes: int, folder: Path
) -> list[Finished]:
    """Run a command under two launchers with some processes each, as two machines would."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        endpoint = f"localhost:{probe.getsockname()[1]}"
    launcher = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
        *("--nproc-per-node", str(processes)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "job"),
        *("-m", "resdomains.cli"),
    ]
    several = ["--config", f"trainer/{strategy}", "--trainer.num_nodes", "2"]
    several += ["--trainer.devices", str(processes)]
    agents = [start([*launcher, *command, *several], folder) for _ in range(2)]
    return [end(agent, folder) for agent in agents]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The same config and seed in one process, in two of Lightning's, with shared parameters, and on two machines.

    The machines once hold a network a process, and once one each, shared by two processes.
    """
    commands = {"one": [], "ddp": TWO, "fsdp": SHARED}
    found = {
        name: launch([*ALONE, "fit", *OPTIONS, *more], tmp_path_factory.mktemp(name))
        for name, more in commands.items()
    }
    for name, run in found.items():
        assert run.returncode == 0, f"{name}: {run.stderr}"
    for name, strategy in (("machines", "ddp"), ("machines, shared within each", "fsdp")):
        place = tmp_path_factory.mktemp("machines")
        both = on_two_machines(["fit", *OPTIONS], strategy, SEVERAL[name] // 2, place)
        for run in both:
            assert run.returncode == 0, f"{name}: {run.stderr}"
        # Which launcher has the first process is theirs to agree on.
        found[name] = max(both, key=lambda run: len(run.stdout))
    return found


@pytest.mark.parametrize("name", SEVERAL)
def test_several_processes_train_as_one_does(runs: Runs, name: str) -> None:
    one, two = (runs[run].curve(schema.TRAIN_LOSS) for run in ("one", name))
    assert [step for step, _ in one] == [step for step, _ in two] == list(range(1, 21))
    for (_, expected), (_, loss) in zip(one, two, strict=True):
        assert loss == pytest.approx(expected, abs=1e-4)
    assert min(loss for _, loss in one) < one[0][1]


@pytest.mark.parametrize("name", SEVERAL)
def test_validation_and_test_count_every_sample_once(runs: Runs, name: str) -> None:
    for metric, samples in ((schema.VAL_SCORE, 101), ("test/score", 360), ("val/top5", 101)):
        [(_, one)], [(_, two)] = (runs[run].curve(metric) for run in ("one", name))
        assert two == pytest.approx(one, abs=1e-7)
        assert two * samples == pytest.approx(round(two * samples), abs=1e-4)
    [(_, one)], [(_, two)] = (runs[run].curve(schema.VAL_LOSS) for run in ("one", name))
    assert two == pytest.approx(one, abs=1e-4)


@pytest.mark.parametrize("name", SEVERAL)
def test_several_processes_leave_one_run(runs: Runs, name: str) -> None:
    run = runs[name]
    parent = run.folder / "runs" / "image_classification" / "digits"
    [folder] = parent.iterdir()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    ]
    run.only("*.wandb")
    assert run.summary["status"] == "finished"
    assert run.summary["world_size"] == SEVERAL[name]
    assert run.summary["samples"] == 20 * 64
    assert run.stdout.count("best val/score") == 1


def test_shared_parameters_are_saved_whole(runs: Runs) -> None:
    whole, shared = (read_checkpoint(runs[name].only("last.ckpt")) for name in ("ddp", "fsdp"))
    for key in ("state_dict", "current_model_state"):
        assert list(whole[key]) == list(shared[key])
        for name, value in whole[key].items():
            torch.testing.assert_close(shared[key][name], value, rtol=1e-4, atol=1e-6)
    [one], [two] = whole["optimizer_states"], shared["optimizer_states"]
    assert [group["params"] for group in one["param_groups"]] == [
        group["params"] for group in two["param_groups"]
    ]
    for number, values in one["state"].items():
        torch.testing.assert_close(two["state"][number], values, rtol=1e-3, atol=1e-5)
    [record] = load_task(runs["fsdp"].only("best.ckpt")).predict(
        {"image": torch.zeros(1, 1, 8, 8), "index": torch.zeros(1), "source": ["zeros"]}
    )
    assert 0 <= record["probability"] <= 1


def test_all_processes_work(runs: Runs) -> None:
    samples, flops = (
        [max(runs[name].curve(axis))[1] for name in ("one", *SEVERAL)]
        for axis in (schema.SAMPLES, schema.FLOPS)
    )
    assert samples == [1280.0] * len(samples)
    assert flops == pytest.approx([flops[0]] * len(flops), rel=0.01)


def test_a_batch_that_two_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    done = launch([*ALONE, "fit", *DIGITS, *TWO, "--data.batch_size", "63"], tmp_path)
    assert done.returncode != 0
    assert (
        "must be a multiple of their number, got 63 for 2 processes; take 62 or 64" in done.stderr
    )


def config(folder: Path, data: str, interval: int) -> list[str]:
    """A tiny run over data of `rank_faults`, which go wrong in the second process."""
    values = {
        "trainer": {"max_epochs": 2, "log_every_n_steps": interval, "accelerator": "cpu"},
        "model": {
            "class_path": "tests.resdomains.rank_faults.Tagging",
            "init_args": {
                "backbone": {
                    "class_path": "resdomains.core.ResNet1d",
                    "init_args": {"in_channels": 1, "layers": [1], "channels": [8]},
                }
            },
        },
        "data": {
            "class_path": f"tests.resdomains.rank_faults.{data}",
            "init_args": {"batch_size": 8},
        },
        "run": {"wandb": {"mode": "offline"}},
    }
    (folder / "faulty.yaml").write_text(yaml.safe_dump(values))
    plugin = ["--plugin", "tests.resdomains.rank_faults"]
    return ["fit", "--config", str(folder / "faulty.yaml"), *TWO, *plugin]


def test_a_process_that_fails_ends_the_job_with_its_error(tmp_path: Path) -> None:
    done = launch([*ALONE, *config(tmp_path, "Raises", 1)], tmp_path)
    assert done.returncode not in (0, None)
    assert "error in process 1: RuntimeError: the second process has had enough" in done.stderr
    assert done.summary["status"] == "failed"


@pytest.mark.parametrize(
    ("launcher", "interval"), [(ALONE, 1), (TORCHRUN, 5)], ids=["ddp-1", "torchrun-5"]
)
def test_not_a_number_in_one_process_ends_the_job(
    launcher: list[str], interval: int, tmp_path: Path
) -> None:
    slow = ["--trainer.callbacks+", "tests.resdomains.rank_faults.SlowToEnd"]
    done = launch([*launcher, *config(tmp_path, "Poisons", interval), *slow], tmp_path)
    assert done.returncode == 1
    where = "step 3" if interval == 1 else "steps 1 to 5"
    assert f"the training loss became nan at {where} (epoch 0). Lower --model" in done.stderr
    assert done.stderr.count("became nan") == 1
    assert done.summary["status"] == "failed"
    assert not list(tmp_path.rglob("*.ckpt"))


def test_two_processes_go_on_in_the_middle_of_an_epoch(runs: Runs, tmp_path: Path) -> None:
    def go_on(name: str, *more: str) -> list[tuple[int, float]]:
        (tmp_path / name).mkdir()
        options = [*OPTIONS, "--test_after_fit", "false", *more]
        done = launch([*ALONE, "fit", *options], tmp_path / name)
        assert done.returncode == 0, done.stderr
        return done.curve(schema.TRAIN_LOSS)

    whole = runs["ddp"].curve(schema.TRAIN_LOSS)[13:]
    # Of the validation after step 13; the epoch has 20.
    stopped = str(runs["ddp"].only("previous.ckpt"))
    assert go_on("again", *TWO, "--ckpt_path", stopped) == whole
    # Another number of processes takes up the same global batches, also of a run that shared its parameters.
    alone = go_on("alone", "--ckpt_path", str(runs["fsdp"].only("previous.ckpt")))
    assert [step for step, _ in alone] == [step for step, _ in whole]
    for (_, expected), (_, loss) in zip(whole, alone, strict=True):
        assert loss == pytest.approx(expected, abs=1e-4)


def test_a_trainer_of_other_processes_than_were_started_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What torchrun tells the first of two processes; it never gets to wait for the second.
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("GROUP_RANK", "0")):
        monkeypatch.setenv(name, value)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    done = launch([*ALONE, "fit", *DIGITS], tmp_path)
    assert done.returncode == 2
    assert (
        "torchrun started 2 processes, 2 on this machine, but this trainer is one of 1 machine with 1 process; "
        "add --config trainer/ddp (or trainer/fsdp) --trainer.devices 2"
    ) in done.stderr
