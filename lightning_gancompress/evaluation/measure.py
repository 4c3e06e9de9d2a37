"""The base class of measures: rows of numbers per image, and figures from the rows of all images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_gancompress.evaluation.metrics import TEACHER, Metric
from lightning_gancompress.evaluation.results import LatencyResult, RuntimeFacts
from lightning_gancompress.tasks.role import Role

Rows = dict[str, Tensor]


@dataclass(frozen=True)
class Translated:
    """The images of one batch for one role.

    Attributes:
        role: Role of the generators.
        source: Sources `(B, C, H, W)` in [-1, 1].
        target: Targets `(B, C, H, W)` in [-1, 1]; None without pairs.
        generated: Generated images `(B, C, H, W)` by name of the generator; the trained one comes last, but
            for exported files.
        index: Positions `(B,)` in the data set; None where it does not number its images.
        path: Paths of the B sources; None where the data has none.
    """

    role: Role
    source: Tensor
    target: Tensor | None
    generated: dict[str, Tensor]
    index: Tensor | None = None
    path: list[str] | None = None


@dataclass(frozen=True)
class Seen:
    """The rows of all images of a test for one role, of all ranks, each image once.

    Attributes:
        role: Role of the generators.
        count: Number N of translated images.
        sample: First source, `(1, C, H, W)`, on the CPU.
        rows: The measure's `rows` of all translated images, `(N, ...)` by key.
        real: The measure's `real_rows` of all real images, `(M, ...)` by key.
    """

    role: Role
    count: int
    sample: Tensor
    rows: Rows = field(default_factory=dict)
    real: Rows = field(default_factory=dict)


@dataclass
class Findings:
    """The figures of a measure for the generators of one role.

    Figures that are floats are also logged; integers, which are counts, are not.

    Attributes:
        networks: Figures by generator and metric.
        comparison: Figures of the student against the teacher, by metric.
        facts: How figures were measured, by metric: `{"miou": {"protocol": "quick"}}`.
        latency: How latencies were measured, by runtime.
    """

    networks: dict[str, dict[str, float | LatencyResult]] = field(default_factory=dict)
    comparison: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    latency: dict[str, RuntimeFacts] = field(default_factory=dict)

    @classmethod
    def beside_teacher(cls, figures: Mapping[str, Mapping[str, float]]) -> Findings:
        """Figures that compare a generator with the teacher, by generator and metric without `teacher_`.

        Those of the student are the comparison; those of exported files stand among their own.
        """
        named = {key: {TEACHER + name: v for name, v in own.items()} for key, own in figures.items()}
        return cls(comparison=named.pop("student", {}), networks={k: {**v} for k, v in named.items()})

    def add(self, other: Findings) -> None:
        """Add the figures and facts of another measure."""
        for name, figures in other.networks.items():
            self.networks.setdefault(name, {}).update(figures)
        self.comparison |= other.comparison
        self.facts |= other.facts
        self.latency |= other.latency

    def logged(self) -> Iterator[tuple[str, float]]:
        """Floats by their names in the log: `student/l1`, `teacher_l1` and the like."""
        for name, figures in self.networks.items():
            yield from ((f"{name}/{key}", v) for key, v in figures.items() if isinstance(v, float))
        yield from ((key, value) for key, value in self.comparison.items() if isinstance(value, float))


class Measure(Callback, ABC):
    """A callback that measures generators at test; `Evaluation` writes its figures to the results.

    A measure may load networks in Lightning's hook `setup` (stage `test`) and free them in `teardown`.

    Attributes:
        metrics: How tables show its figures; a figure without an entry is shown by its plain name.
    """

    metrics: ClassVar[tuple[Metric, ...]] = ()

    def rows(self, trainer: Trainer, pl_module: LightningModule, images: Translated) -> Mapping[str, Tensor]:
        """Rows `(B, ...)` by key of a batch of translated images; the same keys in every batch."""
        return {}

    def real_rows(
        self, trainer: Trainer, pl_module: LightningModule, role: Role, images: Tensor
    ) -> Mapping[str, Tensor]:
        """Rows `(B, ...)` by key of real images `(B, C, H, W)` of the generators' target domain."""
        return {}

    @abstractmethod
    def findings(self, trainer: Trainer, pl_module: LightningModule, seen: Seen) -> Findings:
        """Figures from the rows of all images; called on all ranks, once per role."""
