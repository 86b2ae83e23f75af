"""A study's file becomes its runs, each with an id of its own; what is wrong in it is named by its place."""

from pathlib import Path
from typing import Any

import pytest

from resdomains.studies import chosen, read_study

FILE: dict[str, Any] = {
    "seeds": [0, 1],
    "set": {"trainer.max_epochs": 2, "run.wandb.mode": "disabled"},
    "axes": {"model.backbone.merge": ["Add", "BranchOnly"]},
    "bases": [
        {
            "config": "image_classification/digits",
            "axes": {
                "size": {
                    "small": {"model.backbone.layers": [1, 1]},
                    "large": {"model.backbone.layers": [9, 9], "trainer.max_epochs": 3},
                }
            },
        },
        {"config": ["rl_policy/cartpole", "probes/all"], "set": {"trainer.max_epochs": 5}},
    ],
}


def test_the_grid_is_the_product_of_axes_and_seeds() -> None:
    study = read_study(FILE, "two")
    assert study.name == "two"
    assert len(study.runs) == 2 * (2 * 2 + 2)
    assert len({run.id for run in study.runs}) == len(study.runs)
    first = study.runs[0]
    assert first.labels == {"model.backbone.merge": "Add", "size": "small"}
    assert first.settings["model.backbone.layers"] == [1, 1]
    # Seed by seed: a study that is stopped early has the whole grid.
    assert [run.seed for run in study.runs] == [0] * 6 + [1] * 6


def test_what_stands_closer_to_the_run_counts() -> None:
    runs = read_study(FILE, "two").runs
    epochs = {(r.configs[0], r.labels.get("size")): r.settings["trainer.max_epochs"] for r in runs}
    assert epochs == {
        ("image_classification/digits", "small"): 2,
        ("image_classification/digits", "large"): 3,
        ("rl_policy/cartpole", None): 5,
    }


def test_a_run_is_a_command_line() -> None:
    run = read_study(FILE, "two").runs[-1]
    tokens = run.arguments(Path("root"))
    assert tokens[:4] == ["--config", "rl_policy/cartpole", "--config", "probes/all"]
    said = dict(zip(tokens[4::2], tokens[5::2], strict=True))
    assert said == {
        "--trainer.max_epochs": "5",
        "--run.wandb.mode": "disabled",
        "--model.backbone.merge": "BranchOnly",
        "--seed": "1",
        "--run.root": "root",
        "--run.id": run.id,
        "--run.wandb.group": "two",
    }


def test_an_id_is_readable_stays_and_follows_the_settings() -> None:
    ids = [run.id for run in read_study(FILE, "two").runs]
    assert ids == [run.id for run in read_study(FILE, "other").runs]
    assert ids[0].startswith("Add_small_seed0-")
    changed = {**FILE, "set": {**FILE["set"], "model.optimization.lr": 0.1}}
    assert not {run.id for run in read_study(changed, "two").runs} & set(ids)


def test_an_id_does_not_turn_large_into_small() -> None:
    study = {"axes": {"model.optimization.lr": [1.0e30, 1.0e-30]}, "bases": [{"config": "a/b"}]}
    large, small = (run.id for run in read_study(study, "two").runs)
    assert large.startswith("1e30_seed0-")
    assert small.startswith("1e-30_seed0-")


def test_what_is_left_out_has_a_reason_and_is_not_run() -> None:
    bases = [
        {
            "config": "a/b",
            "leave_out": [{"model.backbone.merge": "BranchOnly", "because": "it diverges"}],
        }
    ]
    study = read_study({**FILE, "bases": bases}, "two")
    assert {run.labels["model.backbone.merge"] for run in study.runs} == {"Add"}
    [part] = study.left_out
    assert part.because == "it diverges"


def test_parts_are_labelled_by_their_class() -> None:
    part = {"class_path": "resdomains.core.DropPath", "init_args": {"p": 0.2}}
    study = read_study(
        {"axes": {"model.backbone.merge": ["Add", part]}, "bases": FILE["bases"]}, "x"
    )
    assert {run.labels["model.backbone.merge"] for run in study.runs} == {"Add", "DropPath"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bases": []}, "bases: expected a list"),
        ({"bases": [{"confg": "x"}]}, r"bases.0: no key 'confg'; did you mean 'config'"),
        ({"bases": [{"config": 3}]}, "bases.0.config: expected the name of a config"),
        ({"bases": [FILE["bases"][0]] * 2}, "two of the runs are the same"),
        ({"seeds": "1, 2"}, "seeds: expected a list of whole numbers"),
        ({"seeds": []}, "seeds: expected a list of whole numbers"),
        ({"minutes": 0}, "minutes: expected a number above 0"),
        ({"axes": {"model.backbone.merge": "Add"}}, "axes.model.backbone.merge: expected a list"),
        ({"axes": {"trainer.max_epochs": [1, 1]}}, "a value stands there twice"),
        ({"set": {"seed": 3}}, "set: seed is set for each run by the study itself"),
        ({"set": {"model..lr": 3}}, "is no dotted key"),
        ({"sets": {}}, r"no key 'sets'; did you mean 'set'"),
        ({"name": "a/b"}, "name: expected letters"),
        ({"compare": {"z": "x"}}, "compare: no key 'z'"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_study({**FILE, **change}, "two")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"size": "small"}, "`because` with the reason"),
        ({"depth": "8", "because": "x"}, "no axis 'depth'"),
        ({"size": "tiny", "because": "x"}, "no value 'tiny'"),
    ],
)
def test_a_rule_that_fits_nothing_is_refused(rule: dict[str, str], message: str) -> None:
    base = {**FILE["bases"][0], "leave_out": [rule]}
    with pytest.raises(ValueError, match=message):
        read_study({**FILE, "bases": [base]}, "two")


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["Add_small_seed0-*"], 1),
        (["*seed1*"], 6),
        (["image_classification/digits/*", "*_seed0-*"], 10),
        (["Add_*", "Add_*"], 6),
        (["image_classification/*/Add*seed[01]-*"], 4),
    ],
)
def test_runs_are_chosen_by_their_ids(names: list[str], count: int) -> None:
    study = read_study(FILE, "two")
    some = chosen(study, names)
    assert len(some.runs) == count
    assert [run for run in study.runs if run in some.runs] == some.runs
    [one] = chosen(study, [study.runs[3].id]).runs
    assert one is study.runs[3]


def test_a_name_of_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no run 'Add_smal' in two; .*`--dry-run` lists|runs: "):
        chosen(read_study(FILE, "two"), ["*", "Add_smal"])
