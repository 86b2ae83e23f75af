"""Sine tones in noise, of different lengths."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from resdomains.training import DataModule
from resdomains.training.randomness import uniforms

RATE = 4000  # Hz
PITCHES = {"low": 200.0, "middle": 500.0, "high": 1100.0}  # Hz


class Tones(DataModule):
    """(B, 1, L) waves, padded with zeros behind their lengths; in training each is made louder or softer.

    Args:
        batch_size: Tones of a batch.
        num_workers: Loader processes; 0 reads in the training process.
        seed: Seed of the order and of the augmentation; the launcher gives the run's.
    """

    def __init__(self, *, batch_size: int = 8, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)

    def prepare(self) -> None:
        """Make the tones; data on disk would be found and checked here, with an error that names the file."""
        random = torch.Generator().manual_seed(0)
        self.items: list[dict[str, Any]] = []
        for index in range(145):
            phase, bend, length = torch.rand(3, generator=random).tolist()
            time = torch.arange(200 + int(100 * length)) / RATE
            pitch = list(PITCHES.values())[index % len(PITCHES)] * (0.9 + 0.2 * bend)
            wave = torch.sin(2 * math.pi * (pitch * time + phase))
            wave += 0.1 * torch.randn(len(time), generator=random)
            self.items.append({"wave": wave, "target": index % len(PITCHES), "index": index})

    @property
    def spec(self) -> dict[str, Any]:
        # Checkpoints carry it, so that they predict without these data.
        return {"rate": RATE, "classes": list(PITCHES)}

    def dataset(self, split: str) -> Any:
        part = {"train": slice(0, 96), "val": slice(96, 121), "test": slice(121, 145)}[split]
        return self.items[part]

    def collate(self, items: Any) -> dict[str, Tensor]:
        numbers = {name: torch.tensor([i[name] for i in items]) for name in ("target", "index")}
        return pad([i["wave"] for i in items]) | numbers

    def transform(self, batch: Any, split: str) -> Any:
        if split != "train":
            return batch
        # Drawn by seed, epoch and sample: equal for any number of processes, and after a resume.
        gain = 0.5 + uniforms(self.seed, self.epoch, batch["index"], 1).to(batch["wave"].device)
        return {**batch, "wave": batch["wave"] * gain[:, :, None]}


def pad(waves: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return `wave` (B, 1, L), zeros behind each wave's end, and `lengths` (B,)."""
    padded = torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True)
    return {"wave": padded[:, None], "lengths": torch.tensor([len(w) for w in waves])}
