"""How predictions are shown, and how much is read before something is predicted."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from resdomains.cli.prediction import arithmetic, picture_names, render, windows
from resdomains.training import BadSample, Film, NoFilm, Task
from resdomains.training.precision import Precision
from tests.resdomains.training.toy import Clouds, Linear, Side

from .conftest import TINY, Run
from .test_fitting import run_folder

WORDS = [{"word": "yes", "start": 0.5, "end": 0.75}, {"word": "no", "start": 1.0, "end": 1.5}]
RECORDS: list[dict[str, Any]] = [
    {"source": "quiet.wav", "seconds": 2.0, "text": "", "words": []},
    {"source": "a.wav", "seconds": 1.0, "text": "yes no", "words": WORDS},
]


def test_lists_of_mappings_are_left_out_of_a_table() -> None:
    assert render(RECORDS, "table").splitlines() == [
        "source     seconds  text",
        "quiet.wav  2.0000",
        "a.wav      1.0000   yes no",
    ]


def test_lists_of_mappings_stay_in_json_and_csv() -> None:
    assert [json.loads(line) for line in render(RECORDS, "json").splitlines()] == RECORDS
    quiet, spoken = csv.DictReader(io.StringIO(render(RECORDS, "csv")))
    assert json.loads(spoken["words"]) == WORDS
    assert quiet["words"] == ""
    assert list(quiet) == ["source", "seconds", "text", "words"]


def test_pairs_of_numbers_are_no_ranking() -> None:
    record = {"source": "a.npy", "probabilities": [[0.25, 0.75], [0.5, 0.5]]}
    assert render([record], "csv").splitlines() == [
        "source,probabilities",
        'a.npy,"[[0.25, 0.75], [0.5, 0.5]]"',
    ]


def test_rankings_and_lists_of_texts_have_a_place_in_a_table() -> None:
    record = {"source": "1.png", "top": [["cat", 0.75], ["dog", 0.25]], "labels": ["a", "b"]}
    assert render([record], "table").splitlines()[1] == "1.png   cat 0.7500, dog 0.2500  a b"


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_a_long_text_is_cut_but_in_the_last_column_where_it_wraps() -> None:
    long = "word " * 60
    record = {"source": "x" * 70, "text": long, "label": "pos"}
    line = render([record], "table").splitlines()[1]
    assert line.startswith(f"{'x' * 70}  {'word ' * 11}word…  pos")
    last = render([{"source": "a.wav", "text": long}], "table").splitlines()[1:]
    assert sum(line.count("word") for line in last) == 60
    assert max(map(len, last)) <= 100


class Sized:
    """A task whose items are their own sizes."""

    def size(self, item: int) -> int | None:
        return item or None


def taken(sizes: list[int], batch: int) -> list[int]:
    """How many items each window holds."""
    reached: Iterator[int] = iter(sizes)
    return [len(window) for window in windows(cast(Task, Sized()), reached, batch)]


def test_items_of_one_size_are_held_a_batch_at_a_time() -> None:
    assert taken([0] * 10, 4) == [4, 4, 2]


def test_items_that_differ_in_size_are_held_in_many_batches_but_not_more_than_memory_has() -> None:
    assert taken([100] * 450, 4) == [200, 200, 50]
    hour = 3600 * 16000
    assert taken([hour] * 7, 4) == [4, 3]
    assert taken([hour // 60] * 200, 4) == [70, 70, 60]


@pytest.fixture
def best(cli: Run) -> str:
    """The checkpoint of a short run."""
    short = ("--trainer.max_epochs", "1", "--test_after_fit", "false")
    assert cli("fit", *TINY, *short)[0] == 0
    return str(run_folder() / "checkpoints" / "last.ckpt")


@pytest.fixture
def files(folder: Path) -> list[str]:
    """Points of which two files are called alike, but for capitals."""
    paths = [folder / "a" / "one.txt", folder / "b" / "One.txt", folder / "b" / "two.txt"]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number} 1")
    return [str(path.relative_to(folder)) for path in paths]


def predicted(cli: Run, best: str, *arguments: str) -> tuple[int, str, str]:
    exact = ("--accelerator", "cpu", "--precision", "32")
    return cli("predict", *TINY[:2], "--ckpt_path", best, *exact, *arguments)


def test_items_are_drawn_each_in_a_file_of_its_own(cli: Run, best: str, files: list[str]) -> None:
    status, out, errors = predicted(cli, best, *files, "--pictures", "seen", "--format", "json")
    assert status == 0, errors
    assert sorted(path.name for path in Path("seen").iterdir()) == [
        "One_2.png",
        "one.png",
        "two.png",
    ]
    records = [json.loads(line) for line in out.splitlines()]
    for record, name in zip(records, ("one.png", "One_2.png", "two.png"), strict=True):
        with Image.open(Path("seen") / name) as image:
            assert np.array(image).shape == (2, 5, 3)
            assert int(np.array(image)[0, 0, 0]) == round(255 * record["probability"])
    assert not list(Path().glob(".seen*"))


def test_pictures_are_written_whole_or_not_at_all(
    cli: Run, best: str, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = sys.modules["tiny_domain"].Tiny
    draw = task.draw

    def gone(self: Any, record: Any) -> Any:
        return draw(self, {**record, "source": record["source"].replace("two", "gone")})

    monkeypatch.setattr(task, "draw", gone)
    status, out, errors = predicted(cli, best, *files, "--pictures", "seen")
    assert (status, out, errors) == (2, "", "error: b/gone.txt: gone\n")
    assert not list(Path().glob("*seen*"))
    status, _, errors = predicted(cli, best, *files, "--pictures", "seen", "--bad_samples", "skip")
    assert (status, errors) == (0, "error: skipped b/gone.txt: gone\n")
    assert len(list(Path("seen").iterdir())) == 2


def test_a_task_that_draws_nothing_says_so_before_it_computes(
    cli: Run, best: str, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["tiny_domain"].Tiny, "draw", None)
    monkeypatch.setattr(sys.modules["tiny_domain"].Tiny, "predict", None)
    status, _, errors = predicted(cli, best, *files, "--pictures", "seen")
    assert (status, errors) == (
        2,
        "error: --pictures: Tiny draws nothing (it has no method `draw`)\n",
    )


def test_names_of_pictures_never_meet() -> None:
    sources = ["x/a.jpg", "y/a.png", "a_2.jpg", "A.gif", "", "n\x1b.jpg", "l" * 300 + ".jpg"]
    names = picture_names(sources)
    assert names[:6] == ["a", "a_2", "a_2_2", "A_3", "item", "n"]
    assert len(names[6]) == 60


def test_a_tasks_own_options_are_set(cli: Run, best: str, files: list[str]) -> None:
    for cut, expected in (("0.0", ["one"] * 3), ("1", ["zero"] * 3)):
        status, out, errors = predicted(cli, best, *files, "--cut", cut)
        assert (status, errors) == (0, "")
        assert [line.split()[-1] for line in out.splitlines()[1:]] == expected
    # What a table shows is no part of the record.
    assert "class" not in predicted(cli, best, *files, "--format", "json")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cut", "2"), "--cut 2: cut must lie in [0, 1], got 2.0"),
        (("--cut=x",), "--cut x: expected a number"),
        (("--least", "0.5"), "--least 0.5: expected a whole number"),
        (("--cute", "1"), "no option --cute; did you mean 'cut'? (Tiny has cut, least)"),
        (("--tops", "1"), "no option --tops; did you mean 'top'? (Tiny has cut, least)"),
        (("--head", "1"), "no option --head (Tiny has cut, least)"),
        (("--cut",), "--cut needs a value"),
        (("--cute",), "no option --cute; did you mean 'cut'? (Tiny has cut, least)"),
        (("--format", "cvs"), "--format cvs: did you mean 'csv'? allowed: count, csv, json, table"),
    ],
)
def test_what_a_task_does_not_have_is_refused(
    cli: Run, best: str, files: list[str], arguments: tuple[str, ...], message: str
) -> None:
    status, out, errors = predicted(cli, best, *files, *arguments)
    assert (status, out, errors) == (2, "", f"error: {message}\n")


def test_a_tasks_own_formats_are_written(cli: Run, best: str, files: list[str]) -> None:
    status, out, _ = predicted(cli, best, *files, "--format", "count")
    assert (status, out) == (0, "3 points\n")


@pytest.fixture
def player(best: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The checkpoint of a task that plays where there are no inputs, aloud if it is told so."""
    task = sys.modules["tiny_domain"].Tiny

    def read(self: Any, inputs: Any) -> list[int]:
        assert list(inputs) == []
        return [3, 1, 2]

    def predict(self: Any, seeds: list[int]) -> list[dict[str, Any]]:
        if self.loud and max(seeds) > 1:
            raise BadSample("Cart", "fell over")
        return [{"seed": seed, "mates": len(seeds)} for seed in seeds]

    def film(self: Any, record: Any) -> Film:
        if not torch.is_inference_mode_enabled():
            raise AssertionError("filmed with gradients")
        if self.least:
            raise NoFilm("Cart cannot be drawn")
        film = Film(record["seed"])
        film.take(lambda: np.zeros((2, 2, 3), np.uint8))
        return film

    def set_loud(self: Any, value: bool) -> None:
        assert value is True or value is False
        self._loud = value

    loud = property(lambda self: getattr(self, "_loud", False), set_loud, None, "Say it.")
    least = property(
        lambda self: getattr(self, "_least", 0), lambda self, value: setattr(self, "_least", value)
    )
    for name, value in (
        ("needs_inputs", False),
        ("read", read),
        ("collate", lambda self, items: list(items)),
        ("predict", predict),
        ("film", film),
        ("row", lambda self, record: record),
        ("loud", loud),
        ("least", least),
        ("predict_options", {"loud": bool, "least": int}),
    ):
        monkeypatch.setattr(task, name, value, raising=False)
    return best


