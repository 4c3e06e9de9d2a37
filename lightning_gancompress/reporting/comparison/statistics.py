"""Means over seeds, and significance of their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
    if a.std == b.std == 0:
        return float(a.mean == b.mean)
    from scipy.stats import ttest_ind_from_stats  # here, since it takes half a second

    return float(ttest_ind_from_stats(a.mean, a.std, a.n, b.mean, b.std, b.n, equal_var=False).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected by Holm's method for the family-wise error rate.

    The smallest of n is multiplied by n, the next by n - 1, and so on, and each is at least the one before.
    SciPy corrects for the false discovery rate only.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(order), 0.0
    for rank, index in enumerate(order):
        corrected[index] = largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
    return corrected


def pooled_std(samples: Sequence[Sample]) -> float:
    """Standard deviation over seeds, pooled over experiments; NaN where none has two seeds."""
    several = [sample for sample in samples if sample.n > 1]
    if not several:
        return math.nan
    squares = sum((s.n - 1) * s.std**2 for s in several)
    return math.sqrt(squares / sum(s.n - 1 for s in several))


def winner(samples: dict[str, Sample], better: Literal["lower", "higher"]) -> str | None:
    """The name of the best mean, if it differs from each of the others by Welch's test, corrected by Holm."""
    if len(samples) < 2:
        return None
    best = (min if better == "lower" else max)(samples, key=lambda name: samples[name].mean)
    tests = [welch(samples[best], sample) for name, sample in samples.items() if name != best]
    return best if max(holm(tests)) < SIGNIFICANCE else None
