"""The headline of the page and the figures below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lightning_gancompress.evaluation.metrics import (
    BYTES,
    COVERAGE,
    FID,
    L1,
    LATENCY,
    MACS_EXACT,
    MACS_LITERATURE,
    PARAMS,
    TEACHER,
    metric,
)
from lightning_gancompress.reporting.page.run import Compression, Generator

SMALLER = {"G": "M", "M": "k", "MB": "kB"}  # a thousandth of a unit
RATIOS = {
    MACS_EXACT: "Fewer MACs, exact",
    MACS_LITERATURE: "Fewer MACs, literature",
    PARAMS: "Fewer parameters",
    BYTES: "Smaller file",
}


class Tile(NamedTuple):
    """A headline figure with its label and a detail."""

    label: str
    figure: str
    detail: str


def headline(run: Compression) -> str:
    """The headline: the network and its reduction of MACs."""
    if run.phase == "search":
        return f"{run.network}: the search for its channels isn't over"
    return f"{run.network} with {times(run.macs('teacher') / run.macs('student'))} fewer MACs"


def tiles(generator: Generator) -> list[Tile]:
    """The headline figures of a generator that have been measured."""
    return [*ratios(generator.teacher, generator.student), *speed(generator), *quality(generator)]


def ratios(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[Tile]:
    """Reductions of MACs, parameters and file size, as far as both are known."""
    for name, label in RATIOS.items():
        if before.get(name, 0) > 0 and after.get(name, 0) > 0:
            yield Tile(label, times(before[name] / after[name]), change(name, before, after))


def speed(generator: Generator) -> Iterator[Tile]:
    """The speed-up: as measured in turn with the teacher, else the ratio of the medians."""
    before, after = generator.teacher, generator.student
    if generator.results and before.get(LATENCY, 0) > 0 and after.get(LATENCY, 0) > 0:
        runtime = generator.results.latency.get("torch")
        recorded = runtime.speedup if runtime else None
        ratio = before[LATENCY] / after[LATENCY] if recorded is None else recorded
        yield Tile("Faster", times(ratio), f"{change(LATENCY, before, after)} an image")


def quality(generator: Generator) -> Iterator[Tile]:
    """FID of the student, its L1 distance to the teacher and its coverage of the teacher."""
    for name in fids(generator.student):
        if name in generator.teacher:
            detail = f"teacher {generator.teacher[name]:.4g}; lower is better"
            yield Tile(metric(name).label, f"{generator.student[name]:.4g}", detail)
    compared = generator.results.comparison if generator.results else {}
    if TEACHER + L1 in compared:
        yield Tile("Student to teacher", f"{compared[TEACHER + L1]:.3f}", "L1 of pixels in [-1, 1]")
    if TEACHER + COVERAGE in compared:
        covered = f"{compared[TEACHER + COVERAGE]:.2f}"
        yield Tile("Coverage of the teacher", covered, "1 keeps all neighbourhoods")


def fids(figures: Iterable[str]) -> list[str]:
    """The names that are FID, of any of Inception's layers."""
    return [name for name in figures if name == FID or name.startswith(f"{FID}_")]


def times(ratio: float) -> str:
    """A ratio as text: `3.4x`, or without decimals from 20."""
    return f"{ratio:.0f}\u00d7" if ratio >= 20 else f"{ratio:.1f}\u00d7"


def change(name: str, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Two figures in the unit of their metric, or in a smaller one: 3.8 M rather than 0.0038 G."""
    scale, unit = _unit(name, after[name])
    return f"{before[name] * scale:.3g} \u2192 {after[name] * scale:.3g} {unit}"


def figure(name: str, value: float) -> str:
    """A figure with its unit, as `change` has it."""
    scale, unit = _unit(name, value)
    return f"{value * scale:.3g} {unit}"


def _unit(name: str, value: float) -> tuple[float, str]:
    scale, unit = metric(name).scale, metric(name).unit
    if value * scale < 0.1 and unit in SMALLER:
        return 1000 * scale, SMALLER[unit]
    return scale, unit
