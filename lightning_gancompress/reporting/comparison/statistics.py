"""Means over seeds, and whether two of them differ by more than the seeds do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Sample:
    """Mean and sample standard deviation (n - 1 in the denominator; NaN of one value) over n seeds."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """Summary of one value per seed."""
        std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        return cls(float(np.mean(values)), std, len(values))


def welch(a: Sample, b: Sample) -> float:
    """Two-sided p-value of Welch's t-test for equal means; 1 where a sample has one value only."""
    if min(a.n, b.n) < 2:
        return 1.0
    one, other = a.std**2 / a.n, b.std**2 / b.n
    if one + other == 0:
        return float(a.mean == b.mean)
    freedom = (one + other) ** 2 / (one**2 / (a.n - 1) + other**2 / (b.n - 1))
    return student_t(abs(a.mean - b.mean) / math.sqrt(one + other), freedom)


def student_t(t: float, freedom: float) -> float:
    """Probability that a variable of Student's distribution is beyond `t` on either side.

    With t = sqrt(freedom) tan(angle) its density is cos(angle) ** (freedom - 1), up to a factor.
    """

    def integral(low: float, high: float) -> float:
        edges = np.linspace(low, high, 4001)
        return float(np.mean(np.cos((edges[1:] + edges[:-1]) / 2) ** (freedom - 1)) * (high - low))

    return integral(math.atan(t / math.sqrt(freedom)), math.pi / 2) / integral(0, math.pi / 2)


def pooled_std(samples: Sequence[Sample]) -> float:
    """Standard deviation over seeds, pooled over experiments; NaN where none has two seeds."""
    several = [sample for sample in samples if sample.n > 1]
    if not several:
        return math.nan
    squares = sum((s.n - 1) * s.std**2 for s in several)
    return math.sqrt(squares / sum(s.n - 1 for s in several))


def winner(samples: dict[str, Sample], lower: bool) -> str | None:
    """The name of the best mean, if by Welch's test it differs from each of the others."""
    if len(samples) < 2:
        return None
    best = (min if lower else max)(samples, key=lambda name: samples[name].mean)
    rivals = [sample for name, sample in samples.items() if name != best]
    return best if all(welch(samples[best], rival) < SIGNIFICANCE for rival in rivals) else None
