"""What jobs ask of Slurm is checked before any is sent. (They run on a real one in ../test_slurm.py.)"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from resdomains.cli.main import main
from resdomains.studies import State
from resdomains.studies.slurm import SETTINGS, SlurmError, SlurmExecutor

VALUES: dict[Any, Any] = {str: "x", int: 7, list: ["true"], dict: {"reservation": "x"}}
VALUES |= {int | float: 1.5, bool | str: True}
# A stand-in for Slurm's commands, whose queue is a file beside them.
COMMANDS = {
    "sbatch": 'cp "$1" "$(dirname "$0")/script"; echo "Submitted batch job 12"',
    "squeue": 'cat "$(dirname "$0")/queue"',
    "srun": "true",
}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "commands"
    folder.mkdir()
    for name, line in COMMANDS.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    (folder / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def executor(folder: Path, settings: dict[str, Any], **options: Any) -> SlurmExecutor:
    return SlurmExecutor(folder, settings, jobs=1, refresh=0, **options)


def test_a_job_asks_for_what_it_is_given(commands: Path, tmp_path: Path) -> None:
    """Every setting that is allowed is one of submitit's."""
    given = {name: VALUES[kind] for name, kind in SETTINGS.items()}
    executor(tmp_path, given).start("a", ["--seed", "1"], tmp_path / "100%.log")
    script = (commands / "script").read_text()
    for line in (
        *("partition=x", "time=7", "cpus-per-task=7", "gpus-per-node=7", "mem=1536MB"),
        *("reservation=x", "signal=USR1@7", "open-mode=append", "exclusive", "requeue"),
        f"output={tmp_path}/100%%.log",
    ):
        assert f"#SBATCH --{line}\n" in script
    # As Slurm's srun no longer takes it from the job.
    assert "--cpus-per-task=7" in script.partition("srun ")[2]
    assert "true\nexport SUBMITIT_PREEMPT_SIGNAL=USR1\n" in script


@pytest.mark.parametrize(
    ("minutes", "settings", "limit", "again"),
    [
        (10, {}, 12, 0),  # two more, before which it is told to save
        (10, {"timeout_min": 4}, 4, 2),
        (10, {"timeout_min": 60}, 60, 0),
        (None, {}, 1440, 10**6),
    ],
)
def test_the_time_limit_is_the_studys(
    minutes: float | None,
    settings: dict[str, Any],
    limit: int,
    again: int,
    commands: Path,
    tmp_path: Path,
) -> None:
    import submitit

    job = executor(tmp_path, settings, minutes=minutes).start("a", [], tmp_path / "log")
    assert f"#SBATCH --time={limit}\n" in (commands / "script").read_text()
    sent = submitit.SlurmJob[int](tmp_path / "logs" / "slurm", job.number).submission()
    assert sent._timeout_countdown == again


def test_a_job_is_known_by_its_name_and_ends_with_its_status(
    commands: Path, tmp_path: Path
) -> None:
    cluster = executor(tmp_path, {})
    job = cluster.start("a", [], tmp_path / "log")
    [name] = [
        line.partition("=")[2]
        for line in (commands / "script").read_text().splitlines()
        if line.startswith("#SBATCH --job-name=")
    ]
    queue = commands / "queue"
    queue.write_text(f"11|RUNNING|5:00|of another\n12|PENDING|0:00|{name}\n")
    assert job.look() is State.QUEUED
    queue.write_text(f"12|RUNNING|1-02:03:04|{name}\n")
    assert job.look() is State.RUNNING
    assert job.seconds == ((24 + 2) * 60 + 3) * 60 + 4
    found = executor(tmp_path, {}).find("a")
    assert found is not None
    assert found.number == "12"
    assert executor(tmp_path / "elsewhere", {}).find("a") is None
    assert cluster.find("b") is None
    assert "scancel 12" in cluster.leave([job])
    queue.write_text("")
    for status, state in ((0, State.FINISHED), (1, State.FAILED), (143, State.STOPPED)):
        (tmp_path / "logs" / "a.status").write_text(str(status))
        assert job.look() is state
    assert executor(tmp_path, {}).find("a") is None


def test_what_slurm_does_not_take_is_said(commands: Path, tmp_path: Path) -> None:
    (commands / "sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: no such partition' >&2; exit 1"
    )
    with pytest.raises(SlurmError, match=r"Slurm did not take a: .*no such partition"):
        executor(tmp_path, {}).start("a", [], tmp_path / "log")
    (commands / "squeue").write_text("#!/bin/sh\necho 'cannot contact the controller' >&2; exit 1")
    with pytest.raises(SlurmError, match="squeue: cannot contact the controller"):
        executor(tmp_path, {}).find("a")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"partitoin": "gpu"}, "slurm.partitoin: no such setting; did you mean 'partition'?"),
        ({"nodes": 2}, "one task on one node, and has these settings: account, additional_"),
        ({"timeout_min": "1h"}, "slurm.timeout_min: expected int, got '1h'"),
        ({"mem_gb": True}, "slurm.mem_gb: expected int | float, got True"),
        ({"cpus_per_task": 0}, "slurm.cpus_per_task: expected a number above 0, got 0"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        executor(tmp_path, settings)


def test_the_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({"bases": [{"config": "image_classification/digits"}]}))
    for options, said in (
        (["--slurm.partition", "1"], "--slurm.partition needs --executor slurm"),
        (["--executor", "slurm", "--slurm.qos", "1"], "slurm: sbatch, srun, squeue not found: "),
        (["--executor", "slurm", "--slurm.mem_gb", "x"], "slurm.mem_gb: expected int | float"),
        (["--executor", "slrum"], "--executor slrum: did you mean 'slurm'?"),
        (["--only", "seed7*"], "--only no run 'seed7*' in small; runs: seed0-"),
    ):
        assert main(["study", str(file), *options]) == 2
        assert said in capsys.readouterr().err
