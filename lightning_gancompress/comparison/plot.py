"""Quality against MACs."""

from __future__ import annotations

import io
import math
from typing import Any

from lightning_gancompress.comparison.results import Row
from lightning_gancompress.comparison.statistics import Sample

MARKERS = "osD^vPX*<>"
SHIFT = 1.015  # between experiments, whose bars would hide each other at equal MACs


def plots(rows: list[Row], teachers: list[Row], metrics: list[str], x_axis: str) -> dict[str, bytes]:
    """`plot.png` and `plot.svg`: one panel per metric, below each other for every direction.

    Args:
        rows: Of the students.
        teachers: One row per direction.
        metrics: To be shown.
        x_axis: The metric of the cost.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    directions = list(dict.fromkeys(row.direction for row in rows))
    figure = Figure(figsize=(4.2 * len(metrics), 3.4 * len(directions) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot no window system is asked, and nothing outlives this call
    panels = figure.subplots(len(directions), len(metrics), squeeze=False)
    for direction, line in zip(directions, panels, strict=True):
        own = [row for row in rows if row.direction == direction]
        teacher = next((row for row in teachers if row.direction == direction), None)
        for metric, axes in zip(metrics, line, strict=True):
            _panel(axes, own, metric, x_axis)
            if teacher and metric in teacher.values:
                axes.axhline(
                    teacher.values[metric], color="0.4", linestyle="--", linewidth=1, label="teacher"
                )
            axes.set(xscale="log", xlabel="exact MACs, shifted a little", ylabel=metric, title=direction)
            axes.grid(alpha=0.3)
            _ticks(axes, [row.values[x_axis] for row in own if x_axis in row.values])
    handles = {
        text: h for axes in panels.flat for h, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=2 * len(metrics), frameon=False
    )
    files = {}
    for ending in ("png", "svg"):
        file = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "gancompress"}):  # equal results, equal file
            figure.savefig(file, format=ending, dpi=120, metadata={"Date": None} if ending == "svg" else None)
        files[f"plot.{ending}"] = file.getvalue()
    return files


def _panel(axes: Any, rows: list[Row], metric: str, x_axis: str) -> None:
    """A line with error bars per experiment, over its budgets."""
    names = list(dict.fromkeys(row.name for row in rows))
    for number, name in enumerate(names):
        points = []
        for budget in dict.fromkeys(row.budget for row in rows if row.name == name):
            own = [row.values for row in rows if (row.name, row.budget) == (name, budget)]
            found = [values for values in own if {metric, x_axis} <= values.keys()]
            if found:
                quality = Sample.of([values[metric] for values in found])
                cost = Sample.of([values[x_axis] for values in found]).mean
                points.append((cost * SHIFT ** (number - len(names) // 2), quality.mean, quality.std))
        if points:
            x, y, spread = zip(*sorted(points), strict=True)
            bars = [0.0 if math.isnan(s) else s for s in spread]
            style = {"marker": MARKERS[number % len(MARKERS)], "color": f"C{number % 10}"}
            axes.errorbar(x, y, bars, capsize=3, markersize=5, linewidth=1.2, label=name, **style)


def _ticks(axes: Any, costs: list[float]) -> None:
    """A tick at every budget, since whole powers of ten may all lie outside."""
    ticks: list[float] = []
    for cost in sorted(costs):
        if not ticks or cost > 1.2 * ticks[-1]:
            ticks.append(cost)
    axes.set_xticks(ticks, [f"{tick / 1e6:.3g} M" if tick < 1e9 else f"{tick / 1e9:.3g} G" for tick in ticks])
    axes.set_xticks([], minor=True)
    if ticks:
        axes.set_xlim(min(ticks) / 1.4, max(costs) * 1.4)
