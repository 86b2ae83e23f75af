import csv
import json
import random
import subprocess
import sys
import wave
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from matplotlib.text import Annotation
from PIL import Image
from pytorch_lightning import Trainer
from torch import Tensor

from resdomains.training import (
    Box,
    Boxed,
    Film,
    NoFilm,
    Run,
    RunOptions,
    Sound,
    Task,
    WandbOptions,
)
from resdomains.training.callbacks import Pictures
from resdomains.training.figures import learning_curves, log_boxed, log_film, log_table, sheet
from tests.resdomains.training.test_task import fit
from tests.resdomains.training.toy import Clouds, Side


def test_a_table_is_written_with_its_columns_in_order(tmp_path: Path) -> None:
    rows = [{"text": 'a, "b"\nc', "n": 1}, {"text": "\ud800 half", "n": 2}]
    log_table([], rows, tmp_path / "tables" / "val_x.csv")
    with (tmp_path / "tables" / "val_x.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert found == [["text", "n"], ['a, "b"\nc', "1"], ["? half", "2"]]


def test_a_table_without_rows_is_not_written(tmp_path: Path) -> None:
    log_table([], [], tmp_path / "tables" / "val_x.csv")
    assert not (tmp_path / "tables").exists()


def test_a_tasks_tables_go_to_their_folder(tmp_path: Path) -> None:
    class Told:
        def __init__(self) -> None:
            self.results: dict[str, Any] = {"test": {}}

        def tables(self, split: str, results: Any) -> dict[str, list[dict[str, Any]]]:
            return {"classes": [{"class": split}]}

        def figures(self, split: str, results: Any) -> dict[str, Any]:
            return {}

        def films(self, split: str, results: Any) -> dict[str, Any]:
            return {}

        training = True

        def eval(self) -> None: ...

        def train(self, mode: bool) -> None: ...

    pictures = Pictures(tmp_path / "pictures", tmp_path / "tables", tmp_path / "metrics.csv")
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    pictures.on_test_end(trainer, cast(Task, Told()))
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["test_classes.csv"]


def samples(path: Path, rate: int) -> list[int]:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, rate)
        found: list[int] = np.frombuffer(file.readframes(file.getnframes()), "<i2").tolist()
    return found


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (torch.tensor([0.0, 1.0, -1.0, 0.5]), [0, 32767, -32767, 16384]),
        (torch.tensor([2.0, -4.0, 1.0]), [16384, -32767, 8192]),
        (torch.tensor([float("nan"), float("inf"), 1.0]), [0, 0, 32767]),
        (torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True), [16384]),
        (torch.zeros(0), []),
    ],
)
def test_a_sound_is_a_file_of_16_bits(tmp_path: Path, given: Tensor, written: list[int]) -> None:
    Sound(given, 8000).write(tmp_path / "a.wav")
    assert samples(tmp_path / "a.wav", 8000) == written


@pytest.mark.parametrize("best", [0, 1, 2])
def test_the_best_score_is_written_beside_its_point_inside_the_axes(
    best: int, tmp_path: Path
) -> None:
    lines = [f"{100 * row},{1.0 if row == best else 0.9}" for row in range(3)]
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("\n".join(["progress/samples,val/score", *lines]))
    figure = learning_curves(metrics)
    assert figure
    figure.draw_without_rendering()
    axes = figure.axes[1]
    [said] = axes.texts
    assert said.get_text() == "best 1.0000"
    assert axes.bbox.x0 < said.get_window_extent().x0 < said.get_window_extent().x1 < axes.bbox.x1


