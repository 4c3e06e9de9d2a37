"""Charts of search and fine-tuning: kept MACs, losses of the discriminators, losses of the generators."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypedDict

from lightning_gancompress.errors import UserError
from lightning_gancompress.pruning import parse_budget
from lightning_gancompress.reporting.page.charts import Level, Line, LineChart
from lightning_gancompress.reporting.page.curves import DRAW, Curve, border
from lightning_gancompress.reporting.page.run import Compression
from lightning_gancompress.tasks import Role, Side

Curves = Mapping[str, Curve]

DRAWS = {"vanilla": DRAW, "lsgan": 0.25}  # by gan_mode: loss of a discriminator that outputs 1/2
GENERATOR_LOSSES = re.compile(r"train/(?!discriminator|lr$|\w*budget)|val/(\w+/)?(teacher_)?l1$")


class Axis(TypedDict):
    """The horizontal axis of all charts: the steps of the run, and the border between its phases."""

    span: tuple[int, int]
    split: float | None


def curve_charts(curves: Curves, run: Compression) -> list[LineChart]:
    """All charts of the curves of a run; none if it has logged no training."""
    steps = [step for name, points in curves.items() if name.startswith("train/") for step, _ in points]
    if not steps:
        return []
    axis: Axis = {"span": (0, max(steps)), "split": border(curves)}
    draw = DRAWS.get(str(run.provenance.get("gan_mode")))
    return [
        *budget(curves, run, axis),
        *search_balance(curves, axis),
        *finetune_balance(curves, draw, axis),
        *losses(curves, axis),
    ]


def budget(curves: Curves, run: Compression, axis: Axis) -> Iterator[LineChart]:
    """Kept MACs of both sides during the search."""
    kept = {side: curves.get(f"cost/{side}_macs") for side in Side}
    lines = tuple(Line(str(side), points, str(side)) for side, points in kept.items() if points)
    if lines:
        title = f"The search ended at {100 * lines[0].last:.3g} % of the {lines[0].name}\u2019s MACs"
        caption = "MACs kept by the sampled masks; at the border they are cut to the budget."
        yield LineChart(title, caption, lines, budget_level(run), percent=True, **axis)


def budget_level(run: Compression) -> tuple[Level, ...]:
    """The budget of the generators as a level; empty if it is not recorded."""
    full = run.macs("teacher", run.convention)
    try:
        share = parse_budget(run.provenance["budget"], round(full)) / full
    except (KeyError, UserError):
        return ()
    return (Level(f"budget {100 * share:.3g} %", share, str(Side.GENERATOR)),)


def search_balance(curves: Curves, axis: Axis) -> Iterator[LineChart]:
    """The discriminator's loss in the search, with the loss of one that outputs 1/2 (a draw) as level."""
    if points := curves.get("train/discriminator_density"):
        lines = (Line("discriminator", points, "discriminator"),)
        title = f"In the search the discriminator\u2019s loss ended at {lines[0].last:.2g}"
        caption = "Below the dashed line it distinguishes student and teacher images; on it, it can\u2019t."
        yield LineChart(title, caption, lines, (Level(f"draw {DRAW:.2f}", DRAW),), **axis)


def finetune_balance(curves: Curves, draw: float | None, axis: Axis) -> Iterator[LineChart]:
    """Both losses of each discriminator in the fine-tuning, with the level of a draw if known."""
    levels = () if draw is None else (Level(f"draw {draw:.2f}", draw),)
    matches = [re.fullmatch(r"train/(discriminator(?:_\w+)?)_real", name) for name in curves]
    for role in [Role(match[1]) for match in matches if match]:
        ends = {"real": "discriminator", "fake": "discriminator alt"}
        logged = {end: curves.get(f"train/{role}_{end}") for end in ends}
        lines = tuple(Line(end, points, ends[end]) for end, points in logged.items() if points)
        title = " ".join(filter(None, ("Discriminator", role.direction_text, "in the fine-tuning")))
        caption = "Its losses on real and generated images; at a draw it can\u2019t distinguish them."
        yield LineChart(title, caption, lines, levels, **axis)


def losses(curves: Curves, axis: Axis) -> Iterator[LineChart]:
    """One chart per loss of the generators, since these differ in scale."""
    for name in sorted(name for name in curves if GENERATOR_LOSSES.match(name)):
        where, _, loss = name.partition("/")
        label, last = loss.replace("_", " ").replace("l1", "L1"), f"{curves[name][-1][1]:.3g}"
        title = f"{'Validation: ' if where == 'val' else ''}{label}, {last} at the end"
        yield LineChart(title, name, (Line(last, curves[name], "generator"),), **axis)
