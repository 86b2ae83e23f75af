"""`check_task` itself: a sound task passes, and each fault is found by the rule that is there for it."""

import re
import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from resdomains.core import Coupling, Merge, ResNet1d
from resdomains.plugins import PluginError
from resdomains.scaffold.tone_tagging.src.tone_tagging.plugin import plugin
from resdomains.scaffold.tone_tagging.src.tone_tagging.task import ToneTagging
from resdomains.testing import (
    BadArgument,
    BadFile,
    CheckFailed,
    TaskCase,
    check_task,
    checks,
    parametrize_with_checks,
)
from resdomains.testing.bench import Bench, Whole
from resdomains.testing.rules import RULES
from resdomains.testing.rules.computing import combine, parts

SOUND = "Sound"


def waves(folder: Path) -> Sequence[Path]:
    paths = []
    for number, length in enumerate((200, 333, 250)):
        path = folder / f"{number}.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 4000, 0, "NONE", ""))
            file.writeframes(bytes((number * i * 31) % 251 for i in range(2 * length)))
        paths.append(path)
    return paths


def run_export(folder: Path, paths: Sequence[Path]) -> Sequence[dict[str, Any]]:
    """What a program that knows the format and no checkpoint makes of an export."""
    backbone = ResNet1d(in_channels=1, layers=[2], channels=[8])
    spec = {"rate": 4000, "classes": ["low", "middle", "high"]}
    task = ToneTagging(backbone=backbone, spec=spec).eval()
    task.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.inference_mode():
        records = task.predict(task.collate(list(task.read([str(path) for path in paths]))))
    return [{"probability": record["probability"]} for record in records]


def case(task: str = SOUND, data: str = "Tones") -> TaskCase:
    config: dict[str, Any] = {
        "seed": 0,
        "model": {
            "class_path": f"tests.resdomains.faulty.{task}",
            "init_args": {
                "backbone": {
                    "class_path": "resdomains.core.ResNet1d",
                    "init_args": {"in_channels": 1, "layers": [2], "channels": [8]},
                },
                "optimization": {
                    "lr": 0.01,
                    "optimizer": {"class_path": "torch.optim.AdamW"},
                },
            },
        },
        "data": {
            "class_path": f"tests.resdomains.faulty.{data}",
            "init_args": {"batch_size": 8},
        },
    }
    return TaskCase(
        plugin=plugin,
        config=config,
        modules=["tests.resdomains.faulty"],
        inputs=waves,
        bad_files=[BadFile(name="text.wav", content=b"la la la", message="not a WAV file")],
        bad_arguments=[BadArgument(key="data.batch_size", value="0", message="at least 1, got 0")],
        sample_wise={"model.backbone.norm": "LayerNorm"},
        exported={"weights": run_export},
    )


def run(rule: str, checked: TaskCase, folder: Path) -> None:
    [check] = [check for check in checks(checked) if check.name == rule]
    check(folder)


