"""W&B may be away, fail or die: training goes on and its record is whole. The client is W&B's own."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resdomains import schema
from resdomains.training import WandbOptions
from tests.resdomains.launching import ALONE, DIGITS, Finished, end, launch, start
from tests.resdomains.wandb_server import WandbServer

FIT = [*ALONE, "fit", *DIGITS, "--test_after_fit", "false", "--run.wandb.mode", "online"]
PROBED = ["--config", "probes/all", "--run.wandb.log_model", "true"]


@pytest.fixture
def server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WandbServer]:
    with WandbServer(silent=getattr(request, "param", False)) as made:
        made.log_in(monkeypatch)
        yield made
        made.log_out()


def losses(run: Finished) -> list[tuple[int, float]]:
    """The training losses in the file that `wandb sync` sends."""
    command = ["wandb", "leet", "inspect", "--json", str(run.only("*.wandb"))]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line).get("history", {}).get("item", {}) for line in text.splitlines()]
    return [
        (row["trainer/global_step"], row[schema.TRAIN_LOSS])
        for row in rows
        if schema.TRAIN_LOSS in row
    ]


@pytest.mark.slow
def test_a_server_that_fails_in_mid_run_holds_nothing_up_and_loses_nothing(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.breaks = "file_stream"  # of rows: its machine's, to begin with
    # W&B asks its server before it takes a table, for so many seconds; the probes log one.
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "2")
    run = launch([*FIT, *PROBED, "--run.wandb.finish_timeout", "8"], tmp_path)
    assert run.returncode == 0, run.stderr
    assert server.fails
    assert run.stderr.count("W&B took no table (") == 1
    assert run.stderr.count("W&B took no checkpoint (") == 1
    assert "http://127.0.0.1" in run.stdout
    said = "W&B did not take all of the run within 8 s; `wandb sync runs/image_classification"
    assert said in run.stderr
    assert losses(run) == run.curve(schema.TRAIN_LOSS)
    assert len(losses(run)) == 20


@pytest.mark.slow
@pytest.mark.parametrize("server", [True], indirect=True, ids=["silent"])
def test_neither_a_server_that_never_answers_nor_a_dead_client_ends_training(
    server: WandbServer, tmp_path: Path
) -> None:
    options = ["--run.wandb.init_timeout", "2", "--trainer.max_epochs", "8"]
    with start([*FIT, *options], tmp_path) as process:
        while process.poll() is None and not any(
            table.stat().st_size for table in tmp_path.rglob("metrics.csv")
        ):
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()
        os.kill(client_of(process.pid), signal.SIGKILL)
        run = end(process, tmp_path)
    assert run.returncode == 0, run.stderr
    assert "W&B      not reached (" in run.stdout
    assert "; kept offline, `wandb sync runs/image_classification" in run.stdout
    assert run.stderr.count("W&B's process has ended") == 1
    assert "Traceback" not in run.stderr
    assert run.summary["status"] == "finished"
    assert len(run.curve(schema.TRAIN_LOSS)) == 160
    assert len(losses(run)) < 160  # else the client had died too late


def client_of(process: int) -> int:
    """W&B's own process among the children of a run."""
    command = ["ps", "-o", "pid=,comm=", "--ppid", str(process)]
    children = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [client] = [line for line in children.splitlines() if "wandb-core" in line]
    return int(client.split()[0])


def test_online_needs_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"wandb\.mode online needs a login: `wandb login`"):
        WandbOptions(mode="online")
    assert WandbOptions().resolved_mode() == "offline"


def test_a_time_is_positive() -> None:
    with pytest.raises(ValueError, match=r"wandb\.init_timeout must be seconds above 0, got 0"):
        WandbOptions(init_timeout=0)
    with pytest.raises(ValueError, match=r"wandb\.finish_timeout must be seconds above 0, got -1"):
        WandbOptions(finish_timeout=-1)
