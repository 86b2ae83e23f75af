"""Files that somebody else wrote: nothing in them runs, leads out of the data's folder, fills the memory or is lost."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from resdomains.cli.errors import CliError
from resdomains.cli.main import main
from resdomains.cli.yaml_files import read_text
from resdomains.plain_files import Damaged, read_plain
from resdomains.training import BadCheckpoint, BadSample, DataModule, building, load_task
from resdomains_tasks.image_classification import ImageFolder
from resdomains_tasks.image_classification.cifar import read_pickle
from resdomains_tasks.object_detection import CocoFiles, VocFiles, YoloFiles
from resdomains_tasks.speech_recognition import Manifest
from resdomains_tasks.text_classification import Characters, TextFiles
from tests.resdomains.launching import ALONE, DIGITS, Finished, launch

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Compose a shipped config and another one beside a module that says when it is imported: status and errors."""
    (tmp_path / "planted.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\nfrom torch.nn import ReLU\n"
        "def f(*_): Path('ran').touch()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(base: str, text: str, *arguments: str) -> tuple[int, str]:
        (tmp_path / "theirs.yaml").write_text(text)
        status = main(["fit", "--config", base, "--config", "theirs.yaml", *arguments])
        return status, capsys.readouterr().err

    return run


def nested(*keys: str, value: object) -> str:
    """A config with a value at a dotted place."""
    for key in reversed(keys):
        value = {key: value}
    return json.dumps(value)


MODEL, DATA = ("model", "init_args"), ("data", "init_args")
BACKBONE = (*MODEL, "backbone", "init_args")
PART = {"class_path": "planted.ReLU"}
PLACES: dict[str, str] = {
    "model": nested("model", value=PART),
    "data": nested("data", value=PART),
    "backbone": nested(*MODEL, "backbone", value=PART),
    "a function": nested(*MODEL, "backbone", value="planted.f"),
    "merge": nested(*BACKBONE, "merge", value="planted.ReLU"),
    "merge in a merge": nested(
        *BACKBONE, "merge", value={"class_path": "DropPath", "init_args": {"merge": PART}}
    ),
    "stem": nested(*BACKBONE, "stem", value=PART),
    "optimizer": nested(*MODEL, "optimization", "optimizer", value=PART),
    "weights": nested(*MODEL, "weights", value=PART),
    "a transform in a list": nested(*DATA, "augment", value=[PART]),
    "trainer.callbacks": nested("trainer", "callbacks", value=[PART]),
    "trainer.plugins": nested("trainer", "plugins", value=[PART]),
    "trainer.strategy": nested("trainer", "strategy", value=PART),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_module_that_a_config_names_is_never_imported(command: Command, place: str) -> None:
    status, errors = command("image_classification/digits", PLACES[place], "--print_config")
    assert status == 2
    assert (
        "may not be imported; configs may name classes of pytorch_lightning, resdomains" in errors
    )
    assert "(`--plugin planted` adds a package that you trust)" in errors
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("base", "text", "message"),
    [
        (
            "text_classification/docstrings",
            nested(*DATA, "tokens", value=PART),
            "data.tokens: 'planted.ReLU' may not be imported",
        ),
        (
            "rl_policy/cartpole",
            nested(*DATA, "wrappers", value=[PART]),
            "data.wrappers.0: 'planted.ReLU' may not be imported",
        ),
        (
            "rl_policy/cartpole",
            nested(*DATA, "environment", value="planted:World-v0"),
            "data: environment 'planted:World-v0' is of the module 'planted', which neither a config nor a "
            "checkpoint can ask to import; name it on the command line if you trust it: --plugin planted",
        ),
    ],
)
def test_nor_is_one_of_another_domains_parts(
    command: Command, base: str, text: str, message: str
) -> None:
    status, errors = command(base, text, "--run.wandb.mode", "disabled")
    assert (status, message in errors) == (2, True), errors
    assert not Path("ran").exists()


CALLBACK = {"class_path": "pytorch_lightning.callbacks.LambdaCallback"}
LAYER = {"class_path": "torch.nn.TransformerEncoderLayer"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (nested(*MODEL, "backbone", value=name), f"{name} is a ")
            for name in (
                "torch.os.system",
                "torch.hub.load",
                "torch.load",
                "torch.jit.load",
                "pytorch_lightning.LightningModule.load_from_checkpoint",
            )
        ),
        *(
            (
                nested(
                    "trainer",
                    "callbacks",
                    value=[{**CALLBACK, "init_args": {"on_fit_start": name}}],
                ),
                "trainer.callbacks.0.on_fit_start: takes a function, and a config names classes alone, got",
            )
            for name in ("planted.f", "torch.os.system", {"class_path": "planted.f"})
        ),
        (
            nested(
                *MODEL,
                "backbone",
                value={
                    **LAYER,
                    "init_args": {"d_model": 8, "nhead": 2, "activation": "torch.os.system"},
                },
            ),
            "model.backbone.activation: takes a function",
        ),
    ],
)
def test_functions_are_no_parts(command: Command, text: str, message: str) -> None:
    status, errors = command("image_classification/digits", text, "--print_config")
    assert (status, message in errors) == (2, True), errors
    assert not Path("ran").exists()


