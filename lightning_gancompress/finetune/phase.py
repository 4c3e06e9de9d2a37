"""The fine-tuning phase: the student trains with the task's losses and distillation losses."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from lightning_gancompress.finetune.distillation import Distillation
from lightning_gancompress.tasks import Images, Losses
from lightning_gancompress.training.gan_update import GENERATOR, gan_update, trained_sides
from lightning_gancompress.training.image_pool import ImagePools
from lightning_gancompress.training.phase import Logs, Optimizers, Phase, PhaseName, Position, Schedule
from lightning_gancompress.training.teacher_student import TeacherStudent


class FinetunePhase(Phase):
    """Trains the student's small networks.

    Args:
        networks: Teacher and student; the constructor makes the student's weights require gradients.
        schedule: Learning rates.
        pools: Earlier images that the discriminators are shown in place of new ones.
        distillation: Losses against the teacher, besides the task's losses.
        began: Epoch of the run in which the fine-tuning begins.
        discriminator_every: Steps of the generators per step of the discriminators.
    """

    name: PhaseName = "finetune"

    def __init__(
        self,
        networks: TeacherStudent,
        schedule: Schedule,
        pools: ImagePools,
        distillation: Distillation | None,
        began: int,
        discriminator_every: int = 1,
    ) -> None:
        self.networks, self.schedule, self.pools = networks, schedule, pools
        self.distillation, self.began = distillation, began
        self.discriminator_every = discriminator_every
        networks.student.requires_grad_(True)
        for role in networks.frozen:
            networks.student[role].requires_grad_(False)
        if distillation is not None:
            distillation.prepare(networks.task, networks.teacher, networks.student, networks.sources())

    def trained(self) -> dict[str, nn.Module]:
        """Generators with the 1x1 convolutions of the distillation, and discriminators."""
        sides = trained_sides(self.networks.task, self.networks.student)
        if self.distillation is not None and GENERATOR in sides:
            sides[GENERATOR] = nn.ModuleList([sides[GENERATOR], self.distillation.adapters])
        return sides

    def optimizer(self, name: str) -> Optimizer:
        """Adam, as the schedule sets it."""
        return self.schedule.adam(self.trained()[name])

    def lr_factor(self, epoch: int) -> float:
        """Constant, then linear to zero."""
        return self.schedule.factor(epoch - self.began)

    def averaged(self) -> list[nn.Module]:
        """The student's networks except frozen ones."""
        frozen = self.networks.frozen
        return [network for role, network in self.networks.student.items() if role not in frozen]

    def set_modes(self) -> None:
        """Put the student into training mode, and the teacher and frozen networks into eval mode."""
        self.networks.teacher.eval()
        self.networks.student.train()
        for role in self.networks.frozen:
            self.networks.student[role].eval()

    def step(self, batch: dict[str, Any], at: Position, optimizers: Optimizers) -> Logs:
        """One GAN update with the distillation losses; the teacher translates the batch at most once."""
        networks, distillation = self.networks, self.distillation
        student, task = networks.student, networks.task
        updates = (at.epoch - self.began) * at.updates + at.update
        due = updates % self.discriminator_every == 0
        if distillation is None:
            batch = networks.with_targets(batch)
            return gan_update(task, student, batch, self.pools, optimizers, discriminators=due)
        with distillation.watching(networks.teacher, student):
            references = networks.references(batch) if distillation.compares else {}
            batch = networks.with_targets(batch, references)

            def extra(images: Images) -> Losses:
                losses: Losses = distillation(task, networks.teacher, batch, images, references)
                return losses

            return gan_update(task, student, batch, self.pools, optimizers, extra, distillation.task, due)
