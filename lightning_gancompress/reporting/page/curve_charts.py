"""Charts of search and fine-tuning: the budget, the balance between the two sides, and the losses."""

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

DRAWS = {"vanilla": DRAW, "lsgan": 0.25}  # by gan_mode: either loss of a discriminator that can't tell
GENERATOR_LOSSES = re.compile(r"train/(?!discriminator|lr$|\w*budget)|val/(\w+/)?(teacher_)?l1$")


class Axis(TypedDict):
    """What all charts share: the steps of the run, and the border within."""

    span: tuple[int, int]
    split: float | None


def curve_charts(curves: Curves, run: Compression) -> list[LineChart]:
    """All charts of what a run has logged; none where nothing was."""
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
        words = "MACs kept by the sampled masks; at the border they are cut to the budget."
        yield LineChart(title, words, lines, wanted(run), percent=True, **axis)


def wanted(run: Compression) -> tuple[Level, ...]:
    """The budget of the generators, where it is known."""
    full = run.macs("teacher", run.convention)
    try:
        share = parse_budget(run.provenance["budget"], round(full)) / full
    except (KeyError, UserError):
        return ()
    return (Level(f"budget {100 * share:.3g} %", share, str(Side.GENERATOR)),)


def search_balance(curves: Curves, axis: Axis) -> Iterator[LineChart]:
    """Who leads in the search: the critic's loss beside that of a draw."""
    if points := curves.get("train/discriminator_density"):
        lines = (Line("critic", points, "discriminator"),)
        title = f"In the search the critic\u2019s loss ended at {lines[0].last:.2g}"
        words = "Below the dashed line it tells student from teacher; on it, it is a draw."
        yield LineChart(title, words, lines, (Level(f"draw {DRAW:.2f}", DRAW),), **axis)


def finetune_balance(curves: Curves, draw: float | None, axis: Axis) -> Iterator[LineChart]:
    """Who leads in the fine-tuning: both losses of each discriminator, beside a draw where it is known."""
    levels = () if draw is None else (Level(f"draw {draw:.2f}", draw),)
    matches = [re.fullmatch(r"train/(discriminator(?:_\w+)?)_real", name) for name in curves]
    for role in [Role(match[1]) for match in matches if match]:
        ends = {"real": "discriminator", "fake": "discriminator alt"}
        logged = {end: curves.get(f"train/{role}_{end}") for end in ends}
        lines = tuple(Line(end, points, ends[end]) for end, points in logged.items() if points)
        title = " ".join(filter(None, ("Discriminator", role.direction_text, "in the fine-tuning")))
        words = "Its losses on real and generated images, which meet at a draw where it can\u2019t tell."
        yield LineChart(title, words, lines, levels, **axis)


def losses(curves: Curves, axis: Axis) -> Iterator[LineChart]:
    """One small chart for each loss of the generators, which differ in scale."""
    for name in sorted(name for name in curves if GENERATOR_LOSSES.match(name)):
        where, _, loss = name.partition("/")
        label, last = loss.replace("_", " ").replace("l1", "L1"), f"{curves[name][-1][1]:.3g}"
        title = f"{'Validation: ' if where == 'val' else ''}{label}, {last} at the end"
        yield LineChart(title, name, (Line(last, curves[name], "generator"),), **axis)
