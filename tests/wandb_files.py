"""What W&B has written offline: the records of a `.wandb` file, a log of LevelDB with protocol buffers."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BLOCK, HEADER, PREFIX = 32768, 7, 7  # bytes of a block, of a chunk's header, and of the file's own


def offline(patch: pytest.MonkeyPatch) -> None:
    """Have W&B write files only, and say nothing."""
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_DIR", "WANDB_SWEEP_PARAM_PATH"):
        patch.delenv(name, raising=False)
    for name, value in {"MODE": "offline", "SILENT": "true", "ERROR_REPORTING": "false"}.items():
        patch.setenv(f"WANDB_{name}", value)
    patch.setenv("WANDB__DISABLE_STATS", "true")  # of the machine


def records(folder: Path) -> Iterator[Any]:
    """The records of all offline runs in a run's folder, in the order of their starts."""
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        yield from _whole(file)


def history(folder: Path) -> list[dict[str, Any]]:
    """What was logged, a mapping per call."""
    found = (r.history for r in records(folder) if r.WhichOneof("record_type") == "history")
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.item}
        for record in found
    ]


def logged(folder: Path) -> set[str]:
    """The names that were logged."""
    return {name for entry in history(folder) for name in entry}


def run_ids(folder: Path) -> set[str]:
    """Numbers of the runs."""
    return {r.run.run_id for r in records(folder) if r.WhichOneof("record_type") == "run"}


def artifacts(folder: Path) -> dict[str, set[str]]:
    """Types of the artifacts, and the names of their files."""
    found: dict[str, set[str]] = {}
    for record in records(folder):
        artifact = record.artifact if record.WhichOneof("record_type") == "artifact" else None
        if artifact is None and record.WhichOneof("record_type") == "request":
            artifact = record.request.log_artifact.artifact
        if artifact is not None and artifact.name:
            names = {entry.path for entry in artifact.manifest.contents}
            found[f"{artifact.type} {artifact.name}"] = names
    return found


def _whole(file: Path) -> list[Any]:
    """The records of a run that is finished; the last ones are written a moment later."""
    from wandb.proto.wandb_internal_pb2 import Record

    for _ in range(600):
        found = [Record.FromString(content) for content in _contents(file.read_bytes())]
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def _contents(data: bytes) -> Iterator[bytes]:
    """The contents of records, which may be spread over blocks."""
    assert data[:4] in (b":W&B", b"")
    place, parts = PREFIX, b""
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        if place + HEADER + length > len(data):  # still to be written
            return
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # the whole of a record, or its last part
            yield parts
            parts = b""
