"""Line charts, which `templates/chart.svg` draws.

They are drawn by hand, not by matplotlib. Their colours are the page's, so they follow its light and dark
by CSS; their text is text of the page's font, at a size that a phone can show. One with two lines of 200
points takes 5 kB; matplotlib's SVG takes 20 kB, has its colours inside, and ids that collide with those of
the next one in a page. A chart library in JavaScript would outweigh the rest of the page.
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
        """Means of equal runs of points, few enough to draw."""
        size = math.ceil(len(self.points) / MOST_POINTS)
        parts = [self.points[start : start + size] for start in range(0, len(self.points), size)]
        return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


class Level(NamedTuple):
    """A value to compare with, drawn as a dashed line."""

    name: str
    value: float
    css: str = ""


class Name(NamedTuple):
    """The name of a line or level at its end, and how far down it stands."""

    text: str
    css: str
    y: float


@dataclass(frozen=True)
class LineChart:
    """Lines over steps, each with its name at its end.

    Attributes:
        title: The finding.
        words: What is drawn.
        lines: At least one.
        levels: Values to compare with.
        split: Step of the border between search and fine-tuning.
        span: First and last step of the axis, those of the lines unless given.
        percent: Whether 1 is 100 %.
    """

    title: str
    words: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...] = ()
    split: float | None = None
    span: tuple[int, int] | None = None
    percent: bool = False

    width: ClassVar[int] = 360  # about the points of a phone, so that text is not scaled down there
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
        """Last step of the axis, beyond the first."""
        end = self.span[1] if self.span else max(step for line in self.lines for step, _ in line.thin)
        return max(end, self.first + 1)

    @property
    def has_split(self) -> bool:
        """Whether the border lies within the axis."""
        return self.split is not None and self.first < self.split < self.last

    @cached_property
    def ticks(self) -> list[float]:
        """Round values that span the lines, the levels and zero."""
        values = [value for line in self.lines for _, value in line.thin]
        values += [level.value for level in self.levels]
        return nice_ticks(min(0.0, *values), max(1e-9, *values))

    def x(self, step: float) -> float:
        """Where a step lies, from the left."""
        return self.left + (step - self.first) / (self.last - self.first) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Where a value lies, from the top."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    @property
    def names(self) -> list[Name]:
        """What stands at the ends of levels and lines, without overlap."""
        ends = [Name(level.name, level.css, self.y(level.value)) for level in self.levels]
        ends += [Name(line.name, line.css, self.y(line.thin[-1][1])) for line in self.lines]
        places = spread([name.y for name in ends], LINE_HEIGHT, self.bottom)
        return [name._replace(y=place) for name, place in zip(ends, places, strict=True)]

    def tick_label(self, value: float) -> str:
        """A value at the axis."""
        return f"{100 * value:.0f}\u2009%" if self.percent else f"{value:g}"

    def told(self, value: float) -> str:
        """A value in words."""
        return f"{100 * value:.1f} %" if self.percent else f"{value:.3g}"


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
