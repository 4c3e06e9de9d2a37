"""Line charts as SVG: their colours are the page's, so they follow its light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from lightning_gancompress.reporting.page.curves import Curve

WIDTH, HEIGHT = 360, 190  # about the points of a phone, so that text is not scaled down there
LEFT, RIGHT, TOP, BOTTOM = 38, 86, 14, 26
MOST_POINTS = 200


def line_chart(
    title: str,
    curves: Mapping[str, tuple[Curve, str]],
    levels: Mapping[str, tuple[float, str]] | None = None,
    split: float | None = None,
    span: tuple[int, int] | None = None,
    percent: bool = False,
) -> str:
    """Lines over steps, each with its name at its end.

    Args:
        title: Read out where the chart can't be seen.
        curves: Points and CSS class by name.
        levels: Values to compare with: drawn as dashed lines, with a CSS class.
        split: Step of the border between search and fine-tuning.
        span: First and last step of the axis, those of the curves unless given.
        percent: Whether 1 is 100 %.
    """
    levels = levels or {}
    drawn = {name: (thin(points), css) for name, (points, css) in curves.items()}
    steps = [step for points, _ in drawn.values() for step, _ in points]
    values = [value for points, _ in drawn.values() for _, value in points] + [v for v, _ in levels.values()]
    first, last = span or (min(steps), max(steps))
    last = max(last, first + 1)
    low, high = min(0.0, *values), max(*values, 1e-9)
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in ticks:
        label = f"{100 * tick:.0f}&thinsp;%" if percent else f"{tick:g}"
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 5}" y="{y(tick) + 3.5:.1f}">{label}</text>')
    for step, css in ((first, ""), (last, "end")):
        text = f"step {step}" if step == last else f"{step}"
        parts.append(f'<text class="{css}" x="{x(step):.1f}" y="{HEIGHT - 8}">{text}</text>')
    if split is not None and first < split < last:
        parts.append(f'<path class="split" d="M{x(split):.1f} {TOP - 6}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="end" x="{x(split) - 4:.1f}" y="{TOP}">search</text>')
        parts.append(f'<text x="{x(split) + 4:.1f}" y="{TOP}">fine-tuning</text>')
    ends = {}
    for name, (value, css) in levels.items():
        parts.append(f'<path class="level {css}" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
        ends[name] = (y(value), css, value)
    for name, (points, css) in drawn.items():
        path = "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points)
        value = points[-1][1]
        told = f"{100 * value:.1f} %" if percent else f"{value:.3g}"
        parts.append(
            f'<path class="line {css}" d="M{path}"><title>{escape(name)}: {told} at the end</title></path>'
        )
        if len(points) == 1:
            parts.append(f'<circle class="{css}" cx="{x(points[0][0]):.1f}" cy="{y(value):.1f}" r="2.5"/>')
        ends[name] = (y(value), css, value)
    places = spread([place for place, _, _ in ends.values()], 12, HEIGHT - BOTTOM)
    for (name, (_, css, _)), place in zip(ends.items(), places, strict=True):
        text = escape(name)
        parts.append(f'<text class="name {css}" x="{WIDTH - RIGHT + 5}" y="{place + 3.5:.1f}">{text}</text>')
    return "".join(parts) + "</svg>"


def thin(points: Curve) -> Curve:
    """Means of equal runs of points, few enough to draw."""
    size = math.ceil(len(points) / MOST_POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def nice_ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers that span the range."""
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= raw * 0.999)
    return [n * step for n in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def spread(places: list[float], distance: float, lowest: float) -> list[float]:
    """The places moved apart to at least a distance, none beyond the lowest, in their old order."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = dict.fromkeys(order, 0.0)
    previous = -math.inf
    for index in order:
        moved[index] = previous = max(places[index], previous + distance)
    limit = lowest
    for index in reversed(order):
        moved[index] = limit = min(moved[index], limit)
        limit -= distance
    return [moved[index] for index in range(len(places))]
