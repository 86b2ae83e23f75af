"""Data that can be waited for: steps take a moment, and a validation waits as long as a file `hold` is there."""

import os
import time
from pathlib import Path
from typing import Any

from resdomains.schema import Split
from tests.resdomains.cli.tiny_domain import Points, Tiny


class Task(Tiny):
    """The tiny task, under a name that these data are given to."""

    def examples(self, split: Split, results: Any) -> list[str]:
        return [f"score {float(results['score'])}"]


class Held(Points):
    """Leaves its processes' numbers in the working folder, and the word that it validates."""

    def transform(self, batch: Any, split: Split) -> Any:
        rank = 0 if self.trainer is None else self.trainer.global_rank
        Path(f"pid{rank}").write_text(str(os.getpid()))
        time.sleep(0.02)
        if split == "val":
            Path("validating").touch()
            while Path("hold").exists():
                time.sleep(0.02)
        return batch
