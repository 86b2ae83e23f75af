"""Training and inference on texts as the launcher does it against transformers' Trainer: tokens a second, on the CPU.

Both train a BERT of 4 layers, 512 wide, from random weights on the same ids, with AdamW (fused), clipping at 1 and the
same dropout. Trainer is taken with its defaults (float32, random batches padded to their longest), and once more
with what its users can set by hand: bfloat16 and `train_sampling_strategy="group_by_length"`. Ours is `fit` with its
defaults. Each has a process of its own, and they run in turn. Padding is not counted as tokens. Runs are long enough to
see whole sorted stretches of `group_by_length`, which are 50 batches from the longest to the shortest, and a heap that
has held batches of all lengths.

python -m tests.benchmarks.text_throughput --root ../shared/data/sst2 [--threads 2] [--rounds 5] [--batches 8 32]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import transformers
from pytorch_lightning import Callback
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from resdomains.cli.arguments import Arguments
from resdomains.cli.fitting import build_trainer
from resdomains.cli.quiet import quiet
from resdomains.cli.session import Session
from resdomains.schema import Split
from resdomains.training import Run, RunOptions, WandbOptions
from resdomains.training.callbacks import StepLog
from resdomains_tasks.text_classification.data import EncodedTexts, TextData
from tests.benchmarks.measure import Apart, figures_in_turn, ratio, report

TEXT = "resdomains_tasks.text_classification"
VOCABULARY = 8000
SPLITS: tuple[Split, ...] = ("train", "val")


def config(root: Path | None) -> dict[str, Any]:
    """Return the run to measure; without a root on docstrings, else on the tables in it."""
    name = "Docstrings" if root is None else "TextFiles"
    where = {} if root is None else {"root": str(root)}
    return {
        "model": {
            "class_path": f"{TEXT}.TextClassification",
            "init_args": {
                "backbone": {
                    "class_path": "resdomains.core.bert_small",
                    "init_args": {"in_channels": VOCABULARY},
                },
                "head": {
                    "class_path": "resdomains.core.FirstTokenHead",
                    "init_args": {
                        "dropout": 0.1,
                        "pooler": {"class_path": "resdomains.core.TanhPooler"},
                    },
                },
                "optimization": {
                    "lr": 5e-5,
                    "optimizer": {
                        "class_path": "torch.optim.AdamW",
                        "init_args": {"weight_decay": 0.0, "fused": True},
                    },
                    "schedule": {"class_path": "resdomains.training.WarmupLinear"},
                },
            },
        },
        "data": {
            "class_path": f"{TEXT}.{name}",
            "init_args": {
                **where,
                "batch_size": 8,
                "tokens": {
                    "class_path": f"{TEXT}.WordPiece",
                    "init_args": {"vocabulary": VOCABULARY},
                },
            },
        },
        "trainer": {"gradient_clip_val": 1.0},
    }


class Clock(Callback):
    """The seconds of training or evaluation, and the tokens seen."""

    def __init__(self) -> None:
        self.tokens, self.seconds, self._began = 0, 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self.tokens, self._began = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        self.tokens += int(batch["lengths"].sum())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        self.seconds = time.perf_counter() - self._began

    on_validation_start, on_validation_end = on_train_start, on_train_end

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count."""
        self.tokens += int(batch["lengths"].sum())

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


