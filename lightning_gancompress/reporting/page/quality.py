"""The table of cost and quality, and what is missing in it."""

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
    """A metric: its figure for each generator, and the last as percentage of the first."""

    label: str
    figures: dict[str, str]
    share: str


class Advice(NamedTuple):
    """What is missing, and the command that makes it."""

    missing: str
    command: str


def quality_rows(networks: Mapping[str, NetworkResults]) -> list[Row]:
    """A row for every figure, in the order of the metrics."""
    found = in_order(name for network in networks.values() for name in network.figures)
    return [row(name, {key: net.figures.get(name) for key, net in networks.items()}) for name in found]


def row(name: str, values: Mapping[str, float | None]) -> Row:
    """One metric of all generators."""
    shown, ends = metric(name), [*values.values()]
    figures = {key: UNKNOWN if value is None else told(shown, value) for key, value in values.items()}
    share = f"{100 * ends[-1] / ends[0]:.3g}" if ends[0] and ends[-1] is not None else ""
    return Row(shown.heading, figures, share)


def told(shown: Metric, value: float) -> str:
    """A figure with its unit, which a thin space keeps beside it."""
    return f"{shown.number(value)}\u2009{shown.unit}".rstrip()


def advice(run: Compression, missing: str, *options: str) -> Advice:
    """A test that finds out what is missing."""
    return Advice(missing, shlex.join(run.test_command(*options)))


def quality_advice(run: Compression) -> list[Advice]:
    """How to measure what has not been measured."""
    tested = [generator for generator in run.generators if generator.results]
    if not tested:
        return [advice(run, "Quality has not been measured yet.")]
    found, figures = [], tested[0].student
    if not fids(figures):
        found.append(advice(run, "FID has not been measured.", *MEASURE_FID))
    if LATENCY not in figures:
        found.append(advice(run, "Latency has not been measured.", "--trainer.callbacks+=Evaluation"))
    return found