def test_a_task_that_needs_no_inputs_plays_without_any(cli: Run, player: str) -> None:
    status, out, errors = predicted(cli, player, "--format", "json")
    assert (status, errors) == (0, "")
    expected = [{"seed": seed, "mates": 3} for seed in (3, 1, 2)]
    assert [json.loads(line) for line in out.splitlines()] == expected


def test_episodes_are_filmed_as_they_were_played(cli: Run, player: str) -> None:
    status, out, errors = predicted(cli, player, "--pictures", "played", "--format", "json")
    assert (status, errors) == (0, "")
    assert [json.loads(line)["mates"] for line in out.splitlines()] == [1, 1, 1]
    names = sorted(path.name for path in Path("played").iterdir())
    assert names == ["seed_1.gif", "seed_2.gif", "seed_3.gif"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pictures", "played", "--least", "1"), "--pictures: Cart cannot be drawn"),
        (("--embeddings", "e.npz"), "--embeddings: there are features of inputs only; name some"),
        (("--loud",), "Cart: fell over"),
        (("--loud", "--format", "json"), "Cart: fell over"),
        (("--loud", "yes"), "--loud yes: expected true, false or nothing"),
    ],
)
def test_what_cannot_be_played_is_said(
    cli: Run, player: str, arguments: tuple[str, ...], message: str
) -> None:
    status, out, errors = predicted(cli, player, *arguments)
    assert (status, out, errors) == (2, "", f"error: {message}\n")
    assert not list(Path().glob("*played*"))