class Ours:
    """A run of the launcher."""

    def __init__(self, root: Path | None, size: int, steps: int, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.steps, self.size = str(steps), str(size)
        data = self._session().data()
        assert isinstance(data, TextData)
        self.data = data

    def _session(self, **trainer: str) -> Session:
        said = {"data.batch_size": self.size, **{f"trainer.{k}": v for k, v in trainer.items()}}
        overrides = [(tuple(key.split(".")), value) for key, value in said.items()]
        return Session(Arguments(overrides=overrides), config(self.root), "throughput")

    def train(self) -> float:
        """Train some steps; returns tokens a second."""
        session = self._session(max_steps=self.steps, limit_val_batches="0")
        task = session.task(self.data.spec)
        run = Run.create(
            RunOptions(self.folder, wandb=WandbOptions(mode="disabled")), "text", "throughput"
        )
        clock = Clock()
        trainer, _ = build_trainer(session, [StepLog(), clock], run.folder, bar=False)
        trainer.loggers = run.loggers({}, list(task.build_metrics()))
        trainer.fit(task, datamodule=self.data)
        return clock.rate

    def evaluate(self) -> float:
        """Validate; returns tokens a second."""
        session, clock = self._session(), Clock()
        trainer, _ = build_trainer(session, [clock], self.folder, bar=False)
        trainer.validate(session.task(self.data.spec), datamodule=self.data, verbose=False)
        return clock.rate


class Rows(Dataset[dict[str, Any]]):
    """Encoded texts as transformers takes them."""

    def __init__(self, texts: EncodedTexts) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids: list[int] = self.texts[index]["ids"].tolist()
        return {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": int(self.texts.targets[index]),
        }


class Theirs:
    """transformers' Trainer."""

    def __init__(self, data: TextData, steps: int, folder: Path, **options: Any) -> None:
        self.data, self.steps, self.folder, self.options = data, steps, folder, options
        # transformers does not annotate its constructors.
        tokenizer = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=Tokenizer.from_str(data.spec["tokenizer"]),
            pad_token="[PAD]",
        )
        self._pad = transformers.DataCollatorWithPadding(tokenizer)
        self._tokens = 0

    def _collate(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = dict(self._pad(items))
        self._tokens += int(batch["attention_mask"].sum())
        return batch

    def _texts(self, split: Split) -> EncodedTexts:
        texts = self.data.ready_dataset(split)
        assert isinstance(texts, EncodedTexts)
        return texts

    def _trainer(self) -> tuple[Trainer, "Watch"]:
        spec = self.data.text_spec
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=spec.vocabulary,
                hidden_size=512,
                num_hidden_layers=4,
                num_attention_heads=8,
                intermediate_size=2048,
                num_labels=len(spec.classes),  # type: ignore[call-arg]  # its base class takes it
            )
        )
        arguments = TrainingArguments(
            output_dir=str(self.folder / "trainer"),
            per_device_train_batch_size=self.data.batch_size,
            per_device_eval_batch_size=self.data.batch_size,
            max_steps=self.steps,
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            **self.options,
        )
        watch = Watch()
        train, val = (Rows(self._texts(s)) for s in SPLITS)
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=train,
            eval_dataset=val,
            data_collator=self._collate,
            callbacks=[watch],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer, watch

    def train(self) -> float:
        """Train some steps; returns tokens a second."""
        trainer, watch = self._trainer()
        self._tokens = 0
        trainer.train()
        return self._tokens / watch.seconds

    def evaluate(self) -> float:
        """Predict the validation split; returns tokens a second."""
        trainer, _ = self._trainer()
        self._tokens, began = 0, time.perf_counter()
        trainer.predict(Rows(self._texts("val")))
        return self._tokens / (time.perf_counter() - began)


class Watch(TrainerCallback):
    """The seconds of Trainer's loop."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Begin."""
        self._began = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """End."""
        self.seconds = time.perf_counter() - self._began


BY_HAND = {"bf16": True, "train_sampling_strategy": "group_by_length"}
PEERS: dict[str, dict[str, Any] | None] = {
    "resdomains": None,
    "Trainer": {},
    "Trainer, bf16, group_by_length": BY_HAND,
}


def build(
    of: str, what: str, root: Path | None, size: int, steps: int, folder: Path
) -> Callable[[], float]:
    """Return what trains or evaluates, and returns tokens a second."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    quiet()
    ours, options = Ours(root, size, steps, folder), PEERS[of]
    thing = ours if options is None else Theirs(ours.data, steps, folder, **options)
    rate: Callable[[], float] = getattr(thing, what)
    return rate


def compare(
    root: Path | None, size: int, steps: int, rounds: int, folder: Path, threads: int
) -> list[dict[str, Any]]:
    """Measure one data set at one batch size."""
    rows = []
    for what in ("train", "evaluate"):
        builds = {name: partial(build, name, what, root, size, steps, folder) for name in PEERS}
        things = {name: Apart(build, threads) for name, build in builds.items()}
        rates = figures_in_turn(things, rounds)
        rows += [
            {
                "data": "docstrings" if root is None else root.name,
                "batch": size,
                "what": {"train": "training", "evaluate": "inference"}[what],
                "of": name,
                "tokens/s": statistics.median(values),
                "resdomains is faster by": ratio(rates["resdomains"], values),
            }
            for name, values in rates.items()
        ]
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of SST-2's tables")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200, help="steps of 8 texts; of more, half")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    parser.add_argument(
        "--only", choices=("sst2", "docstrings"), help="one data set; both if not given"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)  # what the report says
    sets = {"sst2": arguments.root, "docstrings": None}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, size in product(sets, arguments.batches):
            if arguments.only in (None, name):
                steps = arguments.steps if size <= 8 else arguments.steps // 2
                rows += compare(
                    sets[name], size, steps, arguments.rounds, Path(folder), arguments.threads
                )
                report("text_throughput", rows)


if __name__ == "__main__":
    main()
