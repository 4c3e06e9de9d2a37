"""The LightningModule of teacher training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from lightning_gancompress.checkpoints.header import Header
from lightning_gancompress.lightning_internals import trainer_of
from lightning_gancompress.modules.base import ClipAlgorithm, GANModule
from lightning_gancompress.modules.counterparts import discriminating, swapped
from lightning_gancompress.modules.same_run import (
    facts,
    require_same_run,
    warn_of_counting,
    warn_of_other_inputs,
)
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.options import Count, CountOrNone, Positive, Rate, Share, checked
from lightning_gancompress.tasks import Role, Task
from lightning_gancompress.training.inputs import Inputs
from lightning_gancompress.training.phase import Schedule
from lightning_gancompress.training.teacher_phase import TeacherPhase


class TeacherModule(GANModule):
    """Trains generators and discriminators from scratch, as upstream does.

    Args:
        generator: For example UnetGenerator or ResnetGenerator. For CycleGAN a second one of the same class
            and arguments is made for the other direction.
        discriminator: For Pix2Pix it reads source and image concatenated along channels; for CycleGAN it
            reads an image alone, and a second one of the same class and arguments is made.
        task: Networks and losses; None is Pix2Pix.
        lr: Adam's learning rate.
        beta1: Adam's decay rate of the first moment.
        epochs: Epochs at the full learning rate (upstream: 100).
        decay_epochs: Further epochs in which it falls linearly towards zero (upstream: 100).
        gradient_clip_val: Limit of the gradients in each step of each optimizer; None for none.
        gradient_clip_algorithm: Whether the limit is of the `norm` of all gradients of an optimizer, or of
            each `value`.
        accumulate_grad_batches: Batches whose gradients are averaged for a step of the optimizers; the last
            step of an epoch may take fewer.
    """

    @checked
    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        task: Task | None = None,
        lr: Rate = 2e-4,
        beta1: Share = 0.5,
        epochs: CountOrNone = 100,
        decay_epochs: CountOrNone = 100,
        gradient_clip_val: Positive | None = None,
        gradient_clip_algorithm: ClipAlgorithm = "norm",
        accumulate_grad_batches: Count = 1,
    ) -> None:
        super().__init__(task, gradient_clip_val, gradient_clip_algorithm, accumulate_grad_batches)
        self.remember_arguments()
        self.schedule = Schedule(epochs, decay_epochs, lr, beta1)
        self.networks = nn.ModuleDict()
        self.specs: dict[str, NetworkSpec] = {}
        self.inputs = Inputs(self.task)
        own, other = self.describe("generator", generator), self.describe("discriminator", discriminator)
        self._adopt(self.task.generators, generator, own, swapped(own))
        self._adopt(self.task.discriminators, discriminator, other, discriminating(other, own))
        self.phase = TeacherPhase(self.task, self.networks, self.schedule, self.pools)

    def _adopt(self, roles: tuple[Role, ...], network: nn.Module, *specs: NetworkSpec) -> None:
        for role, spec in zip(roles, specs, strict=False):
            self.networks[role] = spec.build() if role in roles[1:] else network.float()
            self.specs[f"networks.{role}"] = spec

    @property
    def total_epochs(self) -> int:
        """Epochs at the full learning rate plus epochs of decay."""
        return self.shortened(self.schedule.length)

    def generators(self, role: Role) -> dict[str, nn.Module]:
        """The trained generator, named `generator`."""
        return {"generator": self.networks[role]}

    def header(self) -> Header:
        """The header of a checkpoint of the current state."""
        return Header(
            kind="teacher",
            phase=self.phase.name,
            networks=self.specs,
            **facts(self),
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is of a teacher training with these networks.

        Raises:
            UserError: It is not, or it contradicts the options of this run.
        """
        trainer = trainer_of(self)
        path = Path(str(trainer.ckpt_path if trainer is not None else "the checkpoint"))
        remedy = "give the CompressionModule's settings to go on with a compression"
        header = self.header_of(checkpoint, "teacher", path, remedy)
        if self.fitting:
            require_same_run(self, header, checkpoint, path)
            warn_of_counting(self, header)
        else:
            warn_of_other_inputs(header.preprocessing, self, path)
        super().on_load_checkpoint(checkpoint)
