"""Scans of handwritten digits, drawn on textured ground; each pixel's class is known."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

from resdomains.training import DataModule
from resdomains.training.randomness import uniforms

SIZE = 24  # pixels of a side; digits have 14 to 20
CLASSES = ["ground", *map(str, range(10))]
SCANS = {"train": slice(0, 1100), "val": slice(1100, 1437), "test": slice(1437, 1797)}  # by writer


class Digits(DataModule):
    """(B, 1, 24, 24) grey pictures in [0, 1], (B, 24, 24) classes; training makes pictures brighter or darker."""

    def __init__(
        self, *, train: int = 800, batch_size: int = 16, num_workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.counts = {"train": train, "val": 101, "test": 100}

    def prepare(self) -> None:
        scans, digits = load_digits(return_X_y=True)
        inks = torch.from_numpy(scans).float().view(-1, 1, 8, 8) / 16
        self.items: dict[str, list[dict[str, Any]]] = {}
        for number, (split, part) in enumerate(SCANS.items()):
            random = torch.Generator().manual_seed(number)
            drawn = [self.draw(inks[part], digits[part], random) for _ in range(self.counts[split])]
            self.items[split] = [{**item, "index": index} for index, item in enumerate(drawn)]

    def draw(self, inks: Tensor, digits: Any, random: torch.Generator) -> dict[str, Tensor]:
        which = int(torch.randint(len(inks), (), generator=random))
        side = int(torch.randint(14, 21, (), generator=random))
        top, left = torch.randint(SIZE - side + 1, (2,), generator=random).tolist()
        coarse = 0.5 * torch.rand(1, 1, 5, 5, generator=random)
        image = interpolate(coarse, (SIZE, SIZE), mode="bilinear")[0]
        ink = interpolate(inks[which][None], (side, side), mode="bilinear")[0]
        here = (..., slice(top, top + side), slice(left, left + side))
        image[here] = torch.maximum(image[here], ink)
        target = torch.zeros(SIZE, SIZE, dtype=torch.int64)
        target[here] = torch.where(ink[0] > 0.4, int(digits[which]) + 1, 0)
        return {"image": image, "target": target}

    @property
    def spec(self) -> dict[str, Any]:
        seen = torch.stack([item["target"] for item in self.items["train"]]).flatten()
        shares = seen.bincount(minlength=len(CLASSES)) / len(seen)
        return {"size": SIZE, "classes": CLASSES, "shares": shares.tolist()}

    def dataset(self, split: str) -> Any:
        return self.items[split]

    def transform(self, batch: Any, split: str) -> Any:
        if split != "train":
            return batch
        gain = 0.7 + 0.6 * uniforms(self.seed, self.epoch, batch["index"], 1)[:, :, None, None]
        return {**batch, "image": batch["image"] * gain.to(batch["image"].device)}
