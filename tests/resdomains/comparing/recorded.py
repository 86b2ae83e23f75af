"""Runs that are written as `resdomains fit` writes them, without training."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from resdomains.comparing import RecordedRun

FACTS: dict[str, Any] = {
    "task": "image_classification",
    "config": "digits",
    "data": "Digits",
    "network": "ResNet2d",
    "merge": "Add",
    "coupling": "Plain",
    "memory": "Store",
    "depth": 10,
    "parameters": 1000,
    "seed": 0,
    "setup": "abcdef01",
}


def rows(count: int = 5, best: float = 0.9, begin: int = 1) -> list[dict[str, float]]:
    """A training loss each step, and a validation every second step."""
    found = []
    for step in range(begin, begin + count):
        share = step / (begin + count - 1)
        row = {
            "step": step,
            "train/loss": 2.0 / step,
            "perf/samples_per_second": 100.0 + step,
            "perf/peak_memory_mib": 500.0,
            "residual/grad_ratio": 1.0 / step,
            "progress/samples": 64 * step,
            "progress/flops": 1e9 * step,
            "progress/seconds": 0.5 * step,
        }
        if step % 2 == 1:
            row |= {"val/score": best * share, "val/skill": best * share - 0.1}
        found.append(row)
    return found


def result(values: Sequence[Mapping[str, float]], status: str = "finished") -> dict[str, Any]:
    """What `summary.json` says of such rows."""
    scores = [row["val/score"] for row in values if "val/score" in row]
    last = values[-1]
    return {
        "status": status,
        "best": {"val/score": max(scores), "val/skill": max(scores) - 0.1} if scores else {},
        "samples": last.get("progress/samples"),
        "flops": last.get("progress/flops"),
        "seconds": last.get("progress/seconds"),
        "peak_memory_mib": 500.0,
    }


PROFILE = [
    {
        **{
            "block": 1,
            "name": "a",
            "relative_depth": 0.5,
            "gradient_norm": 2.0,
            "contribution": 0.5,
        },
        **{"score_without": 0.2, "lesion": "changes the shape"},
    },
    {
        **{
            "block": 2,
            "name": "b",
            "relative_depth": 1.0,
            "gradient_norm": 1.0,
            "contribution": 0.25,
        },
        **{"score_without": 0.7, "lesion": "keeps the shape"},
    },
]
REMOVAL = [
    {"removed": k, "draw": draw, "score": score, "score_whole": 0.9, "blocks": "1"}
    for k, draw, score in ((1, 1, 0.8), (1, 2, 0.6), (2, 1, 0.3))
]


def record(run_id: str = "run00000", **changes: Any) -> RecordedRun:
    """A run in memory; facts are changed by name."""
    values = changes.pop("rows", None) or rows()
    status = changes.pop("status", "finished")
    continues = changes.pop("continues", None)
    return RecordedRun(
        source=f"/somewhere/{run_id}",
        run_id=run_id,
        continues=continues,
        facts={**FACTS, **changes},
        result={} if status == "running" else result(values, status),
        history=pd.DataFrame(values),
        profile=pd.DataFrame(PROFILE),
        removal=pd.DataFrame(REMOVAL),
    )


def write_folder(
    folder: Path, run_id: str = "run00000", status: str = "finished", **changes: Any
) -> Path:
    """A run's folder; facts are changed by name."""
    values = changes.pop("rows", None) or rows()
    (folder / "probes").mkdir(parents=True)
    summary = {**FACTS, **changes, "run_id": run_id, **result(values, status)}
    if status == "running":
        summary = {**FACTS, **changes, "run_id": run_id, "status": status}
    (folder / "summary.json").write_text(json.dumps(summary))
    _write(folder / "metrics.csv", values)
    _write(folder / "probes" / "profile.csv", PROFILE)
    _write(folder / "probes" / "removal.csv", REMOVAL)
    return folder


def write_offline(folder: Path, run_id: str = "run00000", **changes: Any) -> Path:
    """The same run as W&B's own client keeps it offline."""
    _send(folder, run_id, "offline", changes)
    [path] = folder.rglob(f"run-{run_id}.wandb")
    return path


def write_online(folder: Path, run_id: str = "run00000", **changes: Any) -> None:
    """The same run as W&B's own client sends it to the server that it is logged in to."""
    _send(folder, run_id, "online", changes)


def _send(
    folder: Path, run_id: str, mode: Literal["offline", "online"], changes: dict[str, Any]
) -> None:
    import wandb

    values = changes.pop("rows", None) or rows()
    places = {name: changes.pop(name, None) for name in ("group", "job_type")}
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True
    )
    run = wandb.init(
        mode=mode,
        dir=str(folder),
        id=run_id,
        project="resdomains",
        config={**FACTS, **changes, "run_id": run_id},
        settings=settings,
        **places,
    )
    for row in values:
        row = dict(row)
        run.log({"trainer/global_step": row.pop("step"), **row})
    for key, found in (("residual/profile", PROFILE), ("residual/removal", REMOVAL)):
        run.log({key: wandb.Table(list(found[0]), [list(row.values()) for row in found])})
    run.summary["result"] = result(values)
    run.finish()
    # Its service writes on for a moment after that: on a busy machine the last records came later.
    wandb.teardown()


def _write(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in values for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(values)


def same(one: Any, two: Any) -> bool:
    """Whether two cells are equal, missing ones too."""
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one) and math.isnan(two):
        return True
    return bool(one == two)


def walk(value: Any) -> list[dict[str, Any]]:
    """All mappings within a plain value."""
    if isinstance(value, dict):
        return [value, *(found for child in value.values() for found in walk(child))]
    if isinstance(value, list):
        return [found for child in value for found in walk(child)]
    return []
