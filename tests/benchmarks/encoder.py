"""A training step on batches of SST-2 sentences against transformers' BERT of the same size, bf16, on the CPU.

Both read the same random batches: transformers' pads each to its longest and masks, as its collator
does by default; ours gets the same tensor and its lengths. Same dropout, optimizer, head.

python -m tests.benchmarks.encoder --root ../shared/data/sst2 [--threads 2]
"""

import argparse
import csv
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from resdomains.core import FirstTokenHead, TanhPooler, bert_small
from tests.benchmarks.measure import in_turn, ratio, report

BATCH, VOCABULARY = 32, 8000


class Batch:
    """Sentences padded to the longest."""

    def __init__(self, sentences: list[list[int]], labels: list[int]) -> None:
        self.lengths = torch.tensor([len(s) for s in sentences])
        self.ids = nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sentences], batch_first=True)
        self.mask = (torch.arange(self.ids.shape[1]) < self.lengths[:, None]).long()
        self.labels = torch.tensor(labels)


def batches(root: Path, count: int) -> list[Batch]:
    """Draw random batches of training sentences, cut by a WordPiece vocabulary learned on them."""
    with (root / "train.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(
        [row[0] for row in rows], vocab_size=VOCABULARY, show_progress=False
    )
    drawn = torch.randperm(len(rows))[: count * BATCH].tolist()
    encoded = [tokenizer.encode(rows[i][0]).ids for i in drawn]
    labels = [int(rows[i][1]) for i in drawn]
    return [
        Batch(encoded[start : start + BATCH], labels[start : start + BATCH])
        for start in range(0, count * BATCH, BATCH)
    ]


class Ours(nn.Module):
    """BERT-small and its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = bert_small(in_channels=VOCABULARY)
        self.head = FirstTokenHead(512, 2, dropout=0.1, pooler=TanhPooler)

    def forward(self, batch: Batch) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.encoder(batch.ids, batch.lengths))
        return logits


class Theirs(nn.Module):
    """The same from transformers, with its default attention (SDPA) and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.model = BertForSequenceClassification(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=512,
                num_hidden_layers=4,
                num_attention_heads=8,
                intermediate_size=2048,
            )
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits."""
        logits: Tensor = self.model(input_ids=batch.ids, attention_mask=batch.mask).logits
        return logits


def training(model: nn.Module, data: list[Batch]) -> Callable[[], None]:
    """Return a pass over the batches, one step of AdamW each."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def run() -> None:
        for batch in data:
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(batch), batch.labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return run


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of SST-2's train.tsv")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    data = batches(arguments.root, arguments.batches)
    tokens = sum(int(batch.lengths.sum()) for batch in data)
    cells = sum(batch.ids.numel() for batch in data)
    things = {"resdomains": training(Ours(), data), "transformers": training(Theirs(), data)}
    seconds = in_turn(things, rounds=arguments.rounds)
    report(
        "encoder",
        [
            {
                "what": name,
                "milliseconds a step": 1000 * statistics.median(values) / len(data),
                "sentences/s": BATCH * len(data) / statistics.median(values),
                "resdomains is faster by": ratio(values, seconds["resdomains"]),
                "tokens of cells": tokens / cells,
            }
            for name, values in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
