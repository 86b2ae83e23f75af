"""Two processes do what one does, and end together when one fails. Every run here is the real command."""

from pathlib import Path

import pytest
import yaml

from resdomains.training import schema
from tests.resdomains.launching import ALONE, DIGITS, TORCHRUN, TWO, Finished, launch

pytestmark = pytest.mark.slow

Runs = dict[str, Finished]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The same config and seed in one process, in two of Lightning's, and in two of torchrun's."""
    options = [*DIGITS, "--model.backbone.norm", "SynchronisedBatchNorm"]
    commands = {
        "one": [*ALONE, "fit", *options],
        "ddp": [*ALONE, "fit", *options, *TWO],
        "torchrun": [*TORCHRUN, "fit", *options, *TWO],
    }
    found = {name: launch(c, tmp_path_factory.mktemp(name)) for name, c in commands.items()}
    for name, run in found.items():
        assert run.returncode == 0, f"{name}: {run.stderr}"
    return found


@pytest.mark.parametrize("launcher", ["ddp", "torchrun"])
def test_two_processes_train_as_one_does(runs: Runs, launcher: str) -> None:
    one, two = (runs[name].curve(schema.TRAIN_LOSS) for name in ("one", launcher))
    assert [step for step, _ in one] == [step for step, _ in two] == list(range(1, 21))
    for (_, expected), (_, loss) in zip(one, two, strict=True):
        assert loss == pytest.approx(expected, abs=1e-4)
    assert min(loss for _, loss in one) < one[0][1]


@pytest.mark.parametrize("launcher", ["ddp", "torchrun"])
def test_validation_and_test_count_every_sample_once(runs: Runs, launcher: str) -> None:
    for name, samples in ((schema.VAL_SCORE, 101), ("test/score", 360), ("val/top5", 101)):
        [(_, one)], [(_, two)] = (runs[run].curve(name) for run in ("one", launcher))
        assert two == pytest.approx(one, abs=1e-7)
        assert two * samples == pytest.approx(round(two * samples), abs=1e-4)
    [(_, one)], [(_, two)] = (runs[run].curve(schema.VAL_LOSS) for run in ("one", launcher))
    assert two == pytest.approx(one, abs=1e-4)


@pytest.mark.parametrize("launcher", ["ddp", "torchrun"])
def test_two_processes_leave_one_run(runs: Runs, launcher: str) -> None:
    run = runs[launcher]
    parent = run.folder / "runs" / "image_classification" / "digits"
    [folder] = parent.iterdir()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]
    run.only("*.wandb")
    assert run.summary["status"] == "finished"
    assert run.summary["world_size"] == 2
    assert run.summary["samples"] == 20 * 64
    assert run.stdout.count("best val/score") == 1


def test_both_processes_work(runs: Runs) -> None:
    samples = [runs[name].curve(schema.SAMPLES)[19] for name in ("one", "ddp", "torchrun")]
    assert samples == [(20, 1280.0)] * 3
    flops = [runs[name].curve(schema.FLOPS)[19][1] for name in ("one", "ddp", "torchrun")]
    assert flops[0] == pytest.approx(flops[1], rel=0.01) == flops[2]


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


@pytest.mark.parametrize("launcher", [ALONE, TORCHRUN], ids=["ddp", "torchrun"])
def test_a_process_that_fails_ends_the_job_with_its_error(
    launcher: list[str], tmp_path: Path
) -> None:
    done = launch([*launcher, *config(tmp_path, "Raises", 1)], tmp_path)
    assert done.returncode not in (0, None)
    assert "error in process 1: RuntimeError: the second process has had enough" in done.stderr
    assert done.summary["status"] == "failed"


@pytest.mark.parametrize(
    ("launcher", "interval"), [(ALONE, 1), (TORCHRUN, 5)], ids=["ddp-1", "torchrun-5"]
)
def test_not_a_number_in_one_process_ends_the_job(
    launcher: list[str], interval: int, tmp_path: Path
) -> None:
    done = launch([*launcher, *config(tmp_path, "Poisons", interval)], tmp_path)
    assert done.returncode not in (0, None)
    where = "step 3" if interval == 1 else "steps 1 to 5"
    assert f"the training loss became nan at {where} (epoch 0). Lower --model" in done.stderr
    assert done.stderr.count("became nan") == 1
    assert done.summary["status"] == "failed"
    assert not list(tmp_path.rglob("*.ckpt"))


def test_two_processes_go_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    options = [
        *DIGITS,
        *("--model.backbone.norm", "LayerNorm", "--trainer.val_check_interval", "13"),
        *("--model.optimization.schedule", "resdomains.training.Constant"),
        *("--model.optimization.schedule.warmup", "0"),  # a fraction of all steps, here 13 or 20
        *("--test_after_fit", "false"),
    ]

    def fit(name: str, steps: int, *more: str) -> Finished:
        (tmp_path / name).mkdir()
        command = [*ALONE, "fit", *options, "--trainer.max_steps", str(steps), *more]
        done = launch(command, tmp_path / name)
        assert done.returncode == 0, done.stderr
        return done

    whole = fit("whole", 20, *TWO).curve(schema.TRAIN_LOSS)
    stopped = str(fit("stopped", 13, *TWO).only("last.ckpt"))
    rest = fit("rest", 20, *TWO, "--ckpt_path", stopped).curve(schema.TRAIN_LOSS)
    assert rest == whole[13:]
    # Another number of processes takes up the same global batches.
    alone = fit("alone", 20, "--ckpt_path", stopped).curve(schema.TRAIN_LOSS)
    assert [step for step, _ in alone] == [step for step, _ in rest]
    for (_, expected), (_, loss) in zip(rest, alone, strict=True):
        assert loss == pytest.approx(expected, abs=1e-4)
