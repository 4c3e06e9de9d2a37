"""The logged curves of a run, read from its CSV logs."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_gancompress.errors import UserError
from lightning_gancompress.training.phase import SEARCH

Curve = list[tuple[int, float]]
Row = dict[str, float]

MOST_STEPS, LARGEST = 1e12, 1e100
DRAW = math.log(2)  # cross-entropy of a discriminator that outputs 1/2
FINETUNE = re.compile(r"train/(generator|discriminator(_\w+)?_(real|fake))$")


def read_curves(logs: Path) -> dict[str, Curve]:
    """Points (step, value) by name, from `version_*/metrics.csv` of Lightning's CSVLogger.

    Steps that a resumed run has repeated are taken from the later log.
    """
    rows: list[Row] = []
    paths = [path for path in logs.glob("version_*/metrics.csv") if path.parent.name[8:].isdecimal()]
    for path in sorted(paths, key=lambda path: int(path.parent.name[8:])):
        rows = merge(rows, read_rows(path))
    curves: dict[str, Curve] = {}
    for row in sorted(rows, key=lambda row: row["step"]):
        for name, value in row.items():
            if name not in ("step", "epoch"):
                # validation has one curve; earlier releases logged it under one name
                name = name.removeprefix(SEARCH) if name.startswith(f"{SEARCH}val/") else name
                curves.setdefault(name, []).append((int(row["step"]), value))
    return curves


def read_rows(path: Path) -> list[Row]:
    """The finite numbers of each row that has a step.

    Raises:
        UserError: The file is no CSV.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [dict(numbers(row)) for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} holds no curves ({error}): remove it, or copy it again.") from error
    return [row for row in rows if 0 <= row.get("step", -1) < MOST_STEPS]


def numbers(row: Mapping[str | None, Any]) -> Iterable[tuple[str, float]]:
    """The finite numbers of a row, by column; those beyond the columns have no name."""
    for name, text in row.items():
        if name is None:
            continue
        try:
            value = float(text)
        except (TypeError, ValueError):
            continue
        if abs(value) < LARGEST:  # charts compute with differences and squares
            yield name, value


def merge(earlier: list[Row], later: list[Row]) -> list[Row]:
    """Append the later log to the rows of the earlier one before its first step of training.

    A log without training, such as a test's, adds nothing.
    """
    trained = [row for row in later if any(name.startswith("train/") for name in row)]
    if not trained:
        return earlier
    first = min(row["step"] for row in trained)
    return [row for row in earlier if row["step"] < first] + later


def border(curves: Mapping[str, Curve]) -> float | None:
    """The step between search and fine-tuning, or None where only one of them was logged."""
    search = [points[-1][0] for name, points in curves.items() if name.startswith(("cost/", SEARCH))]
    tuned = [points[0][0] for name, points in curves.items() if FINETUNE.match(name)]
    return (max(search) + min(tuned)) / 2 if search and tuned else None
