"""Plots of a comparison: quality against MACs, and the curves of the searches."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_gancompress.evaluation.metrics import Metric, metric
from lightning_gancompress.reporting.comparison.results import Place, Row
from lightning_gancompress.reporting.comparison.statistics import Sample
from lightning_gancompress.reporting.page.curves import DRAW, Curve, read_curves

MARKERS = "osD^vPX*<>"
SHIFT = 1.015  # factor between the MACs of experiments, so that error bars do not overlap
SEARCH = {  # logged names of a search, and labels of their axes
    "train/discriminator_density": "discriminator's loss",
    "train/balance": "balance: logits of teacher - student",
    "train/generator_density": "generator's loss",
    "train/teacher_l1": "L1 to the teacher",
    "cost/generator_macs": "generator's MACs, fraction",
    "cost/discriminator_macs": "discriminator's MACs, fraction",
}


def plots(rows: list[Row], teachers: list[Row], metrics: list[str], x_axis: str) -> dict[str, bytes]:
    """`plot.png` and `plot.svg`: one panel per metric, below each other for every direction.

    Args:
        rows: Rows of the students.
        teachers: One row per direction.
        metrics: Names of the metrics to plot.
        x_axis: Name of the metric of cost.
    """
    directions = list(dict.fromkeys(row.direction for row in rows))
    figure, panels = _figure(len(directions), len(metrics))
    for direction, line in zip(directions, panels, strict=True):
        own = [row for row in rows if row.direction == direction]
        teacher = next((row for row in teachers if row.direction == direction), None)
        for name, axes in zip(metrics, line, strict=True):
            shown = metric(name)
            _panel(axes, own, shown, x_axis)
            if teacher and name in teacher.values:
                level = shown.scale * teacher.values[name]
                axes.axhline(level, color="0.4", linestyle="--", linewidth=1, label="teacher")
            axes.set(xscale="log", xlabel="exact MACs, shifted a little", ylabel=head(shown), title=direction)
            axes.grid(alpha=0.3)
            _ticks(axes, [row.values[x_axis] for row in own if x_axis in row.values])
    return _files(figure, panels, "plot")


def search_curves(output: Path, places: list[Place]) -> dict[str, bytes]:
    """`search.png` and `search.svg`: losses and MACs of both sides during the searches, a row per budget.

    Lines are means over the seeds of an experiment, the shade is their range. Empty where no run has
    searched.

    Args:
        output: The comparison's folder.
        places: Runs of the comparison.
    """
    logged = {place: read_curves(output / place.path / "logs") for place in places}
    logged = {place: curves for place, curves in logged.items() if curves.keys() & SEARCH.keys()}
    if not logged:
        return {}
    budgets = list(dict.fromkeys(place.budget for place in logged))
    names = list(dict.fromkeys(place.name for place in logged))
    figure, panels = _figure(len(budgets), len(SEARCH))
    for budget, line in zip(budgets, panels, strict=True):
        for (key, label), axes in zip(SEARCH.items(), line, strict=True):
            for number, name in enumerate(names):
                own = [c[key] for p, c in logged.items() if (p.budget, p.name) == (budget, name) and key in c]
                if points := list(_over_seeds(own)):
                    steps, low, mean, high = zip(*points, strict=True)
                    axes.plot(steps, mean, color=f"C{number % 10}", linewidth=1.2, label=name)
                    axes.fill_between(steps, low, high, color=f"C{number % 10}", alpha=0.15, linewidth=0)
            if key == "train/discriminator_density":
                axes.axhline(DRAW, color="0.4", linestyle="--", linewidth=1, label="draw")
            elif key == "train/balance":
                axes.axhline(0, color="0.4", linestyle="--", linewidth=1, label="draw")
            axes.set(xlabel="step", ylabel=label, title=f"budget {budget}" if budget else "")
            axes.grid(alpha=0.3)
    return _files(figure, panels, "search")


def head(shown: Metric) -> str:
    """The heading of a column or label of an axis: label, unit, and an arrow towards better figures."""
    label = f"{shown.heading}, {shown.unit}" if shown.unit else shown.heading
    return f"{label} {shown.arrow}".rstrip()


def _over_seeds(curves: list[Curve]) -> Iterator[tuple[int, float, float, float]]:
    """Step, lowest, mean and highest value over curves, at the steps that all of them have."""
    series = [dict(curve) for curve in curves]
    for step in sorted(set.intersection(*map(set, series))) if series else ():
        values = [points[step] for points in series]
        yield step, min(values), sum(values) / len(values), max(values)


def _figure(rows: int, columns: int) -> tuple[Any, Any]:
    """A figure and its panels (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, 3.4 * rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot, which needs a window system and keeps figures alive
    return figure, figure.subplots(rows, columns, squeeze=False)


def _files(figure: Any, panels: Any, name: str) -> dict[str, bytes]:
    """The figure as PNG and SVG, with one legend for all panels below them."""
    import matplotlib

    handles = {
        text: h for axes in panels.flat for h, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=2 * panels.shape[1],
        frameon=False,
    )
    files = {}
    for ending in ("png", "svg"):
        file = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "gancompress"}):  # makes the file reproducible
            figure.savefig(file, format=ending, dpi=120, metadata={"Date": None} if ending == "svg" else None)
        files[f"{name}.{ending}"] = file.getvalue()
    return files


def _panel(axes: Any, rows: list[Row], shown: Metric, x_axis: str) -> None:
    """Draw a line with error bars per experiment, over its budgets."""
    names = list(dict.fromkeys(row.name for row in rows))
    for number, name in enumerate(names):
        points = []
        for budget in dict.fromkeys(row.budget for row in rows if row.name == name):
            own = [row.values for row in rows if (row.name, row.budget) == (name, budget)]
            measured = [values for values in own if {shown.name, x_axis} <= values.keys()]
            if measured:
                quality = Sample.of([shown.scale * values[shown.name] for values in measured])
                cost = Sample.of([values[x_axis] for values in measured]).mean
                points.append((cost * SHIFT ** (number - len(names) // 2), quality.mean, quality.std))
        if points:
            x, y, spread = zip(*sorted(points), strict=True)
            bars = [0.0 if math.isnan(s) else s for s in spread]
            style = {"marker": MARKERS[number % len(MARKERS)], "color": f"C{number % 10}"}
            axes.errorbar(x, y, bars, capsize=3, markersize=5, linewidth=1.2, label=name, **style)


def _ticks(axes: Any, costs: list[float]) -> None:
    """Set a tick at every budget, since the axis may contain no power of ten."""
    ticks: list[float] = []
    for cost in sorted(costs):
        if not ticks or cost > 1.2 * ticks[-1]:
            ticks.append(cost)
    axes.set_xticks(ticks, [f"{tick / 1e6:.3g} M" if tick < 1e9 else f"{tick / 1e9:.3g} G" for tick in ticks])
    axes.set_xticks([], minor=True)
    if ticks:
        axes.set_xlim(min(ticks) / 1.4, max(costs) * 1.4)
