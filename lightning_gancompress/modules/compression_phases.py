"""The phases of a compression: made from files, from each other, and from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_gancompress.checkpoints.header import Header
from lightning_gancompress.checkpoints.training import split_prefix
from lightning_gancompress.errors import UserError
from lightning_gancompress.finetune.distillation import Distillation
from lightning_gancompress.finetune.phase import FinetunePhase
from lightning_gancompress.modules.check_networks import check_before_search
from lightning_gancompress.modules.teacher_loader import Made, TeacherLoader
from lightning_gancompress.search.phase import Pruning, SearchPhase
from lightning_gancompress.search.policy import PruningPolicy
from lightning_gancompress.tasks import Role, Side
from lightning_gancompress.training.image_pool import ImagePools
from lightning_gancompress.training.phase import Schedule
from lightning_gancompress.training.teacher_student import TeacherStudent


class CompressionPhases:
    """Makes the search, and the fine-tuning out of it.

    Args:
        pair: Teacher and student, still without networks.
        loader: Where their networks come from.
        pruning: What is asked of the small networks.
        schedule: Of the fine-tuning.
        distillation: Of the fine-tuning.
        pools: Earlier images of the fine-tuning.
    """

    def __init__(
        self,
        pair: TeacherStudent,
        loader: TeacherLoader,
        pruning: Pruning,
        schedule: Schedule,
        distillation: Distillation | None,
        pools: ImagePools,
    ) -> None:
        self.pair, self.loader, self.pruning = pair, loader, pruning
        self.schedule, self.distillation, self.pools = schedule, distillation, pools

    def build(self) -> None:
        """Load the teacher from its files and make the student from it, unless they are here.

        Raises:
            UserError: A network can't be loaded, or the fine-tuning would have nothing to learn from.
        """
        if len(self.pair.teacher):
            return
        for role, (network, spec) in self.loader.load().items():
            self.pair.adopt_teacher(role, network, spec)
        if self.distillation is None and not self.loader.cycles(self.pair.teacher):
            raise UserError(
                "model.distill_weight: 0 leaves nothing that ties a translation to its source, since the "
                "other generator, and with it the cycle, is left out: set it to 10, say."
            )

    def _make_missing(self) -> dict[Role, Made | None]:
        """Networks that the fine-tuning wants and the teacher has not."""
        teacher, specs = self.pair.teacher, self.pair.specs
        here = {Role(role): (network, specs[f"teacher.{role}"]) for role, network in teacher.items()}
        return self.loader.make_missing(here, self.pair.inputs)

    def search(self, policy: PruningPolicy, trainer: Trainer) -> SearchPhase:
        """Put the student under masks, once all that the run will ask of the networks has been tried."""
        searches = policy.search_epochs > 0
        check_before_search(self.pair, self._make_missing, self.distillation, trainer, searches)
        search = SearchPhase(self.pair, self.pruning, policy, self.schedule.beta1)
        for _, pruned in search.pruned():
            rank_zero_info(pruned.summary())
        search.begin()
        return search

    def look_at(self, masked: list[Side]) -> SearchPhase:
        """The search of a checkpoint, to look at its masks: without a policy, and at any budget."""
        return SearchPhase(self.pair, self.pruning, None, budgets=dict.fromkeys(masked, 1.0))

    def cut(self, search: SearchPhase, masks: Mapping[Side, Tensor], seed: int, device: torch.device) -> None:
        """Replace the masked networks by small dense ones, and make those that nobody has.

        Args:
            search: It ends.
            masks: The final ones, `(total,)` of zeros and ones per side.
            seed: Of the weights of `fresh` networks.
            device: Where networks go that are made afresh.
        """
        for words in search.cut(masks, seed):
            rank_zero_info(words)
        for role, made in self._make_missing().items():
            if made is not None:
                self.pair.adopt_student(role, made[0].to(device), made[1])

    def finetune(self, began: int, device: torch.device) -> FinetunePhase:
        """Train what the student has now, from the epoch `began`."""
        phase = FinetunePhase(self.pair, self.schedule, self.pools, self.distillation, began)
        if self.distillation is not None:
            self.distillation.to(device)
        return phase

    def restore(self, part: str, header: Header, checkpoint: dict[str, Any], path: Path) -> None:
        """Take over the networks of the "teacher" or the "student" from a checkpoint."""
        adopt = self.pair.adopt_teacher if part == "teacher" else self.pair.adopt_student
        for prefix in header.networks:
            owner, role = split_prefix(prefix)
            if owner == part:
                adopt(role, *self.loader.read(checkpoint, path, prefix))
