"""Bad configs through the command itself: the message, the status, and that it is short."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import TINY, Run

BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "top level": (("--modle.x", "1"), "no option --modle.x; did you mean 'model'?"),
    "abbreviation": (
        ("--model.backbone.widt", "3"),
        "model.backbone.widt: unknown key; did you mean 'width'?",
    ),
    "trainer key": (
        ("--trainer.max_epoch", "1"),
        "trainer.max_epoch: unknown key; did you mean 'max_epochs'?",
    ),
    "trainer type": (
        ("--trainer.max_epochs", "many"),
        "trainer.max_epochs: expected a whole number or null, got 'many'",
    ),
    "trainer choice": (("--trainer.precision", "bf17"), "got 'bf17'; did you mean 'bf16'?"),
    "no steps": (
        ("--trainer.accumulate_grad_batches", "0"),
        "trainer.accumulate_grad_batches: expected at least 1, got 0",
    ),
    "no interval": (
        ("--trainer.log_every_n_steps", "0"),
        "trainer.log_every_n_steps: expected at least 1, got 0",
    ),
    "no epochs": (
        ("--trainer.check_val_every_n_epoch", "0"),
        "trainer.check_val_every_n_epoch: expected at least 1, got 0",
    ),
    "no validation": (
        ("--trainer.val_check_interval", "0.0"),
        "trainer.val_check_interval: expected more than 0, got 0.0",
    ),
    "uphill": (
        ("--trainer.gradient_clip_val", "-1"),
        "trainer.gradient_clip_val: expected at least 0, got -1",
    ),
    "no seed": (("--seed", "-1"), "seed: expected 0 to 4294967295, got -1"),
    "far name": (
        ("--trainer.callbacks", "zzz"),
        "trainer.callbacks: no Callback named 'zzz'; give the import path of one",
    ),
    "foreign name": (
        ("--trainer.plugins", "SLURMEnvironment"),
        "named 'SLURMEnvironment'; give the import path",
    ),
    "large batch": (
        ("--data.batch_size", "100000"),
        "data: batch_size 100000 is larger than the training split of",
    ),
    "no such device": (("--trainer.accelerator", "tpu"), "trainer: "),
    "rounded weights": (
        ("--trainer.precision", "bf16-true"),
        "trainer.precision: expected 32-true, bf16-mixed or 16-mixed, got bf16-true; weights, "
        "statistics and losses are float32",
    ),
    "launcher's own": (("--trainer.logger", "true"), "trainer.logger: is set by the launcher"),
    "model key": (("--model.scal", "1"), "model.scal: unknown key; did you mean 'scale'?"),
    "model type": (("--model.scale", "big"), "model.scale: expected a number, got 'big'"),
    "backbone key": (
        ("--model.backbone.with", "1"),
        "model.backbone.with: unknown key; did you mean 'width'?",
    ),
    "backbone type": (
        ("--model.backbone.width", "1.5"),
        "model.backbone.width: expected a whole number, got '1.5'",
    ),
    "backbone value": (
        ("--model.backbone.width", "0"),
        "model.backbone: width must be at least 1, got 0",
    ),
    "short name": (
        ("--model.fault", "NoSpce"),
        "model.fault: no Fault named 'NoSpce'; did you mean 'NoSpace'?",
    ),
    "class name": (
        ("--model.backbone", "torch.nn.Linea"),
        "model.backbone: torch.nn has no 'Linea'; did you mean torch.nn.Linear?",
    ),
    "wrong kind": (
        ("--model.backbone", "torch.optim.SGD"),
        "model.backbone: torch.optim.SGD is SGD, expected a Module",
    ),
    "missing argument": (
        ("--model.backbone", "torch.nn.Linear"),
        "model.backbone.in_features: missing; Linear needs it (a whole number)",
    ),
    "foreign package": (
        ("--model.backbone", "os.system"),
        "model.backbone: 'os.system' may not be imported",
    ),
    "optimization": (
        ("--model.optimization.lrr", "1"),
        "model.optimization.lrr: unknown key; did you mean 'lr'?",
    ),
    "nested factory": (
        ("--model.optimization.optimizer.momentun", "1"),
        "model.optimization.optimizer.momentun: unknown key; did you mean 'momentum'?",
    ),
    "constructor": (
        ("--model.optimization.lr", "-1"),
        "model.optimization: lr must be positive, got -1",
    ),
    "data key": (
        ("--data.batchsize", "1"),
        "data.batchsize: unknown key; did you mean 'batch_size'?",
    ),
    "data value": (("--data.batch_size", "0"), "data: batch_size must be at least 1, got 0"),
    "data folder": (("--data.root", "nowhere"), "data: root: no folder nowhere"),
    "linked seed": (("--data.seed", "1"), "data.seed: is the run's seed; set the top-level key"),
    "linked spec": (("--model.spec", "{}"), "model.spec: comes from the data"),
    "run key": (
        ("--run.wandb.projet", "x"),
        "run.wandb.projet: unknown key; did you mean 'project'?",
    ),
    "run choice": (
        ("--run.wandb.mode", "onlin"),
        "run.wandb.mode: expected one of auto, online, offline, disabled, got 'onlin'",
    ),
    "checkpoint": (("--ckpt_path", "gone.ckpt"), "--ckpt_path gone.ckpt: no such checkpoint"),
    "Lightning's own check": (("--trainer.accelerator", "abacus"), "trainer: "),
    "plugin": (("--plugin", "not_there_at_all"), "--plugin not_there_at_all: cannot be imported"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_short_message_and_status_2(cli: Run, case: str) -> None:
    arguments, message = BAD[case]
    status, _, errors = cli("fit", *TINY, *arguments)
    assert (status, message in errors) == (2, True), errors
    assert errors.startswith("error: ")
    assert len(errors.splitlines()) <= 3
    assert not Path("runs").exists() or not list(Path("runs").rglob("2*")), "an empty run was left"


IN_FILES: dict[str, tuple[str, str]] = {
    "top level": ("sed: 1", "sed: unknown key; did you mean 'seed'?"),
    "trainer": ("trainer: {max_epoch: 1}", "trainer.max_epoch: unknown key"),
    "beside class_path": (
        "model: {class_path: tiny_domain.Tiny, scale: 1}",
        "model.scale: stands beside class_path; write it under init_args",
    ),
    "unknown class": (
        "model: {class_path: tiny_domain.Tinny}",
        "tiny_domain has no 'Tinny'; did you mean tiny_domain.Tiny?",
    ),
    "unplanted": ("model: {class_path: planted.Tiny}", "model: 'planted.Tiny' may not be imported"),
    "wrong type": ("seed: [1]", "seed: expected a whole number, got [1]"),
    "group": ("trainer: 3", "trainer: expected keys and values, got 3"),
    "nested": (
        "model: {init_args: {optimization: {optimizer: {init_args: {momentum: high}}}}}",
        "model.optimization.optimizer.momentum: expected a number",
    ),
    "broken": ("model: [", "extra.yaml:2: "),
}


@pytest.mark.parametrize("case", IN_FILES)
def test_bad_files_get_one_short_message_and_status_2(cli: Run, folder: Path, case: str) -> None:
    text, message = IN_FILES[case]
    (folder / "planted.py").write_text("import pathlib; pathlib.Path('ran').touch()\n")
    (folder / "extra.yaml").write_text(text)
    status, _, errors = cli("fit", *TINY, "--config", "extra.yaml")
    assert (status, message in errors) == (2, True), errors
    assert len(errors.splitlines()) <= 3
    assert not (folder / "ran").exists()


def test_a_config_without_data_says_what_is_missing(cli: Run, folder: Path) -> None:
    (folder / "half.yaml").write_text("seed: 1\n")
    status, _, errors = cli("fit", "--config", "half.yaml")
    assert status == 2
    assert re.match(r"error: model: missing; name a config that has it", errors)


def composed(cli: Run, *arguments: str) -> dict[str, object]:
    status, out, errors = cli("fit", *TINY, *arguments, "--print_config")
    assert status == 0, errors
    config: dict[str, object] = yaml.safe_load(out)
    return config


def test_flags_before_a_config_hold(cli: Run, folder: Path) -> None:
    (folder / "late.yaml").write_text("seed: 7\n")
    status, out, _ = cli("fit", "--seed", "3", *TINY, "--config=late.yaml", "--print_config")
    assert status == 0
    assert yaml.safe_load(out)["seed"] == 3


def test_print_config_gives_a_config_that_composes_to_itself(cli: Run, folder: Path) -> None:
    first = composed(cli, "--model.backbone.width", "5", "--run.name", "12")
    (folder / "again.yaml").write_text(yaml.safe_dump(first))
    status, out, errors = cli(
        "fit", "--plugin", "tiny_domain", "--config", "again.yaml", "--print_config"
    )
    assert status == 0, errors
    assert yaml.safe_load(out) == first


@pytest.mark.parametrize(
    ("name", "given", "left_out"),
    [
        ("StochasticWeightAveraging", {"swa_lrs": 0.1}, "device"),
        ("Timer", {"duration": "00:01:00:00"}, "interval"),
    ],
)
def test_a_default_without_yaml_form_is_left_out(
    cli: Run, folder: Path, name: str, given: dict[str, Any], left_out: str
) -> None:
    """What jsonargparse writes in its place could not be read again."""
    callback = {"class_path": f"pytorch_lightning.callbacks.{name}", "init_args": given}
    (folder / "callback.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    flags = ("--seed", "3", "--compile", "false", "--test_after_fit", "false")
    whole: Any = composed(cli, *flags)
    config: Any = composed(cli, "--config", "callback.yaml", *flags)
    (written,) = config["trainer"].pop("callbacks")
    assert left_out not in written["init_args"]
    assert {**written["init_args"], **given} == written["init_args"]
    assert (config["seed"], config["compile"], config["test_after_fit"]) == (3, False, False)
    del whole["trainer"]["callbacks"]
    for key in ("trainer", "run"):
        assert config[key] == whole[key]


def test_values_get_the_type_of_their_parameter(cli: Run) -> None:
    config = yaml.safe_dump(composed(cli, "--run.name", "12", "--model.optimization.lr", "1e-3"))
    assert "name: '12'" in config
    assert "lr: 0.001" in config


def test_a_new_optimizer_starts_from_its_own_defaults(cli: Run) -> None:
    status, out, errors = cli(
        "fit", *TINY, "--model.optimization.optimizer", "torch.optim.AdamW", "--print_config"
    )
    assert status == 0
    assert yaml.safe_load(out)["model"]["init_args"]["optimization"]["init_args"]["optimizer"][
        "init_args"
    ]["weight_decay"] == pytest.approx(0.01)
    assert "dropped momentum" in errors


def test_a_key_explains_itself(cli: Run) -> None:
    status, out, _ = cli("fit", *TINY, "--model.backbone.help")
    assert status == 0
    assert "width" in out
    assert "a whole number; default 4" in out
    status, out, _ = cli("fit", *TINY, "--trainer.max_epochs.help")
    assert out.strip() == "trainer.max_epochs: a whole number or null; default None"
    status, out, _ = cli("fit", *TINY, "--trainer.help")
    assert "logger" not in out


def test_a_plugin_module_may_be_named_and_only_then(cli: Run) -> None:
    status, _, errors = cli("fit", "--config", "tiny.yaml")
    assert status == 2
    assert "(`--plugin tiny_domain` adds a package that you trust)" in errors
