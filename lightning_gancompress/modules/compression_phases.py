"""Construction of the phases of a compression, from files, from the phase before, or from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_gancompress.checkpoints.header import Header
from lightning_gancompress.checkpoints.training import split_prefix
from lightning_gancompress.errors import UserError
from lightning_gancompress.finetune.distillation import Distillation
from lightning_gancompress.finetune.phase import FinetunePhase
from lightning_gancompress.modules.check_networks import check_before_search
from lightning_gancompress.modules.teacher_loader import NetworkAndSpec, TeacherLoader
from lightning_gancompress.networks import renew
from lightning_gancompress.search.phase import Pruning, SearchPhase, counted
from lightning_gancompress.search.policy import PruningPolicy
from lightning_gancompress.tasks import Role, Side
from lightning_gancompress.training.image_pool import ImagePools
from lightning_gancompress.training.phase import Schedule
from lightning_gancompress.training.teacher_student import TeacherStudent


class CompressionPhases:
    """Constructs the search phase and the fine-tuning phase, and the networks that they need.

    Args:
        networks: Teacher and student; empty until `build` or `restore`.
        loader: Loads or makes their networks.
        pruning: Options of the pruning.
        schedule: Learning rates of the fine-tuning.
        distillation: Distillation losses of the fine-tuning.
        pools: Earlier images that the discriminators are shown in place of new ones.
        discriminator_every: Steps of the generators per step of the discriminators in the fine-tuning.
    """

    def __init__(
        self,
        networks: TeacherStudent,
        loader: TeacherLoader,
        pruning: Pruning,
        schedule: Schedule,
        distillation: Distillation | None,
        pools: ImagePools,
        discriminator_every: int,
    ) -> None:
        self.networks, self.loader, self.pruning = networks, loader, pruning
        self.schedule, self.distillation, self.pools = schedule, distillation, pools
        self.discriminator_every = discriminator_every

    def build(self) -> None:
        """Load the teacher from its files and copy it to the student, unless this is done already.

        Raises:
            UserError: A network can't be loaded, or no loss of the fine-tuning compares images with sources.
        """
        if len(self.networks.teacher):
            return
        for role, (network, spec) in self.loader.load().items():
            self.networks.adopt_teacher(role, network, spec)
        if self.distillation is None and not self.loader.cycles(self.networks.teacher):
            raise UserError(
                "model.distill_weight: 0 leaves nothing that ties a translation to its source, since the "
                "other generator, and with it the cycle, is left out: set it to 10, say."
            )

    def _make_missing(self) -> dict[Role, NetworkAndSpec | None]:
        """New networks that the fine-tuning needs and the teacher lacks; None for those left out."""
        teacher, specs = self.networks.teacher, self.networks.specs
        loaded = {Role(role): (network, specs[f"teacher.{role}"]) for role, network in teacher.items()}
        return self.loader.make_missing(loaded, self.networks.inputs)

    def search(self, policy: PruningPolicy, trainer: Trainer, seed: int) -> SearchPhase:
        """The search phase of `policy`, after all networks have been tried on a batch of the data.

        Args:
            policy: The policy that searches.
            trainer: The trainer, which has the data.
            seed: Seed of the run.

        Raises:
            UserError: A network can't do what the search or the fine-tuning needs.
        """
        searches = policy.search_epochs > 0
        check_before_search(self.networks, self._make_missing, self.distillation, trainer, searches)
        search = SearchPhase(self.networks, self.pruning, policy, self.schedule.beta1, seed=seed)
        for _, pruned in search.pruned():
            rank_zero_info(pruned.summary())
        search.begin()
        return search

    def masked(self, sides: list[Side]) -> SearchPhase:
        """A search phase to evaluate a checkpoint's masks of `sides`: without a policy, at any budget."""
        return SearchPhase(self.networks, self.pruning, None, budgets=dict.fromkeys(sides, 1.0))

    def cut(self, search: SearchPhase, masks: Mapping[Side, Tensor]) -> None:
        """Replace the masked networks by small dense ones, and add new networks where weights are missing.

        Args:
            search: The finished search phase.
            masks: Final masks, `(total,)` of zeros and ones per side.
        """
        for summary in search.cut(masks):
            rank_zero_info(summary)
        self._add_missing()

    def begin_at_border(self, seed: int, path: Path) -> None:
        """Prepare small networks, restored from a search that stood at the border, for the fine-tuning.

        Args:
            seed: Seed of the weights of `fresh` networks.
            path: Path of the checkpoint, for messages.

        Raises:
            UserError: They are larger than their budgets.
        """
        for side in self.pruning.sides(self.networks):
            if self.pruning.student_weights == "fresh":
                for network in self.networks.group(side).values():
                    renew(network, seed=seed)
            try:
                rank_zero_info(counted(self.networks, side, self.pruning))
            except AssertionError as error:
                raise UserError(
                    f"{path} is damaged, its masks keep more than its budget: copy it again, or begin anew."
                ) from error
        self._add_missing()

    def _add_missing(self) -> None:
        for role, new in self._make_missing().items():
            if new is not None:
                self.networks.adopt_student(role, *new)

    def finetune(self, began: int) -> FinetunePhase:
        """The fine-tuning phase of the student's current networks, from the epoch `began`."""
        return FinetunePhase(
            self.networks, self.schedule, self.pools, self.distillation, began, self.discriminator_every
        )

    def restore(self, owner: str, header: Header, checkpoint: dict[str, Any], path: Path) -> None:
        """Build the networks of an `owner`, "teacher" or "student", from a checkpoint."""
        header.require_networks(owner, path)
        adopt = self.networks.adopt_teacher if owner == "teacher" else self.networks.adopt_student
        for prefix in header.networks:
            prefix_owner, role = split_prefix(prefix)
            if prefix_owner == owner:
                adopt(role, *self.loader.read(checkpoint, path, prefix))
