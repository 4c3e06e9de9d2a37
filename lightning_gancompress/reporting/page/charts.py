"""The geometry of line charts, which `templates/chart.svg` draws.

They are not drawn by matplotlib, so that CSS sets their colours, also in dark mode, and their text has the
font and size of the page. A chart with two lines of 200 points takes 5 kB; matplotlib's SVG takes 20 kB, with
fixed colours and ids that collide with those of other charts in the page. A chart library in JavaScript
would be larger than the rest of the page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

from lightning_gancompress.reporting.page.curves import Curve

MOST_POINTS = 200
LINE_HEIGHT = 12  # of names, in points


@dataclass(frozen=True)
class Line:
    """A curve with its name and CSS class."""

    name: str
    points: Curve
    css: str

    @property
    def last(self) -> float:
        """The value at the end."""
        return self.points[-1][1]

    @cached_property
    def thin(self) -> Curve:
        """At most `MOST_POINTS` points: means over consecutive points."""
        size = math.ceil(len(self.points) / MOST_POINTS)
        bins = [self.points[start : start + size] for start in range(0, len(self.points), size)]
        return [(points[-1][0], sum(value for _, value in points) / len(points)) for points in bins]


class Level(NamedTuple):
    """A value to compare with, drawn as a dashed line."""

    name: str
    value: float
    css: str = ""


class Name(NamedTuple):
    """The name of a line or level, drawn at its end, and its vertical position."""

    text: str
    css: str
    y: float


@dataclass(frozen=True)
class LineChart:
    """Lines over steps, each with its name at its end.

    Attributes:
        title: The result that the chart shows.
        caption: What is drawn.
        lines: At least one line.
        levels: Values to compare with.
        split: Step of the border between search and fine-tuning.
        span: First and last step of the axis; None for those of the lines.
        percent: Whether values are fractions to be shown in per cent.
    """

    title: str
    caption: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...] = ()
    split: float | None = None
    span: tuple[int, int] | None = None
    percent: bool = False

    width: ClassVar[int] = 360  # about the width of a phone, so that text is not scaled down there
    height: ClassVar[int] = 190
    left: ClassVar[int] = 38
    right: ClassVar[int] = width - 86
    top: ClassVar[int] = 14
    bottom: ClassVar[int] = height - 26

    @property
    def first(self) -> int:
        """First step of the axis."""
        return self.span[0] if self.span else min(step for line in self.lines for step, _ in line.thin)

    @property
    def last(self) -> int:
        """Last step of the axis, at least one after the first."""
        end = self.span[1] if self.span else max(step for line in self.lines for step, _ in line.thin)
        return max(end, self.first + 1)

    @property
    def has_split(self) -> bool:
        """Whether the border lies within the axis."""
        return self.split is not None and self.first < self.split < self.last

    @cached_property
    def ticks(self) -> list[float]:
        """Round values of the vertical axis, which spans lines, levels and zero."""
        values = [value for line in self.lines for _, value in line.thin]
        values += [level.value for level in self.levels]
        return nice_ticks(min(0.0, *values), max(1e-9, *values))

    def x(self, step: float) -> float:
        """Horizontal position of a step, in points from the left."""
        return self.left + (step - self.first) / (self.last - self.first) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Vertical position of a value, in points from the top."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    @property
    def names(self) -> list[Name]:
        """Names at the ends of levels and lines, moved apart so that they don't overlap."""
        ends = [Name(level.name, level.css, self.y(level.value)) for level in self.levels]
        ends += [Name(line.name, line.css, self.y(line.thin[-1][1])) for line in self.lines]
        positions = spread([name.y for name in ends], LINE_HEIGHT, self.bottom)
        return [name._replace(y=y) for name, y in zip(ends, positions, strict=True)]

    def tick_label(self, value: float) -> str:
        """Text of a tick."""
        return f"{100 * value:.0f}\u2009%" if self.percent else f"{value:g}"

    def format(self, value: float) -> str:
        """Text of a value in a tooltip."""
        return f"{100 * value:.1f} %" if self.percent else f"{value:.3g}"


def nice_ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers that span the range."""
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= raw * 0.999)
    return [n * step for n in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def spread(positions: list[float], distance: float, lowest: float) -> list[float]:
    """Move positions apart to at least `distance`, none beyond `lowest`; the order stays the same."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    moved = dict.fromkeys(order, 0.0)
    previous = -math.inf
    for index in order:
        moved[index] = previous = max(positions[index], previous + distance)
    limit = lowest
    for index in reversed(order):
        moved[index] = limit = min(moved[index], limit)
        limit -= distance
    return [moved[index] for index in range(len(positions))]
