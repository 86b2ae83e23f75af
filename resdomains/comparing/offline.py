"""Read what W&B keeps on disk of a run, without W&B's own program.

The format, as W&B's `store.go` writes it: seven bytes of header, then LevelDB's log framing in blocks of 32 KiB
(checksum, length and kind of each part of a record), each record a `wandb_internal_pb2.Record`.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from wandb.proto import wandb_internal_pb2 as protocol

from resdomains import schema
from resdomains.comparing.runs import STEP, RecordedRun, UnreadableRun

_MAGIC = b":W&B\xe1\xbe\x00"
_BLOCK = 32 * 1024
_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
GLOBAL_STEP = "trainer/global_step"
# What `resdomains probe` leaves in W&B has a run's facts, and is none.
PROBE, PROBED = "probe", "holds what `resdomains probe` measured, and no training"


def read_offline(path: Path) -> RecordedRun:
    """Read a `run-<id>.wandb` file.

    A file that ends in the middle of a record, as that of a killed run does, is read up to there.

    Raises:
        UnreadableRun: If it is no such file, is damaged before its end, or holds no run of resdomains.
    """
    facts: dict[str, Any] = {}
    result: dict[str, Any] = {}
    rows: list[dict[str, float]] = []
    tables: dict[str, str] = {}
    run_id = ""
    for data in _records(path):
        record = protocol.Record()  # type: ignore[attr-defined]  # made when imported
        try:
            record.ParseFromString(data)
        except (
            Exception
        ) as error:  # protobuf's DecodeError, of whichever implementation is installed
            raise UnreadableRun(str(path), f"a record is damaged ({error})") from error
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = _scalars(record.history.item, tables)
            if row:
                rows.append(row)
        elif kind == "run":
            if record.run.job_type == PROBE:
                raise UnreadableRun(str(path), PROBED)
            run_id = record.run.run_id
            facts |= {item.key: _plain(item.value_json) for item in record.run.config.update}
        elif kind == "summary":
            result |= {
                item.key: value
                for item in record.summary.update
                if item.key == "result" and isinstance(value := _plain(item.value_json), dict)
            }
    if not run_id or "task" not in facts:
        raise UnreadableRun(str(path), "holds no run of resdomains")
    facts.pop("_wandb", None)
    return RecordedRun(
        source=str(path),
        run_id=str(facts.get("run_id", run_id)),
        continues=facts.get("continues"),
        facts=facts,
        result=result.get("result", {}),
        history=pd.DataFrame(rows),
        profile=read_table(path.parent / "files", tables.get(schema.PROFILE)),
        removal=read_table(path.parent / "files", tables.get(schema.REMOVAL)),
    )


def _records(path: Path) -> Iterator[bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableRun(str(path), error.strerror or str(error)) from error
    if not data.startswith(_MAGIC):
        raise UnreadableRun(str(path), "is no record of a W&B run")
    place, parts = len(_MAGIC), bytearray()
    while place + _HEADER.size <= len(data):
        rest = _BLOCK - place % _BLOCK
        if rest < _HEADER.size:
            place += rest
            continue
        checksum, length, kind = _HEADER.unpack_from(data, place)
        if kind == length == 0:
            place += rest
            continue
        begin, end = place + _HEADER.size, place + _HEADER.size + length
        if end > len(data):
            return  # cut off while it was written
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or length > rest:
            raise UnreadableRun(str(path), f"damaged at byte {place:,}")
        part = data[begin:end]
        if zlib.crc32(part, zlib.crc32(bytes([kind]))) != checksum:
            raise UnreadableRun(str(path), f"damaged at byte {place:,}: a checksum is wrong")
        if kind in (_FULL, _FIRST):
            parts.clear()
        parts += part
        if kind in (_FULL, _LAST):
            yield bytes(parts)
        place = end


def _scalars(items: Any, tables: dict[str, str]) -> dict[str, float]:
    """The numbers of a history record by name, with its step; where tables lie is put into `tables`."""
    row: dict[str, float] = {}
    for item in items:
        names = item.nested_key
        if len(names) > 1:
            if names[1] == "path" and names[0] in (schema.PROFILE, schema.REMOVAL):
                tables[names[0]] = str(_plain(item.value_json))
            continue
        name = names[0] if names else item.key
        if name.startswith("_"):
            continue
        value = _plain(item.value_json)
        if isinstance(value, int | float):
            row[name] = value
    step = row.pop(GLOBAL_STEP, None)
    return {} if step is None or not row else {STEP: step, **row}


def _plain(text: str) -> Any:
    if text in ('"NaN"', "NaN"):
        return float("nan")
    try:
        return json.loads(text)
    except ValueError:
        return None


def read_table(folder: Path, name: str | None) -> pd.DataFrame:
    """Read a table as W&B's client writes it; empty where there is none, or where it lies outside of the folder.

    Raises:
        UnreadableRun: If it is damaged.
    """
    if name is None:
        return pd.DataFrame()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return pd.DataFrame()
    try:
        content = json.loads(path.read_text())
        return pd.DataFrame(content["data"], columns=content["columns"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UnreadableRun(str(path), f"is no table of W&B's ({error})") from error