def test_a_switch_can_be_off(cli: Run, player: str) -> None:
    assert predicted(cli, player, "--loud", "false")[0] == 0
    assert "  --loud                Say it (false)" in predicted(cli, player, "--help")[1]


def test_a_task_without_films_or_without_inputs_says_so(
    cli: Run, best: str, player: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = sys.modules["tiny_domain"].Tiny
    monkeypatch.setattr(task, "film", None)
    status, _, errors = predicted(cli, best, "--pictures", "seen")
    assert (status, errors) == (
        2,
        "error: --pictures: Tiny films nothing (it has no method `film`)\n",
    )
    monkeypatch.setattr(task, "needs_inputs", True)
    status, _, errors = predicted(cli, best)
    assert (status, "needs files or folders to predict, or texts" in errors) == (2, True)


def test_an_empty_input_is_not_the_folder_of_the_moment(cli: Run, best: str) -> None:
    status, _, errors = predicted(cli, best, "data.txt", "")
    assert (status, "error: input 2 is empty: expected a file" in errors) == (2, True)


def test_help_with_a_checkpoint_shows_what_its_task_has(cli: Run, best: str) -> None:
    status, out, _ = predicted(cli, best, "--help", "--cut", "0.25")
    assert status == 0
    assert out.splitlines()[-4:] == [
        "Tiny has these options:",
        "  --cut VALUE           The probability from which it is one (0.5)",
        "  --least VALUE         The smallest whole number (0)",
        "Tiny writes these formats too: count",
    ]
    assert "Tiny" not in cli("predict", "--help")[1]


@pytest.mark.parametrize(
    ("trained", "wanted", "rounds"),
    [
        (None, "auto", True),
        ("bf16-mixed", "auto", True),
        ("32-true", "auto", False),
        ("32-true", "bf16", True),
        (None, "32", False),
    ],
)
def test_what_was_trained_in_float32_on_purpose_is_computed_in_it(
    trained: str | None, wanted: str, rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = Precision("bf16-mixed", "the device is fast at it")
    monkeypatch.setattr("resdomains.cli.prediction.choose_precision", lambda device: fast)
    task = Side(backbone=Linear(), spec=Clouds().spec)
    task.recipe = {"trainer": {"precision": trained}}
    with arithmetic(task, wanted):
        found = torch.ones(2, 2) @ torch.ones(2, 2)
    assert found.dtype == (torch.bfloat16 if rounds else torch.float32)
