"""The table of cost and quality, and commands that measure what is missing in it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import NamedTuple

from lightning_gancompress.evaluation.metrics import LATENCY, Metric, in_order, metric
from lightning_gancompress.evaluation.results import NetworkResults
from lightning_gancompress.reporting.page.headline import fids
from lightning_gancompress.reporting.page.run import Compression

UNKNOWN = "\u2013"
MEASURE_FID = (
    "--trainer.callbacks+=Evaluation",
    "--trainer.callbacks.fid_feature=2048",
    "--trainer.callbacks.fid_weights=WEIGHTS.pth",
)


class Row(NamedTuple):
    """A metric: its figure for each generator, and the student's in per cent of the teacher's."""

    label: str
    figures: dict[str, str]
    share: str


class Advice(NamedTuple):
    """What is missing, and the command that creates it."""

    missing: str
    command: str


def quality_rows(networks: Mapping[str, NetworkResults]) -> list[Row]:
    """A row for every figure, in the order of the metrics."""
    names = in_order(name for network in networks.values() for name in network.figures)
    return [row(name, {key: net.figures.get(name) for key, net in networks.items()}) for name in names]


def row(name: str, values: Mapping[str, float | None]) -> Row:
    """The row of one metric."""
    shown, before, after = metric(name), values.get("teacher"), values.get("student")
    figures = {key: UNKNOWN if value is None else format_cell(shown, value) for key, value in values.items()}
    share = f"{100 * after / before:.3g}" if before and after is not None else ""
    return Row(shown.heading, figures, share)


def format_cell(shown: Metric, value: float) -> str:
    """A figure with its unit, joined by a thin space."""
    return f"{shown.number(value)}\u2009{shown.unit}".rstrip()


def advice(run: Compression, missing: str, *options: str) -> Advice:
    """The advice to test the run with further options."""
    return Advice(missing, shlex.join(run.test_command(*options)))


def quality_advice(run: Compression) -> list[Advice]:
    """Advice for each figure that has not been measured."""
    tested = [generator for generator in run.generators if generator.results]
    if not tested:
        return [advice(run, "Quality has not been measured yet.")]
    missing, figures = [], tested[0].student
    if not fids(figures):
        missing.append(advice(run, "FID has not been measured.", *MEASURE_FID))
    if LATENCY not in figures:
        missing.append(advice(run, "Latency has not been measured.", "--trainer.callbacks+=Evaluation"))
    return missing
