"""The shipped script on a real Slurm of one node, whose daemons run here as long as the test.

On Debian: `apt-get install slurmctld slurmd slurm-client munge`.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from resdomains import schema
from resdomains.cli.main import main
from tests.resdomains.faults.test_stopped import SIGNALLING, signalled
from tests.resdomains.launching import ALONE, DIGITS, ROOT, TWO, Finished, launch

pytestmark = pytest.mark.slow

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
OPTIONS = [*DIGITS, "--plugin", SIGNALLING, "--run.wandb.mode", "disabled"]
# Daemons stand where only root looks for programs.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in opened]


def wait_for(what: str, found: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, f"no {what} after {seconds:.0f} s"
        time.sleep(0.2)


class Slurm:
    """A cluster of this machine alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": PATH,
            "PYTHONPATH": str(ROOT),
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        host = socket.gethostname().partition(".")[0]
        config = CONFIG.format(host=host, ports=free_ports(2), folder=self.folder)
        (self.folder / "slurm.conf").write_text(config)
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        munge = [f"--{name}={self.folder}/munge.{name}" for name in ("socket", "pid", "log")]
        munge = [
            option.replace("--pid=", "--pid-file=").replace("--log=", "--log-file=")
            for option in munge
        ]
        seed = f"--seed-file={self.folder}/munge.seed"
        key = f"--key-file={self.folder}/munge.key"
        self._daemon("munged", "--foreground", "--force", *munge, seed, key)
        wait_for("munge", (self.folder / "munge.socket").exists)
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D")
        wait_for("idle node", lambda: "State=IDLE" in self("scontrol", "show", "node"))

    def _daemon(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as out:
            daemon = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)
        self._daemons.append(daemon)

    def stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def __call__(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        words = self("scontrol", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        pytest.skip(f"no Slurm here: {', '.join(missing)} not found")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons run as root alone")
    # A short path: that of a socket has 108 characters at most.
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:
        cluster = Slurm(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def test_a_preempted_job_is_queued_again_and_goes_on(
    slurm: Slurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slurm-script"]) == 0
    script = tmp_path / "train.sbatch"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "job").mkdir()
    number = slurm(
        *("sbatch", "--parsable", "--ntasks-per-node", "2", "--cpus-per-task", "1", str(script)),
        # The eighth step takes long enough to be met by a signal.
        *(*OPTIONS, *signalled("train", 7, "SIGCONT", hang=6)),
        cwd=tmp_path / "job",
    )
    job = Finished(0, "", "", tmp_path / "job")
    log = tmp_path / "job" / f"resdomains-{number}.log"

    def state() -> str:
        return slurm.job(number)["JobState"]

    def trained() -> bool:
        assert state() in ("PENDING", "RUNNING"), log.read_text()
        return bool(list(job.folder.rglob("metrics.csv"))) and len(job.curve(schema.TRAIN_LOSS)) > 6

    wait_for("step", trained)
    slurm("scancel", "--signal", "USR1", number)  # as Slurm sends it before a job's time is up
    wait_for("requeued job", lambda: state() == "PENDING")
    assert job.summary["status"] == "terminated"
    assert len(job.curve(schema.TRAIN_LOSS)) < 20
    # A job that is queued again waits for two minutes otherwise; one that begins in the second of its end is refused.
    time.sleep(2)
    slurm("scontrol", "update", f"JobId={number}", "StartTime=now")
    wait_for("end", lambda: state() not in ("PENDING", "RUNNING", "COMPLETING"))
    assert state() == "COMPLETED", log.read_text()
    assert slurm.job(number)["Restarts"] == "1"
    assert job.only("summary.json").parent.name == number
    assert job.summary["status"] == "finished"
    assert job.summary["world_size"] == 2
    assert "SIGUSR1: stopping after this step" in log.read_text()
    assert f"{number}/checkpoints/last.ckpt (step" in log.read_text()
    (tmp_path / "whole").mkdir()
    whole = launch([*ALONE, "fit", *OPTIONS, *TWO], tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    for name in (schema.TRAIN_LOSS, schema.VAL_LOSS, "test/loss"):
        assert job.curve(name) == whole.curve(name)


def test_the_config_without_srun_says_what_starts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", *DIGITS, "--config", "trainer/slurm", "--run.root", str(tmp_path)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: trainer: trainer/slurm is for processes that `srun` starts")
    assert "resdomains slurm-script" in said


STUDY = {
    "set": {
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": 8,
        "run.wandb.mode": "disabled",
        "run.save_every_n_steps": 5,
        "model.backbone.channels": [8, 16],
        "model.backbone.layers": [1, 1],
        "test_after_fit": False,
    },
    "axes": {"model.optimization.lr": [0.1, 1.0e30]},
    "bases": [{"config": ["image_classification/digits", "trainer/float32"]}],
}


def test_a_study_sends_its_runs_to_the_cluster(slurm: Slurm, tmp_path: Path) -> None:
    """One goes on when it was stopped, and is found by the study that was; the other fails."""
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY))
    root = tmp_path / "runs" / "studies" / "small"

    def study(*options: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*ALONE, "study", "small.yaml", "--executor", "slurm", *options],
            cwd=tmp_path,
            env=slurm.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def trained() -> bool:
        tables = list(root.rglob("metrics.csv"))
        return bool(tables) and len(tables[0].read_text().splitlines()) > 3

    settings = ["--slurm.cpus_per_task", "1", "--slurm.timeout_min", "60"]
    with study("--only", "0.1_*", *settings) as first:
        wait_for("step", trained)
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "running: image_classification/digits, 0.1, seed 0" in out
    [number] = re.findall(r"cancel them: scancel (\d+)", err)
    assert slurm.job(number)["JobState"] == "RUNNING"

    with study(*settings) as again:
        slurm("scancel", "--signal", "USR1", number)  # as when its time is nearly up
        wait_for("requeued job", lambda: slurm.job(number)["JobState"] == "PENDING")
        [summary] = root.rglob("summary.json")
        assert json.loads(summary.read_text())["status"] == "terminated"
        slurm("scontrol", "update", f"JobId={number}", "StartTime=now")
        out, err = again.communicate(timeout=240)
    assert again.returncode == 1, err
    assert slurm.job(number)["Restarts"] == "1"
    assert len(list(root.glob("logs/slurm/*_submission.sh"))) == 2
    assert json.loads(summary.read_text())["status"] == "finished"
    assert "finished: image_classification/digits, 0.1, seed 0" in out
    assert "failed: image_classification/digits, 1e+30, seed 0" in err
    assert "2 runs, 1 finished setups" in out
    [log] = root.glob("logs/0.1_*.log")
    assert log.read_text().count("last.ckpt (step") == 1
    assert "\x1b" not in log.read_text()  # for no terminal
