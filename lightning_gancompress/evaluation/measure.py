"""What a measure is: rows of numbers of each image, and figures from the rows of all images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_gancompress.evaluation.metrics import Metric
from lightning_gancompress.evaluation.results import LatencyResult, RuntimeFacts
from lightning_gancompress.tasks.role import Role

Rows = dict[str, Tensor]


@dataclass(frozen=True)
class Translated:
    """The images of one batch for one role.

    Attributes:
        role: Of the generators.
        source: `(B, C, H, W)` in [-1, 1].
        target: What the generators should make of it, where there are pairs.
        generated: By the generators' names; the trained one comes last.
        index: Positions `(B,)` in the data set, where it numbers its images.
        path: Where the sources come from, where the data says so.
    """

    role: Role
    source: Tensor
    target: Tensor | None
    generated: dict[str, Tensor]
    index: Tensor | None = None
    path: list[str] | None = None


@dataclass(frozen=True)
class Seen:
    """All images of a test for one role, of all ranks, each once.

    Attributes:
        role: Of the generators.
        count: Number N of images that were translated.
        sample: The first source, `(1, C, H, W)`, on the CPU.
        rows: What the measure noted of each, `(N, ...)` by key.
        real: What it noted of each real image, `(M, ...)` by key.
    """

    role: Role
    count: int
    sample: Tensor
    rows: Rows = field(default_factory=dict)
    real: Rows = field(default_factory=dict)


@dataclass
class Findings:
    """What a measure found out about the generators of one role.

    Floats are logged as well; whole numbers, which are counts, are not.

    Attributes:
        networks: Figures by generator and metric.
        comparison: Figures of the student against the teacher.
        facts: How it was measured, by the measure's name: `{"miou": {"protocol": "quick"}}`.
        latency: How latencies were measured, by runtime.
    """

    networks: dict[str, dict[str, float | LatencyResult]] = field(default_factory=dict)
    comparison: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    latency: dict[str, RuntimeFacts] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        """Take over what another measure found."""
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
    """A callback that measures generators at test; `Evaluation` writes what it finds among its own figures.

    Lightning's hooks are there to load what it needs (`setup` with stage `test`) and to free it (`teardown`).

    Attributes:
        metrics: How its figures are shown in tables; others are shown by their plain names.
    """

    metrics: ClassVar[tuple[Metric, ...]] = ()

    def rows(self, trainer: Trainer, pl_module: LightningModule, images: Translated) -> Mapping[str, Tensor]:
        """What to keep of a batch of translated images: `(B, ...)` by key, the same keys in every batch."""
        return {}

    def real_rows(
        self, trainer: Trainer, pl_module: LightningModule, role: Role, images: Tensor
    ) -> Mapping[str, Tensor]:
        """The same of real images `(B, C, H, W)` such as the generators of a role should make."""
        return {}

    @abstractmethod
    def findings(self, trainer: Trainer, pl_module: LightningModule, seen: Seen) -> Findings:
        """Figures from the rows of all images; called on all ranks, once for each role."""
