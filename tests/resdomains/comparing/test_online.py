"""Runs that W&B's own client sent to a server are read back as they lie on the disk."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from resdomains.comparing import (
    RecordedRun,
    UnreadableRun,
    online,
    read_runs,
    run_table,
    seed_table,
)
from resdomains.comparing.offline import PROBED
from resdomains.comparing.online import read_online
from tests.resdomains.comparing.recorded import (
    FACTS,
    rows,
    write_folder,
    write_offline,
    write_online,
)
from tests.resdomains.launching import ALONE, DIGITS, launch
from tests.resdomains.wandb_server import ENTITY, StoredRun, WandbServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WandbServer]:
    """A server with three runs of resdomains in two groups, and one of somebody else."""
    with WandbServer() as made, pytest.MonkeyPatch.context() as monkeypatch:
        made.log_in(monkeypatch)
        folder = tmp_path_factory.mktemp("sent")
        for number in range(3):
            group = "deep/merges" if number else "other"
            changes = {"seed": number, "rows": rows(1001 if number == 0 else 5 + number)}
            write_online(folder, f"run{number}", group=group, **changes)
        write_online(folder, "probed", job_type="probe")
        made.runs["else"] = StoredRun("resdomains", "else", config={"lr": {"value": 0.1}})
        yield made
        made.log_out()


def test_server_file_and_folder_give_one_table(server: WandbServer, tmp_path: Path) -> None:
    write_offline(tmp_path / "files" / "probed", job_type="probe")
    for number in range(3):
        values = rows(1001 if number == 0 else 5 + number)
        write_folder(tmp_path / "folders" / str(number), f"run{number}", seed=number, rows=values)
        write_offline(tmp_path / "files" / str(number), f"run{number}", seed=number, rows=values)
    places = ["wandb:resdomains", str(tmp_path / "folders"), str(tmp_path / "files")]
    online, *others = (read_runs([place]) for place in places)
    assert [(error.source, error.reason) for error in online.left_out] == [
        (f"wandb:{ENTITY}/resdomains/probed", PROBED),
        (f"wandb:{ENTITY}/resdomains/else", "holds no run of resdomains"),
    ]
    assert len(online.runs) == 3
    table = run_table(online.runs)
    assert [error.reason for error in others[1].left_out] == [PROBED]
    for found in others:
        for one, two in zip(online.runs, found.runs, strict=True):
            pd.testing.assert_frame_equal(
                one.history.sort_index(axis=1), two.history.sort_index(axis=1), check_dtype=False
            )
            pd.testing.assert_frame_equal(one.profile, two.profile)
            pd.testing.assert_frame_equal(one.removal, two.removal)
        other = run_table(found.runs)
        pd.testing.assert_frame_equal(
            table.drop(columns="source"), other.drop(columns="source"), check_dtype=False
        )
        pd.testing.assert_frame_equal(seed_table(table), seed_table(other), check_dtype=False)


def test_a_group_is_read_alone_and_a_run_that_lies_here_too_counts_once(
    server: WandbServer, tmp_path: Path
) -> None:
    place = f"wandb:{ENTITY}/resdomains/deep/merges"
    assert [run.run_id for run in read_runs([place]).runs] == ["run1", "run2"]
    write_folder(tmp_path / "run", "run1", rows=rows(3))
    found = {run.run_id: run for run in read_runs([str(tmp_path), place]).runs}
    assert len(found) == 2
    assert len(found["run1"].history) == 6  # the record with the most rows


def test_records_that_a_run_repeated_when_it_went_on_count_once(server: WandbServer) -> None:
    lines = [json.loads(line) for line in server.runs["run1"].history]
    # Killed after step 4, it begins at this step again; killed after step 5, at step 3.
    sent = [*lines[:4], *({**line, "train/loss": 9.0} for line in (*lines[3:5], *lines[2:5]))]
    server.runs["again"] = StoredRun(
        "resdomains",
        "again",
        config={name: {"value": value} for name, value in FACTS.items()},
        history=[json.dumps({**row, "_step": number}) for number, row in enumerate(sent)],
    )
    [*_, run] = read_online("wandb:resdomains")
    del server.runs["again"]
    assert isinstance(run, RecordedRun)
    assert list(run.history["step"]) == [1, 2, 3, 4, 5]
    assert list(run.history["train/loss"]) == [2.0, 1.0, 9.0, 9.0, 9.0]


def test_what_is_not_there_is_said(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for place, message in (
        ("wandb:", "expected wandb:PROJECT or wandb:ENTITY/PROJECT"),
        ("wandb:a//b", "expected wandb:PROJECT or wandb:ENTITY/PROJECT"),
        ("wandb:nothing", "W&B has no project nothing that this account can read"),
        ("wandb:nobody/resdomains", "W&B has no project nobody/resdomains"),
        (f"wandb:{ENTITY}/resdomains/x", f"no run in the group 'x' of {ENTITY}/resdomains"),
    ):
        with pytest.raises(ValueError, match=message):
            read_online(place)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ValueError, match="cannot be asked while WANDB_MODE is offline; unset it"):
        read_online("wandb:resdomains")


@pytest.mark.parametrize(
    ("operation", "answer", "message"),
    [
        ("Viewer", {"errors": [{"message": "no such key"}]}, "no such key"),
        ("Runs", {"errors": [{"message": "permission denied"}]}, "permission denied"),
        ("Runs", {"data": {"project": {"runs": {"edges": [{}]}}}}, "W&B refused or failed: "),
        ("Runs", {"data": 3}, "W&B refused or failed: "),
    ],
)
def test_a_refusal_is_passed_on(
    operation: str, answer: dict[str, Any], message: str, server: WandbServer
) -> None:
    with server.answering(operation, answer), pytest.raises(ValueError, match=message):
        read_online("wandb:resdomains")


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("HistoryPage", {"errors": [{"message": "broken"}]}),
        ("HistoryPage", {"data": {"project": {"run": {"history": ["{", "[]"]}}}}),
        ("RunHistoryKeys", {"data": {"project": {"run": {"historyKeys": 3}}}}),
        ("RunFiles", {"data": {"project": {"run": {"files": {"edges": [{"node": {}}]}}}}}),
    ],
)
def test_damaged_answers_leave_runs_out(
    operation: str, answer: dict[str, Any], server: WandbServer
) -> None:
    with server.answering(operation, answer):
        found = read_online("wandb:resdomains")
    assert all(isinstance(run, UnreadableRun) for run in found)
    assert len(found) == 5


def test_a_server_that_does_not_answer_is_not_waited_for(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "_PATIENCE", 1)
    server.silent = True
    begun = time.monotonic()
    with pytest.raises(ValueError, match="W&B refused or failed: Failed to verify credentials"):
        read_online("wandb:resdomains")
    server.silent = False
    assert time.monotonic() - begun < 20


def test_reading_ends_where_the_server_fails_from_some_time_on(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "_AT_ONCE", 2)
    monkeypatch.setattr(online, "_PAUSE", 1)
    server.breaks = "RunParquetHistory"
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"W&B does not answer any more; .*run2: cannot be read"):
        read_online("wandb:resdomains")
    server.breaks, server.fails = None, False
    assert time.monotonic() - begun < 30


@pytest.mark.slow
def test_a_fit_is_in_wandb_what_it_is_in_its_folder_with_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WandbServer() as server:
        server.log_in(monkeypatch)
        options = ["--test_after_fit", "false", "--run.wandb.mode", "online"]
        options += ["--run.wandb.log_model", "true", "--config", "probes/all"]
        fit = launch([*ALONE, "fit", *DIGITS, *options], tmp_path)
        assert fit.returncode == 0, fit.stderr
        [one], [two] = (read_runs([p]).runs for p in ("wandb:resdomains", str(tmp_path / "runs")))
        server.log_out()
    first, second = (run_table([run]).drop(columns="source") for run in (one, two))
    pd.testing.assert_frame_equal(first, second, check_dtype=False)
    pd.testing.assert_frame_equal(one.profile, two.profile)
    pd.testing.assert_frame_equal(one.removal, two.removal)
    assert len(one.profile) == 2
    best, last = (made for made in server.artifacts if made.kind == "model")
    assert best.name == last.name == f"model-{one.run_id}"
    # W&B moves `latest` to the newest version.
    assert (set(best.aliases), set(last.aliases)) == ({"best", "latest"}, {"latest"})
    assert best.metadata["score"] == fit.summary["best"]["val/score"]
    assert last.metadata["score"] == fit.summary["final"]["val/score"]
    assert best.metadata["merge"] == "Add"
    for made in (best, last):
        assert made.committed
        file = fit.only(made.metadata["original_filename"])
        assert made.files["model.ckpt"] == file.read_bytes()