def test_a_secret_is_no_key_of_a_config(command: Command) -> None:
    key = nested(*DATA, "options", value={"world": {"api_key": "hush"}})
    status, errors = command("rl_policy/cartpole", key, "--print_config")
    assert status == 2
    assert "data.options.world.api_key: is called as secrets are" in errors
    assert "hush" not in errors


LADDER = "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
)
MERGED = LADDER.replace("[", "{<<: [").replace("]", "]}")
BOMBS = {
    "depth": ("[" * 200_000, "nested too deeply"),
    "aliases": (f"a: &a [x, x, x, x, x, x, x, x, x]\n{LADDER}", "more than 100,000 values"),
    "merged keys": (f"a: &a {{k: 1}}\n{MERGED}", "more than 100,000 values"),
    "a circle": ("model: &m {init_args: *m}", "stands within what it stands for"),
    "a text": (f"seed: {'x' * 20_000}", "a value of 20,000 characters"),
    "a number": (f"seed: {'9' * 5_000}", "not valid YAML: Exceeds the limit"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_yaml_that_becomes_large_is_refused(name: str) -> None:
    text, message = BOMBS[name]
    with pytest.raises(CliError, match=rf"theirs\.yaml.*{message}"):
        read_text(text, "theirs.yaml")


def checkpoint(path: Path, backbone: object, spec: object = None) -> Path:
    plain = {"channels": 1, "height": 8, "width": 8, "mean": [0.5], "std": [0.5]}
    recipe = {
        "model": {
            "class_path": "resdomains_tasks.image_classification.ImageClassification",
            "init_args": {"backbone": backbone},
        }
    }
    ours = {"format": 1, "recipe": recipe, "spec": spec or {**plain, "classes": ["a", "b"]}}
    torch.save({"state_dict": {"w": torch.zeros(100)}, "resdomains": ours}, path)
    return path


def resnet(**arguments: object) -> dict[str, Any]:
    given = {"layers": [1], "channels": [4], "in_channels": 1, **arguments}
    return {"class_path": "resdomains.core.ResNet2d", "init_args": given}


def deep(levels: int) -> dict[str, Any]:
    part: dict[str, Any] = {}
    for _ in range(levels):
        part = {"class_path": "resdomains.core.DropPath", "init_args": {"merge": part}}
    return part


def repeated() -> list[Any]:
    part: list[Any] = [1] * 10
    for _ in range(5):
        part = [part] * 10
    return part


RECIPES: dict[str, tuple[Any, str]] = {
    "a billion blocks": (resnet(layers=[10**9]), "asks for far more than the file holds"),
    "a billion channels": (resnet(channels=[10**9]), "asks for far more than the file holds"),
    "a number of 30 digits": (resnet(channels=[10**30]), "asks for far more than the file holds"),
    "a billion streams": (
        resnet(
            merge={
                "class_path": "resdomains.core.HyperConnection",
                "init_args": {"streams": 10**9},
            }
        ),
        "asks for far more than the file holds",
    ),
    "a large text": (resnet(layers="x" * 3_000_000), "a text in it has 3,000,000 characters"),
    "depth": (resnet(merge=deep(120)), "nested too deeply"),
    "repetition": (resnet(layers=repeated()), "more than 100,000 values"),
    "a wrong type": (resnet(layers=[[1]]), "cannot be built"),
    "no network": ([1], "cannot be built"),
    "a value that is refused": (resnet(layers=[0]), "cannot be built: layers"),
    "weights of another": (resnet(), "cannot be built: Error.* in loading state_dict"),
    "a function": ({"class_path": "torch.hub.load"}, "cannot be built"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_an_absurd_recipe_ends_in_a_message(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer blocks are built before they are found to be too many.
    monkeypatch.setattr(building, "_SPARE_TENSORS", 500)
    backbone, message = RECIPES[name]
    with pytest.raises(BadCheckpoint, match=rf"(?s)theirs\.ckpt: .*{message}") as caught:
        load_task(checkpoint(tmp_path / "theirs.ckpt", backbone))
    assert len(str(caught.value)) < 1000


def test_a_checkpoint_that_becomes_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    path, packed = tmp_path / "plain.ckpt", tmp_path / "packed.ckpt"
    torch.save({"w": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    with pytest.raises(Damaged, match="its parts are larger than the file"):
        read_plain(packed)
    torch.save({"w": torch.zeros(1).expand(2**40)}, path)
    with pytest.raises(Damaged, match="a tensor in it claims 1,099,511,627,776 values"):
        read_plain(path)


def test_a_pickle_of_cifar_takes_no_memory_beyond_its_size(tmp_path: Path) -> None:
    (tmp_path / "test").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(ValueError, match="refused as a CIFAR file: it keeps a value as number"):
        read_pickle(tmp_path / "test")


# Files outside of the data's folder: what names them, by a relative path, is a bad sample.


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def image_list(root: Path, outside: str) -> DataModule:
    picture(root.parent / "outside.png")
    names = [f"{label}/{i}.png" for label in "ab" for i in range(4)]
    rows = [f"{name},{name[0]},{'val' if '3' in name else 'train'}" for name in names]
    for name in names:
        picture(root / name)
    lines = ["file,label,split", *rows, f"{outside}outside.png,a,train"]
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return ImageFolder(root=str(root), batch_size=2, labels="list.csv", size=8)


def coco(root: Path, outside: str) -> DataModule:
    picture(root.parent / "outside.png")
    names = [f"{i}.png" for i in range(4)]
    for name in names:
        picture(root / name)
    images = [
        {"id": i, "file_name": name} for i, name in enumerate([*names, f"{outside}outside.png"])
    ]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in range(4)]
    categories = [{"id": 1, "name": "a"}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (root / "train.json").write_text(json.dumps(content))
    return CocoFiles(root=str(root), batch_size=2)


def voc(root: Path, outside: str) -> DataModule:
    for name in "0123":
        picture(root / "JPEGImages" / f"{name}.png")
    box = "".join(
        f"<{c}>{n}</{c}>" for c, n in zip(("xmin", "ymin", "xmax", "ymax"), "2299", strict=True)
    )
    xml = f"<annotation><object><name>a</name><bndbox>{box}</bndbox></object></annotation>"
    for file in (*(root / "Annotations" / f"{name}.xml" for name in "0123"), root.parent / "o.xml"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(xml)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text(f"0\n1\n2\n3\n{outside}../o\n")
    return VocFiles(root=str(root), batch_size=2)


def yolo(root: Path, outside: str) -> DataModule:
    picture(root.parent / "outside.png")
    for i in range(4):
        picture(root / "images" / f"{i}.png")
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{i}.txt").write_text("0 .5 .5 .5 .5\n")
    (root / "data.yaml").write_text("names: [a]\ntrain: train.txt\n")
    listed = [f"images/{i}.png" for i in range(4)]
    (root / "train.txt").write_text("\n".join([*listed, f"{outside}outside.png"]))
    return YoloFiles(root=str(root), batch_size=2)


def manifest(root: Path, outside: str) -> DataModule:
    root.mkdir()
    lines = []
    for i in range(4):
        noise = np.random.default_rng(i).normal(size=8000) / 10
        soundfile.write(root / f"{i}.wav", noise, 16000)
        soundfile.write(root.parent / "outside.wav", noise, 16000)
        lines.append(json.dumps({"audio_filepath": f"{i}.wav", "text": "go on"}))
    lines.append(json.dumps({"audio_filepath": f"{outside}outside.wav", "text": "go on"}))
    (root / "train.json").write_text("\n".join(lines))
    return Manifest(root=str(root), train="train.json", batch_size=2)


def sizes(data: DataModule) -> int:
    found: list[Any] = [data.dataset(split) for split in ("train", "val", "test")]
    return sum(len(split) for split in found if split is not None)


@pytest.mark.parametrize("write", [image_list, coco, voc, yolo, manifest])
def test_a_relative_path_may_not_leave_the_folder(
    tmp_path: Path, write: Callable[[Path, str], Any]
) -> None:
    data = write(tmp_path / "root", "../")
    with pytest.raises(BadSample, match=r"\(--data\.bad_samples skip leaves such samples out\)"):
        data.ready()
    data.bad_samples = "skip"
    inside = 8 if write is image_list else 4
    assert sizes(data.ready()) == inside
    assert len(data.left_out) == 1
    assert any("1 pictures are left" in n or "1 recordings are left" in n for n in data.notes)


@pytest.mark.parametrize("write", [image_list, coco, yolo, manifest])
def test_an_absolute_path_is_taken_and_said(
    tmp_path: Path, write: Callable[[Path, str], Any]
) -> None:
    data = write(tmp_path / "root", f"{tmp_path}/").ready()
    assert sizes(data) == (9 if write is image_list else 5)
    assert f"1 files are outside of root, as absolute paths say: {tmp_path}/outside" in str(
        data.notes
    )


def test_yolos_description_may_not_leave_the_folder(tmp_path: Path) -> None:
    data = yolo(tmp_path / "root", "../")
    picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "root" / "data.yaml").write_text("names: [a]\ntrain: ../elsewhere\n")
    with pytest.raises(ValueError, match=r"`train` is \.\./elsewhere, but .* not exist below"):
        data.ready()


def test_a_saved_data_set_may_not_name_files_elsewhere(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_dict({"text": ["a", "b"] * 8, "label": [0, 1] * 8})
    saved.save_to_disk(str(tmp_path / "root"))
    state = tmp_path / "root" / "state.json"
    content = json.loads(state.read_text())
    (arrow,) = (tmp_path / "root").glob("*.arrow")
    arrow.rename(tmp_path / "outside.arrow")
    content["_data_files"] = [{"filename": "../outside.arrow"}]
    state.write_text(json.dumps(content))
    data = TextFiles(root=str(tmp_path / "root"), batch_size=2, tokens=Characters())
    with pytest.raises(ValueError, match=r"names '\.\./outside\.arrow', and its files lie within"):
        data.ready()


def test_rows_without_end_in_a_small_parquet_file_are_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3_000_000, np.int32)), ["good"])
    parquet.write_table(pa.table({"text": text, "label": text}), tmp_path / "train.parquet")
    data = TextFiles(root=str(tmp_path), batch_size=2, tokens=Characters())
    with pytest.raises(ValueError, match=r"it states 3,000,000 rows in [\d,]+ bytes"):
        data.ready()


def class_folders(root: Path) -> None:
    for name in (f"{label}/{i}.png" for label in "ab" for i in range(4)):
        picture(root / name)


def test_links_in_circles_end_and_what_is_no_file_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for name in ("one", "two", "three"):
        (tmp_path / "a" / name).symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nothing.png")
    data = ImageFolder(root=str(tmp_path), batch_size=2, size=8, bad_samples="skip")
    assert sizes(data.ready()) == 8
    assert [Path(sample.source).name for sample in data.left_out] == ["pipe.png", "gone.png"]
    assert "not a regular file, but a pipe" in data.notes[0]
    assert "no such file or folder" in data.notes[0]


LINES = {
    "a huge value": b"x" * 200_000 + b".png,a,train",
    "a NUL": b"a/\0.png,a,train",
    "a name too long": b"x" * 300 + b".png,a,train",
    "a name of bytes": b"\xff.png,a,train",
    "a label of bytes": b"a/0.png,\xff,train",
    "a missing file": b"none.png,a,train",
}


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_of_a_list_of_pictures_costs_itself_alone(tmp_path: Path, name: str) -> None:
    data: Any = image_list(tmp_path / "root", "")
    path = tmp_path / "root" / "list.csv"
    rows = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([rows[0], LINES[name], *rows[2:-1]]) + b"\n")
    with pytest.raises(BadSample, match=r"list\.csv:2: "):
        data.ready()
    data.bad_samples = "skip"
    assert sizes(data.ready()) == 7
    assert [sample.source for sample in data.left_out] == [f"{path}:2"]
    print(*data.notes)  # bytes that are no UTF-8 among them
    json_path = tmp_path / "root" / "list.jsonl"
    good = [json.dumps({"file": f"{c}/{i}.png", "label": c}) for c in "ab" for i in range(4)]
    json_path.write_text("\n".join(["[" * 100_000, *good]))
    other = ImageFolder(
        root=str(tmp_path / "root"), batch_size=2, labels=json_path.name, bad_samples="skip"
    )
    assert sizes(other.ready()) == 8
    assert other.left_out[0].source == f"{json_path}:1"


class Evil:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["PLANTED"],)


@pytest.fixture(scope="module")
def bert() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    return transformers.BertForSequenceClassification(config)


def test_nothing_in_a_folder_of_hugging_face_runs(
    tmp_path: Path, bert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resdomains.core import bert as encoder
    from resdomains.interop import HuggingFace
    from resdomains_tasks.text_classification import Pretrained

    monkeypatch.setenv("PLANTED", str(tmp_path / "ran"))
    network = encoder(in_channels=30, layers=1, width=8, heads=1, length=16)
    folder = tmp_path / "model"
    bert.save_pretrained(str(folder))
    config = json.loads((folder / "config.json").read_text())
    # transformers would download and import such an attention.
    config["_attn_implementation"] = "kernels-community/evil"
    (folder / "config.json").write_text(json.dumps(config))
    assert HuggingFace(str(folder)).load(network).filled

    weights = folder / "model.safetensors"
    weights.rename(tmp_path / "outside.safetensors")
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(bert.state_dict(), "../outside.safetensors"),
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="the files of a model lie beside its list"):
        HuggingFace(str(folder)).load(network)
    (folder / "model.safetensors.index.json").unlink()

    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds more than tensors, and loading it could run its"):
        HuggingFace(str(folder)).load(network)

    (folder / "theirs.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n")
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    tokens = {"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": ["theirs.T", "theirs.T"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    for build in (lambda: HuggingFace(str(folder)).load(network), lambda: Pretrained(str(folder))):
        with pytest.raises(ValueError, match="contains custom code which must be executed"):
            build()
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "ran").exists(), "the planted code does nothing"


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["0.1", "1e30"])
def test_no_secret_is_kept_with_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: str
) -> None:
    secrets = {
        "WANDB_API_KEY": "planted0" * 5,
        "HF_TOKEN": "hf_planted1",
        "AWS_SECRET_ACCESS_KEY": "planted2",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n login user\n password planted3\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    run: Finished = launch(
        [
            *ALONE,
            "fit",
            *DIGITS,
            "--model.optimization.lr",
            rate,
            "--trainer.limit_val_batches",
            "1",
        ],
        tmp_path,
    )
    assert (run.returncode == 0) == (rate == "0.1"), run.stderr
    kept = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in kept)
    assert not [path for path in kept if b"planted" in path.read_bytes()]
    assert "planted" not in run.stdout + run.stderr