def test_of_equal_scores_the_later_is_marked_whose_weights_are_kept(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("progress/samples,val/score\n100,1.0\n200,0.5\n300,1.0\n400,0.5\n")
    figure = learning_curves(metrics)
    assert figure
    [said] = figure.axes[1].texts
    assert isinstance(said, Annotation)
    assert said.xy == (300.0, 1.0)


def test_what_is_no_sound_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one channel \(L,\), got \(2, 5\); mix channels down"):
        Sound(torch.zeros(2, 5), 8000)
    with pytest.raises(ValueError, match="rate must be at least 1 Hz, got 0"):
        Sound(torch.zeros(5), 0)


def kept(run: Run) -> list[dict[str, Any]]:
    """What W&B kept of an offline run."""
    (file,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    reader = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(file)]
    output = subprocess.run(reader, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def test_a_table_holds_sounds_as_files_beside_it_and_as_players(tmp_path: Path) -> None:
    import wandb

    options = RunOptions(tmp_path, wandb=WandbOptions(mode="offline"))
    run = Run.create(options, "speech", "words")
    loggers = run.loggers({}, [])
    word, other = Sound(torch.ones(4), 16000), Sound(-torch.ones(2), 8000)
    rows = [
        {"n": 1, "audio": word, "echo": word, "tags": ["a"]},
        {"n": 2, "audio": other, "echo": None, "tags": []},
    ]
    log_table(loggers, rows, run.tables / "val_words.csv")
    wandb.finish()
    with (run.tables / "val_words.csv").open(newline="") as file:
        found = [row[:3] for row in csv.reader(file)]
    assert found == [
        ["n", "audio", "echo"],
        ["1", "val_words/00.wav", "val_words/00.wav"],
        ["2", "val_words/01.wav", ""],
    ]
    assert samples(run.tables / "val_words/00.wav", 16000) == [32767] * 4
    assert samples(run.tables / "val_words/01.wav", 8000) == [-32767] * 2
    # W&B shows players from an artifact, which is staged until it is sent.
    (artifact,) = [record["artifact"] for record in kept(run) if record["type"] == "artifact"]
    staged = {part["path"]: Path(part["local_path"]) for part in artifact["manifest"]["contents"]}
    shown = json.loads(staged["tables/val_words.table.json"].read_text())
    assert shown["columns"] == ["n", "audio", "echo", "tags"]
    players = [row[1] for row in shown["data"]]
    assert [player["_type"] for player in players] == ["audio-file"] * 2
    for player, written in zip(players, ("00.wav", "01.wav"), strict=True):
        beside = (run.tables / "val_words" / written).read_bytes()
        assert staged[player["path"]].read_bytes() == beside


def plain(value: int, height: int = 4, width: int = 6, channels: int = 3) -> Tensor:
    """A picture of one brightness."""
    return torch.full((channels, height, width), value, dtype=torch.uint8)


def boxed(value: int, height: int = 4, width: int = 6) -> Boxed:
    """A picture with a known box and a predicted one."""
    return Boxed(
        drawn=plain(value, height, 2 * width),
        pixels=plain(value, height, width, channels=1),
        layers={"truth": [Box((0.6, 1.0, 3.0, 2.4), 1)], "found": [Box((1, 1, 3, 3), 0, 0.875)]},
        classes=["cat", "dog"],
    )


def pixels(path: Path) -> Tensor:
    """A PNG file as (3, H, W)."""
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"drawn": plain(0, channels=1)},
            r"drawn must be \(3, H, W\) uint8, got \(1, 4, 6\) uint8",
        ),
        (
            {"pixels": torch.zeros(3, 4, 6)},
            r"pixels must be \(1 or 3, H, W\) uint8, got .* float32",
        ),
        ({"layers": {"a": [Box((1, 2, 3), 0)]}}, "a box of 'a' needs x1, y1, x2, y2 and a label"),
        ({"layers": {"a": [Box((1, 2, 3, 4), 2)]}}, "a label below 2, got .*label=2"),
    ],
)
def test_what_is_no_picture_with_boxes_is_refused(change: dict[str, Any], message: str) -> None:
    good = {"drawn": plain(0), "pixels": plain(0), "layers": {}, "classes": ["cat", "dog"]}
    with pytest.raises(ValueError, match=message):
        Boxed(**{**good, **change})


