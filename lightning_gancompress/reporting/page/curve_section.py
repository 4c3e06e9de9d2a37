"""The curves of search and fine-tuning."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html import escape
from typing import Any, TypedDict

from lightning_gancompress.errors import UserError
from lightning_gancompress.pruning import parse_budget
from lightning_gancompress.reporting.page.charts import line_chart
from lightning_gancompress.reporting.page.curves import Curve, border

DRAW = math.log(2)  # cross-entropy of a critic that can't tell


DRAWS = {"vanilla": DRAW, "lsgan": 0.25}  # by gan_mode, of either loss


class Axis(TypedDict):
    """What all charts share: the steps of the run, and the border within."""

    span: tuple[int, int]
    split: float | None


def curve_section(curves: Mapping[str, Curve], made: Mapping[str, Any], full: float) -> str:
    """What became of the budget, of the balance between the two sides, and of the losses."""
    steps = [step for name, points in curves.items() if name.startswith("train/") for step, _ in points]
    head = "<section><h2>How search and fine-tuning went</h2>"
    if not steps:
        words = "No curves were logged where this page looks for them: logs/version_*/metrics.csv."
        return f'{head}<p class="soft">{words}</p></section>'
    axis: Axis = {"span": (0, max(steps)), "split": border(curves)}
    charts = [
        budget(curves, made, full, axis),
        *balances(curves, DRAWS.get(str(made.get("gan_mode"))), axis),
        *losses(curves, axis),
    ]
    return f'{head}<div class="charts">{"".join(charts)}</div></section>'


def chart(title: str, words: str, drawing: str) -> str:
    """A drawing under its finding."""
    return f'<div class="chart"><h3>{escape(title)}</h3><p class="soft">{escape(words)}</p>{drawing}</div>'


def budget(curves: Mapping[str, Curve], made: Mapping[str, Any], full: float, axis: Axis) -> str:
    """Kept MACs of both sides during the search."""
    kept = {side: curves.get(f"cost/{side}_macs") for side in ("generator", "discriminator")}
    drawn = {side: (points, side) for side, points in kept.items() if points}
    if not drawn:
        return ""
    levels = {}
    try:
        wanted = parse_budget(made["budget"], round(full)) / full
        levels = {f"budget {100 * wanted:.3g} %": (wanted, "generator")}
    except (KeyError, UserError):
        wanted = None
    name, (points, _) = next(iter(drawn.items()))
    title = f"The search ended at {100 * points[-1][1]:.3g} % of the {name}\u2019s MACs"
    drawing = line_chart(title, drawn, levels, **axis, percent=True)
    return chart(title, "MACs kept by the sampled masks; at the border they are cut to the budget.", drawing)


def balances(curves: Mapping[str, Curve], draw: float | None, axis: Axis) -> list[str]:
    """Who leads: the critic's losses in search and fine-tuning beside those of a draw."""
    found = []
    searched = curves.get("train/discriminator_density")
    if searched:
        drawn = {"critic": (searched, "discriminator")}
        title = f"In the search the critic\u2019s loss ended at {searched[-1][1]:.2g}"
        words = "Below the dashed line it tells student from teacher; on it, it is a draw."
        drawing = line_chart(title, drawn, {"draw 0.69": (DRAW, "")}, **axis)
        found.append(chart(title, words, drawing))
    levels = {f"draw {draw:.2f}": (draw, "")} if draw else {}
    matches = [re.match(r"train/(discriminator\w*)_real", name) for name in curves]
    for side in [match[1] for match in matches if match]:
        pair = {
            end: (curves[f"train/{side}_{end}"], f"discriminator {css}")
            for end, css in (("real", ""), ("fake", "alt"))
            if f"train/{side}_{end}" in curves
        }
        title = f"{side.replace('_', ' ').capitalize()} in the fine-tuning"
        words = "Its losses on real and generated images, which meet at a draw where it can\u2019t tell."
        found.append(chart(title, words, line_chart(title, pair, levels, **axis)))
    return found


def losses(curves: Mapping[str, Curve], axis: Axis) -> list[str]:
    """One small chart for each loss of the generators, which differ in scale."""
    found = []
    drawn = re.compile(r"train/(?!discriminator|lr$|\w*budget)|val/(\w+/)?(teacher_)?l1$")
    names = [name for name in curves if drawn.match(name)]
    for name in sorted(names):
        where, _, loss = name.partition("/")
        label = loss.replace("_", " ").replace("l1", "L1")
        title = f"{'Validation: ' if where == 'val' else ''}{label}, {curves[name][-1][1]:.3g} at the end"
        short = f"{curves[name][-1][1]:.3g}"
        found.append(chart(title, f"{name}", line_chart(title, {short: (curves[name], "generator")}, **axis)))
    return found