FAULTS = [
    ("takes_a_step", "IdleParameter", "Tones", "no gradient reaches idle.weight, idle.bias"),
    ("takes_a_step", "CountsBatches", "Tones", "step counted 1 items in a batch of 4"),
    (
        "learns_a_few_samples",
        "IgnoresTargets",
        "Tones",
        r"the loss went from .* to 1, expected less",
    ),
    ("logs_the_schema", "NanMetric", "Tones", r"val/f1 is \[nan, nan, nan\]"),
    ("logs_the_schema", "ForgottenMetric", "Tones", "the metrics f1 are not computed"),
    ("logs_the_schema", "LogsByHand", "Tones", "logged but unknown: val/extra"),
    (
        "score_and_skill_are_in_range",
        "AddsToScore",
        "Tones",
        r"before training the score is 1\.\d+",
    ),
    ("score_and_skill_are_in_range", "CertainChance", "Tones", r"chance is 1\.0|ZeroDivisionError"),
    ("one_seed_gives_one_run", "Undecided", "Tones", r"at step 1 the loss is .* in one run and"),
    (
        "resumes_exactly_in_the_middle_of_an_epoch",
        "ForgetsOnResume",
        "Tones",
        r"stopped after step 18 of 36 and resumed, step 19 has loss .*; without the stop it has",
    ),
    (
        "validation_counts_each_sample_once",
        "Sound",
        "PadsEvaluation",
        "2 processes see 27 samples, 25 of them different, of 25",
    ),
    (
        "validation_counts_each_sample_once",
        "CountsBatches",
        "Tones",
        "step counted 3 items in a validation of 25 samples",
    ),
    (
        "results_do_not_depend_on_batch_mates",
        "BatchStatisticsInEval",
        "Tones",
        "5 validation samples have a mean loss of .* alone and .* as a batch",
    ),
    (
        "results_do_not_depend_on_batch_mates",
        "HearsPadding",
        "Tones",
        "5 validation samples have a mean loss of .* alone and .* as a batch",
    ),
    ("spec_is_plain_and_stable", "Sound", "TupleSpec", r"spec\['shape'\] is a tuple"),
    ("spec_is_plain_and_stable", "Sound", "TensorSpec", r"spec\['mean'\]\[0\] is a Tensor"),
    ("spec_is_plain_and_stable", "Sound", "NumberedSpec", "two builds differ"),
    ("survives_a_last_batch_of_one", "Squeezes", "Tones", r"raised \w+Error"),
    ("survives_a_last_batch_of_one", "SumsLosses", "Tones", "loss is .* in batches of 2"),
    ("stops_at_not_a_number", "HidesNan", "Tones", "its message names no step 3"),
    ("bfloat16_is_close_to_float32", "RoughInHalf", "Tones", r"off by (19|20|21)\.\d%, allowed 5"),
    ("trains_compiled", "CountsOperations", "Tones", "no compiled block ran in training"),
    (
        "survives_an_empty_validation_set",
        "NeedsValidation",
        "Tones",
        "raised KeyError: 'val'",
    ),
    (
        "exports_agree_with_predictions",
        "ExportsRoughly",
        "Tones",
        r"weights: probability of .*0\.wav is 0\.\d+, `predict` says 0\.\d+",
    ),
    (
        "takes_sampled_combinations",
        "RefusesLate",
        "Tones",
        "raised ValueError: two streams are one too many",
    ),
    (
        "takes_sampled_combinations",
        "AsksForMemory",
        "Tones",
        "with merge .* memory Store the loss is .*, with another memory",
    ),
    (
        "takes_sampled_combinations",
        "OwnBackbone",
        "Tones",
        "asked for merge .*, coupling .*, memory .*, the backbone has no ",
    ),
    ("takes_every_merge", "OwnBackbone", "Tones", "asked for merge BranchOnly, .* have Add"),
    (
        "recomputing_gives_equal_gradients",
        "CountsPasses",
        "Tones",
        "passes differs between Store and Recompute",
    ),
    (
        "probes_run",
        "ScoresItself",
        "Tones",
        r"the probe scores the whole network 0\.\d+, validation on the same batches [01]\.\d+",
    ),
    (
        "explains_bad_input",
        "SkipsBadFiles",
        "Tones",
        "read gave dict for text.wav and a good file, expected a BadSample and an item",
    ),
    ("explains_bad_input", "Sound", "AcceptsAnything", "--data.batch_size 0 was accepted"),
]
SLOW_FAULTS = [
    ("predicts_from_a_bare_checkpoint", "NeedsTraining", "Tones", "AttributeError: .*loudness"),
    ("two_processes_equal_one", "SumsLosses", "Tones", "at step 1 train/loss is"),
]
NEED_INSTALLATION = {"is_listed_without_torch", "builds_from_every_shipped_config"}


