"""Teacher training: the original losses, schedules and update order of the task."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_gancompress.modules.base import GANModule
from lightning_gancompress.modules.gan_step import gan_step, linear_decay
from lightning_gancompress.tasks import Pix2Pix


class TeacherModule(GANModule):
    """Trains a generator and a discriminator from scratch, as upstream does.

    Args:
        generator: For example UnetGenerator or ResnetGenerator.
        discriminator: It reads source and image side by side, so its input channels are the sum of both.
        task: The losses.
        lr: Adam's learning rate.
        beta1: Adam's first momentum.
        epochs: Epochs at the full learning rate (upstream: 100).
        decay_epochs: Further epochs in which it falls linearly towards zero (upstream: 100).
    """

    phase = "teacher"

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        task: Pix2Pix | None = None,
        lr: float = 2e-4,
        beta1: float = 0.5,
        epochs: int = 100,
        decay_epochs: int = 100,
    ) -> None:
        super().__init__(lr, beta1)
        self.remember_arguments()
        self.task = task or Pix2Pix()
        self.networks = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
        self.epochs, self.decay_epochs = epochs, decay_epochs
        self.specs = {f"networks.{role}": self.describe(role, net) for role, net in self.networks.items()}

    @property
    def total_epochs(self) -> int:
        """Both parts of the schedule."""
        return self.epochs + self.decay_epochs

    def lr_factor(self, epoch: int) -> float:
        """Constant, then linear to zero: upstream's `linear` policy."""
        return linear_decay(epoch, self.epochs, self.decay_epochs)

    def trained_networks(self) -> dict[str, nn.Module]:
        """Generator and discriminator."""
        return dict(self.networks.items())

    def generators(self) -> dict[str, nn.Module]:
        """The generator in training."""
        return {"generator": self.networks["generator"]}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """One step of the discriminator, then one of the generator, on the same images."""
        gan_step(self, self.task, self.networks, batch)
        self.average_statistics()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of something else."""
        self.require_kind(
            checkpoint, "teacher", "give the CompressionModule's settings to go on with a compression"
        )
        super().on_load_checkpoint(checkpoint)