def test_a_sheet_holds_pictures_of_any_sizes_apart() -> None:
    pictures = [plain(1, 10, 10), plain(2, 3, 10), plain(3, 10, 4), plain(4, 10, 10)]
    whole = sheet(pictures)
    assert whole.shape == (3, 28, 28)
    tiles = [whole[:, :10, :10], whole[:, :3, 18:], whole[:, 18:, :4], whole[:, 18:, 18:]]
    assert all(torch.equal(tile, own) for tile, own in zip(tiles, pictures, strict=True))
    assert int((whole == 255).all(0).sum()) == 28 * 28 - sum(p[0].numel() for p in pictures)
    assert sheet([plain(1, 20, 100)] * 3).shape == (3, 76, 100)
    assert sheet([plain(1, 100, 20)] * 3).shape == (3, 100, 76)


def test_pictures_with_boxes_are_a_file_and_layers_to_switch(tmp_path: Path) -> None:
    import wandb

    options = RunOptions(tmp_path, wandb=WandbOptions(mode="offline"))
    run = Run.create(options, "boxes", "cats")
    loggers = run.loggers({}, [])
    pictures = [boxed(10), boxed(20, 5, 4)]
    log_boxed(loggers, pictures, run.pictures / "val_cats" / "epoch_001.png", "val_cats")
    wandb.finish()
    drawn = sheet([picture.drawn for picture in pictures])
    assert torch.equal(pixels(run.pictures / "val_cats" / "epoch_001.png"), drawn)
    (values,) = [r["history"]["item"] for r in kept(run) if r["type"] == "history"]
    start = "media/val_cats."
    sent = {name.removeprefix(start): v for name, v in values.items() if name.startswith(start)}
    assert (sent["_type"], sent["width"], sent["height"]) == ("images/separated", 6, 5)
    (files,) = run.folder.glob("wandb/offline-run-*/files")
    shown = [pixels(files / name) for name in sent["filenames"]]
    assert [tuple(picture.shape) for picture in shown] == [(3, 5, 6)] * 2
    assert torch.equal(shown[1][:, :5, :4], plain(20, 5, 4))
    for layers in sent["all_boxes"]:
        read = {n: json.loads((files / layer["path"]).read_text()) for n, layer in layers.items()}
        assert set(read) == {"truth", "found"}
        assert read["truth"]["class_labels"] == {"0": "cat", "1": "dog"}
        assert read["truth"]["box_data"] == [
            {
                "position": {"minX": 1, "minY": 1, "maxX": 3, "maxY": 2},
                "domain": "pixel",
                "class_id": 1,
                "box_caption": "dog",
            }
        ]
        (found,) = read["found"]["box_data"]
        assert (found["box_caption"], found["scores"]) == ("cat 0.88", {"score": 0.875})


class Seeing(Side):
    """A task that draws what it gets."""

    def snapshots(self, split: Any, results: Any) -> Any:
        assert float(results["score"]) >= 0
        return {"points": [boxed(self.samples_seen)], "none": []}

    def samples(self, batch: Any) -> Tensor:
        torch.rand(1)
        random.random()
        np.random.rand()
        seen: Tensor = batch[0].clamp(0, 1).mul(255).byte()
        return seen[None].expand(3, -1, -1)


class Jittered(Clouds):
    """Points moved at random, by generators that everything shares."""

    def transform(self, batch: Any, split: Any) -> Any:
        points, targets, index = batch
        if split == "train":
            moved = random.random() + np.random.rand() + torch.rand(points.shape)
            points = points + moved
        return [points, targets, index]


def test_snapshots_are_drawn_each_epoch_and_after_the_test(tmp_path: Path) -> None:
    task, run = fit(tmp_path, Clouds(), task=Seeing)
    task.trainer.test(task, Clouds(), verbose=False)
    assert sorted(p.relative_to(run.pictures).as_posix() for p in run.pictures.rglob("*.png")) == [
        "learning_curves.png",
        "test_points.png",
        "train_samples.png",
        "val_points/epoch_001.png",
        "val_points/epoch_002.png",
    ]
    values = [
        int(pixels(run.pictures / name).max())
        for name in ("val_points/epoch_001.png", "val_points/epoch_002.png", "test_points.png")
    ]
    assert values == [40, 80, 80]


