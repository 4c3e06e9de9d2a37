"""The quality that a network has to keep: a figure of its images, and the worst value to accept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.metrics import (
    ACTIVATION_BYTES,
    LATENCY,
    LATENCY_COMPILE,
    LATENCY_ONNX,
    LATENCY_OPENVINO,
    registered,
)
from lightning_gancompress.evaluation.results import COSTS, TestResults

_COSTS = {*COSTS, ACTIVATION_BYTES, LATENCY, LATENCY_COMPILE, LATENCY_ONNX, LATENCY_OPENVINO}


@dataclass(frozen=True)
class Quality:
    """A figure and its limit.

    Attributes:
        limit: Worst value that is accepted, as the figure is stored (KID without the factor 1000).
        metric: Name of the figure in `results.json`.
    """

    limit: float
    metric: str

    def __post_init__(self) -> None:
        """Refuse what a network costs, which falls with the budget.

        Raises:
            UserError: The figure is such a one.
        """
        if self.metric in _COSTS:
            raise UserError(
                f"model.quality_metric: {self.metric} is no quality, a smaller network has less of it: name "
                "a figure of its images, such as teacher_l1."
            )

    @property
    def higher(self) -> bool:
        """Whether higher figures are better.

        Raises:
            UserError: That is not known of this figure.
        """
        known = registered(self.metric)
        if known is None or known.better is None:
            raise UserError(
                f"model.quality_metric: whether more or less {self.metric} is better is not known: name "
                "teacher_l1, l1, ssim, teacher_coverage or fid_768, say, or register yours with `better`."
            )
        return known.better == "higher"

    def __str__(self) -> str:
        """Such as `teacher_l1 of at most 0.12`."""
        return f"{self.metric} of at {'least' if self.higher else 'most'} {self.limit:g}"

    def kept_by(self, figure: float) -> bool:
        """Whether a figure is as good as the limit; one that is not a number isn't."""
        return figure >= self.limit if self.higher else figure <= self.limit

    def figure(self, logged: Mapping[str, float], tests: Iterable[TestResults]) -> float:
        """The figure of a network, the worst of its directions.

        Args:
            logged: What a validation has logged, by name: `val/teacher_l1`, `val/AtoB/teacher_l1`.
            tests: Results of a test, one for each direction, which are used if the validation lacks it.

        Raises:
            UserError: Neither has it.
        """
        of_validation = {name: v for name, v in logged.items() if name.startswith("val/")}
        found = [v for name, v in of_validation.items() if name.rpartition("/")[2] == self.metric]
        tested = [test.networks[test.trained].figures | test.comparison for test in tests]
        found = found or [figures[self.metric] for figures in tested if self.metric in figures]
        if not found:
            known = {name.rpartition("/")[2] for name in of_validation}.union(*tested) - _COSTS
            raise UserError(
                f"model.quality_metric: {self.metric} was not measured: go on (fit --ckpt_path) with one of "
                f"{', '.join(sorted(known))}, or with an Evaluation in trainer.callbacks that measures it."
            )
        if any(map(math.isnan, found)):
            return math.nan  # min and max would pass over it
        return min(found) if self.higher else max(found)
