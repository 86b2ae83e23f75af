"""What is logged in W&B when a run ends; the client is W&B's own."""

import subprocess
from pathlib import Path

import pytest

from resdomains.training import WandbOptions
from resdomains.training.weights_and_biases import begin_wandb
from tests.resdomains.launching import surroundings
from tests.resdomains.wandb_server import WandbServer


@pytest.mark.parametrize("log_model", [False, True])
def test_checkpoints_of_an_offline_run_are_sent_later_where_that_was_asked_for(
    log_model: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"best": tmp_path / "best.ckpt", "latest": tmp_path / "last.ckpt"}
    for alias, path in files.items():
        path.write_bytes(alias.encode() * 1000)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    record = begin_wandb(
        WandbOptions(log_model=log_model),
        "offline",
        tmp_path,
        run_id="run00000",
        name="name",
        group="group",
        tags=[],
        facts={"task": "images", "merge": "Add"},
        metric_names=[],
    )
    result = {"best": {"val/score": 0.75}, "final": {"val/score": 0.5}}
    assert record.finish(True, result, files) is None
    with WandbServer() as server:
        server.log_in(monkeypatch)
        command = ["wandb", "sync", str(record.folder)]
        subprocess.run(command, env=surroundings(), check=True, capture_output=True, timeout=120)
        sent = [(made.name, made.kind, made.metadata["score"]) for made in server.artifacts]
        kept = [made.files["model.ckpt"] for made in server.artifacts]
        server.log_out()
    if not log_model:
        assert sent == []
        return
    # No copies elsewhere.
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert sent == [("model-run00000", "model", 0.75), ("model-run00000", "model", 0.5)]
    assert kept == [path.read_bytes() for path in files.values()]