@pytest.mark.parametrize(
    ("rule", "task", "data", "message"),
    [
        *FAULTS,
        *(pytest.param(*fault, marks=pytest.mark.slow) for fault in SLOW_FAULTS),
    ],
)
def test_a_fault_is_found(rule: str, task: str, data: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(
        CheckFailed, match=rf"(?s)^tone_tagging: {rule}: .*{message}.*what to do: \w"
    ):
        run(rule, case(task, data), tmp_path)


def test_an_export_is_run_as_the_case_says(tmp_path: Path) -> None:
    run("exports_agree_with_predictions", case("Exports"), tmp_path)
    with pytest.raises(
        CheckFailed, match=r"does not say how to run an export to weights; give TaskCase\.exported"
    ):
        run("exports_agree_with_predictions", replace(case("Exports"), exported={}), tmp_path)


@pytest.mark.slow
def test_every_combination_runs_or_is_refused_with_its_reason(tmp_path: Path) -> None:
    bench = Bench(case(), tmp_path, Whole())
    _, data = bench.build({"data.batch_size": "4"})
    allowed = {
        (merge, coupling): combine(bench, data, merge, coupling)
        for merge in parts(Merge)
        for coupling in parts(Coupling)
    }
    plain = {merge for (merge, coupling), ran in allowed.items() if ran and coupling == "Plain"}
    assert plain == set(parts(Merge)) - {"DeepNorm"}
    assert allowed["Add", "Reversible"]
    assert not allowed["HyperConnection", "Reversible"]


def test_every_rule_has_a_fault() -> None:
    found = {fault[0] for fault in (*FAULTS, *SLOW_FAULTS)}
    assert found | NEED_INSTALLATION == {rule.name for rule in RULES}


def test_a_plugin_that_is_not_installed_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(
        CheckFailed, match=r"(?s)no entry point registers it.*\[project.entry-points"
    ):
        run("is_listed_without_torch", case(), tmp_path)


def test_a_plugin_that_imports_torch_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = register(tmp_path, "import torch\n")
    monkeypatch.syspath_prepend(str(heavy))
    with pytest.raises(CheckFailed, match="reading the plugin imports torch"):
        run("is_listed_without_torch", replace(case(), plugin=planted(heavy)), tmp_path)


def test_a_shipped_config_that_does_not_fit_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = register(tmp_path, "")
    monkeypatch.syspath_prepend(str(site))
    checked = replace(case(), plugin=planted(site))
    with pytest.raises(CheckFailed, match="no config is found in"):
        run("builds_from_every_shipped_config", checked, tmp_path)
    (site / "configs").mkdir()
    (site / "configs" / "wrong.yaml").write_text(
        "model: {class_path: torch.nn.Linear}\ndata: {class_path: tests.resdomains.faulty.Tones}\n"
    )
    with pytest.raises(CheckFailed, match=r"raised ConfigError: model: torch\.nn\.Linear"):
        run("builds_from_every_shipped_config", checked, tmp_path)


def register(folder: Path, code: str) -> Path:
    """A site folder with a plugin `planted`, and code before its definition."""
    site = folder / "site"
    (site / "planted-0.1.dist-info").mkdir(parents=True)
    (site / "planted-0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: planted\nVersion: 0.1\n"
    )
    (site / "planted-0.1.dist-info" / "entry_points.txt").write_text(
        "[resdomains.tasks]\nplanted = planted_plugin:plugin\n"
    )
    (site / "planted_plugin.py").write_text(
        f"{code}from resdomains.plugins import TaskPlugin\n"
        f"plugin = TaskPlugin(name='planted', summary='', task='tests.resdomains.faulty:Sound', "
        f"data={{}}, configs={str(site / 'configs')!r})\n"
    )
    return site


def planted(site: Path) -> Any:
    return replace(
        plugin,
        name="planted",
        summary="",
        task="tests.resdomains.faulty:Sound",
        data={},
        configs=str(site / "configs"),
    )


def test_check_task_reports_all_that_is_wrong() -> None:
    only = {"spec_is_plain_and_stable", "takes_a_step", "explains_bad_input"}
    exempt = {rule.name: "not asked here" for rule in RULES if rule.name not in only}
    faulty = replace(case("IdleParameter", "TupleSpec"), exempt=exempt)
    with pytest.raises(CheckFailed) as raised:
        check_task(faulty)
    text = str(raised.value)
    assert text.startswith("2 of 3 checks failed")
    assert "takes_a_step: no gradient" in text
    assert "spec_is_plain_and_stable: spec['shape']" in text
    assert set(check_task(replace(case(), exempt=exempt))) == only


def test_a_case_without_material_is_told_what_to_give(tmp_path: Path) -> None:
    bare = replace(case(), inputs=None, bad_files=(), bad_arguments=())
    for rule in ("predicts_from_a_bare_checkpoint", "results_do_not_depend_on_batch_mates"):
        with pytest.raises(CheckFailed, match=r"the case has no inputs; give TaskCase\.inputs"):
            run(rule, bare, tmp_path)
    with pytest.raises(CheckFailed, match="must give bad_files, bad_arguments and inputs"):
        run("explains_bad_input", bare, tmp_path)


def test_exemptions_name_a_check_and_a_reason() -> None:
    with pytest.raises(ValueError, match=r"exempt\['takes_a_step'\] needs a reason"):
        replace(case(), exempt={"takes_a_step": " "})
    with pytest.raises(ValueError, match="exempt names no check: takes_two_steps; checks: "):
        list(checks(replace(case(), exempt={"takes_two_steps": "typed wrongly"})))


def test_a_plugin_stands_for_its_first_config_that_needs_no_data() -> None:
    names = [check.case.config for check in checks("image_classification")]
    assert set(names) == {"image_classification/digits"}
    with pytest.raises(PluginError, match="no task 'image_clasification'; did you mean"):
        list(checks("image_clasification"))
    with pytest.raises(
        PluginError, match="ships no config that trains with nothing but the install"
    ):
        list(checks(replace(plugin, name="elsewhere", configs="nowhere")))


def test_ids_are_the_names_of_the_checks() -> None:
    names = [check.name for check in checks(case())]
    assert len(names) == len(set(names)) == len(RULES)
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in names)


def test_several_tasks_share_one_test_function() -> None:
    mark = parametrize_with_checks(case(), "image_classification").mark
    ids = {parameter.id: [m.name for m in parameter.marks] for parameter in mark.args[1]}
    assert len(ids) == 2 * len(RULES)
    assert ids["tone_tagging-takes_a_step"] == []
    assert ids["image_classification-two_processes_equal_one"] == ["slow"]
