"""One validation or test: passes its images to the measures and collects their rows and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_gancompress.data.ledger import Ledger
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.evaluable import evaluable
from lightning_gancompress.evaluation.exported import ExportedFiles
from lightning_gancompress.evaluation.measure import Findings, Measure, Seen, Translated
from lightning_gancompress.tasks.role import Role

Key = tuple[int, str]  # position of a measure, and its key of a row


class Session:
    """Passes the images of an epoch to measures batch by batch, then computes their figures.

    Args:
        trainer: Trainer of the run.
        module: An `Evaluable`.
        measures: Measures in the order of their figures.
        exported: Exported files to measure as well.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        measures: Sequence[Measure],
        exported: ExportedFiles | None = None,
    ) -> None:
        self.trainer, self.module, self.measures = trainer, module, measures
        self.exported = exported or ExportedFiles([])
        self.task = evaluable(module).task
        process = trainer.strategy.root_device, trainer.global_rank, trainer.world_size
        self._images, self._reals = Ledger[Key](*process), Ledger[Key](*process)
        self._samples: dict[Role, Tensor] = {}

    @property
    def roles(self) -> list[Role]:
        """Compressed roles whose images have been added."""
        return [role for role in self.task.compressed if role in self._images.groups]

    def add(self, outputs: Mapping[Role, Mapping[str, Tensor]], batch: Mapping[str, Any]) -> None:
        """Measure the translated images of a batch.

        Args:
            outputs: Output of the module's step: images by role, then by `source`, `target` and generator.
            batch: The batch of the data module.
        """
        views = self.task.views(batch)
        for role, columns in outputs.items():
            source = columns["source"]
            generated = {name: columns[name] for name in evaluable(self.module).generators(role)}
            for name, model in self.exported.of(role).items():
                generated[name] = model(source.float().cpu()).to(source.device)
            images = Translated(
                role=role,
                source=source,
                target=columns.get("target"),
                generated=generated,
                index=views[role].get("index"),
                path=views[role].get("path"),
            )
            self._samples.setdefault(role, images.source[:1].float().cpu())
            rows = [measure.rows(self.trainer, self.module, images) for measure in self.measures]
            self._images.add(role, images.index, len(images.source), numbered(rows))

    def add_real(self, batch: Mapping[str, Any]) -> None:
        """Measure the real images of a batch."""
        index = self.task.target_index(batch)
        for role, images in self.task.targets(batch).items():
            if role in self.task.compressed:
                rows = [m.real_rows(self.trainer, self.module, role, images) for m in self.measures]
                self._reals.add(role, index[role], len(images), numbered(rows))

    def findings(self, role: Role) -> tuple[Seen, Findings]:
        """The number and sample of a role's images, and the figures of all measures.

        Must be called on all ranks. Removes the images of the role.

        Raises:
            UserError: A measure returns no `Findings`.
        """
        count, rows = self._images.gather(role)
        real = self._reals.gather(role)[1] if role in self._reals.groups else {}
        seen, total = Seen(role, count, self._samples.pop(role)), Findings()
        for number, measure in enumerate(self.measures):
            own = Seen(role, count, seen.sample, rows_of(number, rows), rows_of(number, real))
            findings = measure.findings(self.trainer, self.module, own)
            if not isinstance(findings, Findings):
                raise UserError(
                    f"{type(measure).__name__}.findings returned {type(findings).__name__}: it must return "
                    "lightning_gancompress.evaluation.measure.Findings."
                )
            total.add(findings)
        return seen, total


def numbered(rows: Sequence[Mapping[str, Tensor]]) -> dict[Key, Tensor]:
    """The rows of all measures in one mapping, keyed by position of the measure and key."""
    return {(number, key): values for number, own in enumerate(rows) for key, values in own.items()}


def rows_of(number: int, rows: Mapping[Key, Tensor]) -> dict[str, Tensor]:
    """The rows of the measure at position `number`."""
    return {key: values for (owner, key), values in rows.items() if owner == number}
