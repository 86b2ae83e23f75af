"""A real sixth domain outside the tree: built as a wheel, installed elsewhere, trained, applied, and checked."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from .environment import Environment

SOURCE = Path(__file__).with_name("image_segmentation")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("segmentation")
    # A build writes into its source.
    left = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(SOURCE, folder / "source", ignore=left)
    made = Environment.create(folder / "environment")
    made.install(str(folder / "source"))
    return made


def test_a_domain_takes_few_lines() -> None:
    files = [*SOURCE.glob("src/**/*.py"), *SOURCE.glob("src/**/*.yaml"), SOURCE / "pyproject.toml"]
    assert len(files) == 6
    lines = [line for file in files for line in file.read_text().splitlines() if line.strip()]
    assert len(lines) <= 150


@pytest.mark.slow
def test_the_domain_trains_and_draws_what_it_sees(environment: Environment, tmp_path: Path) -> None:
    listed = environment.run(tmp_path, "tasks")
    assert re.search(r"image_segmentation +image-segmentation 1\.2\.3 .*ready", listed.stdout)
    options = ["--run.wandb.mode", "disabled", "--trainer.precision", "32"]
    done = environment.run(tmp_path, "fit", "--config", "image_segmentation/digits", *options)
    assert done.returncode == 0, done.stderr
    [folder] = tmp_path.glob("runs/image_segmentation/digits/*")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["task"]) == ("finished", "image_segmentation")
    # Guessing gets 0.075.
    assert summary["test/score"] > 0.2
    compared = environment.run(tmp_path, "compare", "runs", "--format", "json")
    [setup] = json.loads(compared.stdout)
    assert setup["task"] == "image_segmentation"
    assert setup["best_score"] == pytest.approx(summary["best"]["val/score"])
    scan = load_digits().images[-1] * (255 / 16)
    picture = Image.fromarray(scan.astype("uint8")).resize((48, 48))
    picture.save(tmp_path / "scan.png")
    best = str(folder / "checkpoints" / "best.ckpt")
    asked = ["--ckpt_path", best, "--format", "json", "--pictures", "masks", "scan.png"]
    said = environment.run(tmp_path, "predict", *asked)
    assert said.returncode == 0, said.stderr
    [record] = map(json.loads, said.stdout.splitlines())
    assert sum(record["shares"].values()) == pytest.approx(1)
    assert 0.2 < record["shares"]["ground"] < 0.9
    with Image.open(tmp_path / "masks" / "scan.png") as mask:
        assert mask.size == (24, 24)
        assert len(mask.getcolors() or []) == sum(share > 0 for share in record["shares"].values())


@pytest.mark.slow
def test_the_domain_keeps_the_contract(environment: Environment, tmp_path: Path) -> None:
    shutil.copytree(SOURCE / "tests", tmp_path / "tests")
    arguments = ["tests", "-q", "-p", "no:cacheprovider", "--durations", "5"]
    checked = environment.run(tmp_path, *arguments, module="pytest")
    assert checked.returncode == 0, checked.stdout[-4000:]
    assert re.search(r"\b2\d passed", checked.stdout)
