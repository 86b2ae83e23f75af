"""The launcher on texts: from a table to predictions, and to other tables."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, pipeline

from resdomains_tasks.text_classification import WordPiece

from .conftest import Run
from .test_fitting import run_folder

CONFIG = """
seed: 0
model:
  class_path: resdomains_tasks.text_classification.TextClassification
  init_args:
    backbone:
      class_path: resdomains.core.ResidualEncoder
      init_args: {layers: 1, width: 16, in_channels: 120, stem: {class_path: TokenStem, init_args: {length: 12}}}
    optimization: {lr: 0.01}
data:
  class_path: resdomains_tasks.text_classification.TextFiles
  init_args:
    root: films.csv
    batch_size: 16
    max_length: 12
    tokens: {class_path: resdomains_tasks.text_classification.WordPiece, init_args: {vocabulary: 120}}
trainer: {max_epochs: 10, precision: 32-true, accelerator: cpu, enable_progress_bar: false}
run: {wandb: {mode: disabled}}
"""


def table(name: str, nouns: str, count: int) -> None:
    rows = [
        f"the {nouns.split()[n % 3]} number {n} is {('fine', 'dull')[n % 2]},{('pos', 'neg')[n % 2]}"
        for n in range(count)
    ]
    Path(name).write_text("text,label\n" + "\n".join(rows) + "\n")


@pytest.fixture
def best(cli: Run) -> str:
    """The best checkpoint of a run on opinions of films."""
    Path("texts.yaml").write_text(CONFIG)
    table("films.csv", "film plot scene", 120)
    status, _, errors = cli("fit", "--config", "texts.yaml")
    assert status == 0, errors
    return str(run_folder() / "checkpoints" / "best.ckpt")


def test_texts_tables_and_standard_input_are_predicted_from_a_checkpoint_alone(
    cli: Run, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def records(*inputs: str) -> list[dict[str, Any]]:
        exact = ("--precision", "32", "--accelerator", "cpu", "--format", "json")
        status, out, errors = cli("predict", "--ckpt_path", best, *inputs, *exact)
        assert status == 0, errors
        return [json.loads(line) for line in out.splitlines()]

    assert (run_folder() / "tables" / "test_classes.csv").is_file()
    Path("films.csv").unlink()
    Path("new.csv").write_text('id,text\n7,"the plot\nis dull"\n8,the film is fine\n')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the film is dull\n")))
    found = records("the film is fine", "new.csv", "-")
    assert [r["source"] for r in found] == ["argument 1", "new.csv:2", "new.csv:4", "stdin:1"]
    assert [r["text"] for r in found[1:3]] == ["the plot\nis dull", "the film is fine"]
    assert [r["label"] for r in found] == ["pos", "neg", "pos", "neg"]
    assert found[0]["top"] == found[2]["top"]
    status, out, _ = cli("predict", "--ckpt_path", best, "new.csv", "and so on " * 50)
    assert status == 0
    assert "the plot is dull" in out
    assert max(map(len, out.splitlines())) < 200
    status, _, errors = cli("predict", "--ckpt_path", best, "a text", "gone.csv")
    assert (status, errors) == (
        2,
        "error: gone.csv: no such file (--bad_samples skip leaves such samples out)\n",
    )


STEP = ("--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--test_after_fit", "false")


@pytest.fixture
def small_bert(folder: Path) -> str:
    """The folder of a BERT of one layer with random weights, as transformers saves one."""
    texts = ["the film is fine", "the plot is dull"]
    tokenizer = WordPiece(vocabulary=90).train(texts)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained("small_bert")
    config = BertConfig(
        vocab_size=90,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained("small_bert")
    return "small_bert"


def test_the_config_for_ones_own_table_takes_a_step(cli: Run) -> None:
    table("films.csv", "film plot scene", 120)
    status, out, errors = cli(
        "fit", "--config", "text_classification/csv", "--data.root", "films.csv", *STEP
    )
    assert status == 0, errors
    assert "films.csv" in out


def test_a_pretrained_bert_is_fine_tuned_predicts_and_is_exported(
    cli: Run, small_bert: str
) -> None:
    table("films.csv", "film plot scene", 120)
    sizes = {"layers": 1, "width": 16, "heads": 2, "length": 64, "in_channels": 90}
    said = {f"model.backbone.{name}": str(size) for name, size in sizes.items()}
    said |= {"model.weights.source": small_bert, "data.tokens.source": small_bert}
    said |= {"data.tokens.vocabulary": "90", "data.max_length": "64", "data.root": "films.csv"}
    flags = [part for key, value in said.items() for part in (f"--{key}", value)]
    config = ("--config", "text_classification/bert_finetune", "--model.backbone", "bert")
    status, _, errors = cli("fit", *config, *flags, *STEP)
    assert status == 0, errors
    shutil.rmtree(small_bert)
    last = str(run_folder() / "checkpoints" / "last.ckpt")
    exact = ("--precision", "32", "--accelerator", "cpu", "--format", "json")
    status, out, errors = cli("predict", "--ckpt_path", last, "the film is fine", *exact)
    assert status == 0, errors
    status, _, errors = cli("export", "--ckpt_path", last, "--output", "exported")
    assert status == 0, errors
    (theirs,) = pipeline("text-classification", "exported", device="cpu")("the film is fine")
    ours = json.loads(out)
    assert theirs["label"] == ours["label"]
    assert theirs["score"] == pytest.approx(ours["probability"], abs=1e-5)


def test_other_texts_are_evaluated_with_the_tokenizer_of_the_checkpoint(
    cli: Run, best: str
) -> None:
    status, out, errors = cli("validate", "--ckpt_path", best, "--format", "json")
    assert status == 0, errors
    assert json.loads(out)["val/score"] == 1.0
    table("books.csv", "novel essay chapter", 90)
    command = ("--ckpt_path", best, "--data.root", "books.csv")
    status, out, errors = cli("validate", *command, "--format", "json")
    assert status == 0, errors
    assert json.loads(out)["val/score"] == 1.0
    # A run that goes on learns no other language on the way.
    status, _, errors = cli("fit", *command, "--trainer.max_epochs", "9")
    assert status == 2
    assert "tokenizer is another than the checkpoint was trained with" in errors


def test_numbers_in_place_of_classes_are_not_what_the_checkpoint_knows(cli: Run, best: str) -> None:
    Path("stars.csv").write_text("text,label\n" + "".join(f"word {n},{n}.5\n" for n in range(60)))
    status, _, errors = cli(
        "validate", "--ckpt_path", best, "--data.root", "stars.csv", "--data.kind", "regression"
    )
    assert status == 2
    assert "the targets are numbers, the checkpoint was trained with classes" in errors


def test_a_run_begins_with_the_weights_of_an_earlier_one(cli: Run, best: str) -> None:
    rows = [
        f"the plot number {n} is {('fine', 'dull', 'odd')[n % 3]},{('pos', 'neg', 'new')[n % 3]}"
        for n in range(90)
    ]
    Path("three.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    short = ("--data.root", "three.csv", "--trainer.max_epochs", "1", "--run.root", "fine")
    weights = ("--model.weights", "Checkpoint", "--model.weights.source", best)
    status, _, errors = cli("fit", "--config", "texts.yaml", *short, *weights)
    assert status == 2
    assert "was trained with another tokenizer than the data's" in errors
    tokens = ("--data.tokens", "Pretrained", "--data.tokens.source", best)
    status, out, errors = cli("fit", "--config", "texts.yaml", *short, *weights, *tokens)
    assert status == 0, errors
    (most,) = re.findall(r"note +a batch holds at most ([\d,]+) tokens, padding included", out)
    # Some 70 texts of 8 to 12 tokens, 16 of them in a batch on average.
    assert 8 * 16 <= int(most) <= 12 * 20
    assert (
        f"weights: the head is not all of {best}: 2 of 3 outputs are the source's, the rest begin anew: new"
    ) in out
    fine = str(run_folder(Path("fine")) / "checkpoints" / "last.ckpt")
    # What the run began with may be gone: its own weights take their place.
    for path in Path("runs").rglob("best.ckpt"):
        path.rename("kept.ckpt")
    status, out, errors = cli(
        "test", "--ckpt_path", fine, "--data.tokens.source", "kept.ckpt", "--format", "json"
    )
    assert status == 0, errors
    kept = json.loads((run_folder(Path("fine")) / "summary.json").read_text())
    assert json.loads(out)["test/loss"] == pytest.approx(kept["test/loss"], abs=0.05)
