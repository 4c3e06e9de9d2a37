"""One validation or test: the images that pass, and what the measures make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.ledger import Ledger
from lightning_gancompress.evaluation.measure import Findings, Measure, Seen, Translated
from lightning_gancompress.evaluation.translator import translator
from lightning_gancompress.tasks.role import Role

Key = tuple[int, str]  # a measure by its place, and what it calls a row


class Session:
    """Shows the images of an epoch to measures, and asks them for figures when all are seen.

    Args:
        trainer: Of the run.
        module: A `Translator`.
        measures: In the order of their figures.
    """

    def __init__(self, trainer: Trainer, module: LightningModule, measures: Sequence[Measure]) -> None:
        self.trainer, self.module, self.measures = trainer, module, measures
        self.task = translator(module).task
        place = trainer.strategy.root_device, trainer.global_rank, trainer.world_size
        self._images, self._reals = Ledger[Key](*place), Ledger[Key](*place)
        self._samples: dict[Role, Tensor] = {}

    @property
    def roles(self) -> list[Role]:
        """Of the generators whose images were seen."""
        return [role for role in self.task.compressed if role in self._images.groups]

    def see(self, outputs: Mapping[Role, Mapping[str, Tensor]], batch: Mapping[str, Any]) -> None:
        """Show what the generators made of a batch.

        Args:
            outputs: Of the module's step: by role, then by `source`, `target` and generators' names.
            batch: As the data module made it.
        """
        views = self.task.views(batch)
        for role, columns in outputs.items():
            images = Translated(
                role=role,
                source=columns["source"],
                target=columns.get("target"),
                generated={name: columns[name] for name in translator(self.module).generators(role)},
                index=views[role].get("index"),
                path=views[role].get("path"),
            )
            self._samples.setdefault(role, images.source[:1].float().cpu())
            rows = [measure.rows(self.trainer, self.module, images) for measure in self.measures]
            self._images.add(role, images.index, len(images.source), numbered(rows))

    def see_real(self, batch: Mapping[str, Any]) -> None:
        """Show the real images of a batch."""
        index = self.task.target_index(batch)
        for role, images in self.task.targets(batch).items():
            if role in self.task.compressed:
                rows = [m.real_rows(self.trainer, self.module, role, images) for m in self.measures]
                self._reals.add(role, index[role], len(images), numbered(rows))

    def findings(self, role: Role) -> tuple[Seen, Findings]:
        """The images of a role, and what all measures found out about them; to be called on all ranks.

        Raises:
            UserError: A measure's findings are of another type.
        """
        count, rows = self._images.gather(role)
        real = self._reals.gather(role)[1] if role in self._reals.groups else {}
        seen, found = Seen(role, count, self._samples.pop(role)), Findings()
        for number, measure in enumerate(self.measures):
            own = Seen(role, count, seen.sample, of(number, rows), of(number, real))
            more = measure.findings(self.trainer, self.module, own)
            if not isinstance(more, Findings):
                raise UserError(
                    f"{type(measure).__name__}.findings returned {type(more).__name__}: it must return "
                    "lightning_gancompress.evaluation.measure.Findings."
                )
            found.add(more)
        return seen, found


def numbered(rows: Sequence[Mapping[str, Tensor]]) -> dict[Key, Tensor]:
    """The rows of all measures together."""
    return {(number, key): values for number, own in enumerate(rows) for key, values in own.items()}


def of(number: int, rows: Mapping[Key, Tensor]) -> dict[str, Tensor]:
    """The rows of one measure."""
    return {key: values for (owner, key), values in rows.items() if owner == number}