def test_the_first_training_batch_is_drawn_and_nothing_else_changes(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class First(Seeing):
        def step(self, batch: Any, split: Any) -> Any:
            if split == "train" and not seen:
                seen.append(batch[2])
            return super().step(batch, split)

    drawing, run = fit(tmp_path / "a", Jittered(), task=First)
    silent, other = fit(tmp_path / "b", Jittered())
    for one, two in zip(drawing.parameters(), silent.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not (other.pictures / "train_samples.png").exists()
    drawn = pixels(run.pictures / "train_samples.png")
    assert drawn.shape == (3, 8, 4)
    # Jitter moves all points of a cloud by less than three; the clouds' distance tells the batch.
    _, plainly = fit(tmp_path / "c", Clouds(), task=First)
    points = Clouds().ready().points[seen[0]]
    expected = points.clamp(0, 1).mul(255).byte()
    assert torch.equal(pixels(plainly.pictures / "train_samples.png")[0], expected)


def test_a_run_that_goes_on_draws_no_training_samples(tmp_path: Path) -> None:
    _, run = fit(tmp_path, Clouds(), epochs=1, task=Seeing)
    _, rest = fit(tmp_path, Clouds(), epochs=2, task=Seeing, resume=run.last_checkpoint)
    assert (rest.pictures / "val_points" / "epoch_002.png").is_file()
    assert not (rest.pictures / "train_samples.png").exists()


BITS = 10


def numbered(count: int, rate: float, height: int = 4) -> tuple[Film, list[int]]:
    """A film of frames that show their number in bits from left to right, and the numbers that were drawn."""
    film, drawn = Film(rate), []

    def draw(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        drawn.append(number)
        bits = np.array([number >> place & 1 for place in range(BITS)], np.uint8)
        return np.broadcast_to(255 * bits[:, None], (height, BITS, 3)).copy()

    for number in range(count):
        film.take(partial(draw, number), last=number == count - 1)
    return film, drawn


def shown(path: Path) -> list[tuple[int, int]]:
    """The number of each frame of a GIF, and for how many milliseconds it is shown."""
    found = []
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        width = image.width // BITS
        for place in range(image.n_frames):  # type: ignore[attr-defined]  # GIF has it
            image.seek(place)
            bits = np.array(image.convert("RGB"))[0, width // 2 :: width, 0]
            assert set(bits) <= {0, 255}
            found.append((sum(1 << n for n, bit in enumerate(bits) if bit), image.info["duration"]))
    return found


@pytest.mark.parametrize(
    ("count", "rate", "kept"),
    [
        (1, 30.0, [0]),
        (150, 50.0, list(range(150))),
        (151, 50.0, [*range(0, 150, 2), 150]),
        (500, 50.0, [*range(0, 499, 4), 499]),
        (10, 100.0, [0, 2, 4, 6, 8, 9]),
    ],
)
def test_a_film_keeps_few_frames_evenly_and_the_last(
    tmp_path: Path, count: int, rate: float, kept: list[int]
) -> None:
    film, drawn = numbered(count, rate)
    assert film.times == [number / rate for number in kept]
    assert len(kept) <= 150
    assert set(kept) <= set(drawn)
    assert len(drawn) <= 300, "frames that are not kept are not drawn"
    film.write(tmp_path / "new" / "a.gif")
    assert [number for number, _ in shown(tmp_path / "new" / "a.gif")] == kept


@pytest.mark.parametrize(
    ("expected", "kept", "drawn"), [(501, 126, 126), (300, 126, 201), (0, 126, 276)]
)
def test_of_an_expected_number_few_frames_are_drawn_in_vain(
    expected: int, kept: int, drawn: int
) -> None:
    film, seen = Film(50.0, expected), []

    def draw(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        seen.append(number)
        return np.zeros((4, 4, 3), np.uint8)

    for number in range(501):
        film.take(partial(draw, number), last=number == 500)
    assert (len(film.times), len(seen)) == (kept, drawn)


@pytest.mark.parametrize("rate", [5.0, 30.0, 50.0, 60.0])
def test_a_film_runs_as_fast_as_what_was_filmed(tmp_path: Path, rate: float) -> None:
    film, _ = numbered(31, rate)
    film.write(tmp_path / "a.gif")
    lengths = [length for _, length in shown(tmp_path / "a.gif")]
    assert sum(lengths[:-1]) == pytest.approx(1000 * 30 / rate, abs=11)
    assert min(lengths) >= 20
    assert lengths[-1] == 1000


@pytest.mark.parametrize(
    ("height", "size"),
    [(4, (320, 128)), (100, (30, 300)), (170, (10, 170)), (321, (5, 161)), (700, (4, 234))],
)
def test_a_films_frames_are_of_a_size_to_look_at(
    tmp_path: Path, height: int, size: tuple[int, int]
) -> None:
    film, _ = numbered(2, 10.0, height)
    film.write(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == size


def test_the_grounds_colour_is_exact_and_does_not_flicker(tmp_path: Path) -> None:
    random, film = np.random.default_rng(0), Film(10.0)
    for _ in range(40):
        frame = np.full((64, 64, 3), 255, np.uint8)
        frame[:8] = random.integers(0, 256, (8, 64, 3))
        frame[8:16] = random.integers(244, 256, (8, 64, 3))
        film.take(partial(np.copy, frame))
    film.write(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        for place in range(40):
            image.seek(place)
            # Frames are shown five times as large.
            assert (np.array(image.convert("RGB"))[16 * 5 :] == 255).all()


def test_what_is_no_film_is_refused(tmp_path: Path) -> None:
    for rate in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"rate must be above 0 Hz, got {rate}"):
            Film(rate)
    with pytest.raises(NoFilm, match="no frame was taken"):
        Film(1.0).write(tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8, got \(4, 4\) uint8"):
        Film(1.0).take(lambda: np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"uint8, got \(4, 4, 3\) float64"):
        Film(1.0).take(lambda: cast(Any, np.zeros((4, 4, 3))))
    film, _ = numbered(1, 1.0)
    with pytest.raises(ValueError, match=r"first one's shape \(4, 10, 3\), got \(8, 8, 3\)"):
        film.take(lambda: np.zeros((8, 8, 3), np.uint8))


def test_a_film_goes_to_wandb_as_a_player(tmp_path: Path) -> None:
    import wandb

    run = Run.create(RunOptions(tmp_path, wandb=WandbOptions(mode="offline")), "rl", "cart")
    film, _ = numbered(3, 10.0)
    log_film(run.loggers({}, []), film, run.pictures / "test_episode.gif")
    wandb.finish()
    (values,) = [r["history"]["item"] for r in kept(run) if r["type"] == "history"]
    assert values["media/test_episode._type"] == "videos"
    assert list(run.folder.glob("wandb/offline-run-*/files/media/videos/media/test_episode*.gif"))


def test_films_are_made_of_the_policy_as_it_is_evaluated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[bool, bool]] = []

    class Filmed(Side):
        def films(self, split: str, results: Any) -> dict[str, Film]:
            seen.append((self.training, torch.is_inference_mode_enabled()))
            if split == "test":
                raise NoFilm("no display")
            return {"episode": numbered(3, 10.0)[0]}

    task, run = fit(tmp_path, Clouds(), epochs=1, task=Filmed)
    assert task.training
    task.trainer.test(task, Clouds(), verbose=False)
    assert seen == [(False, True)] * 2
    assert "no film of test: no display" in caplog.text
    assert [path.name for path in run.pictures.glob("*.gif")] == ["val_episode.gif"]
