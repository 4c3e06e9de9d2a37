"""Teacher training: the original losses, schedules and update order of the task."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from lightning_gancompress.tasks import Task
from lightning_gancompress.training.gan_update import gan_update, trained_sides
from lightning_gancompress.training.image_pool import ImagePools
from lightning_gancompress.training.phase import Logs, Optimizers, Phase, PhaseName, Position, Schedule


class TeacherPhase(Phase):
    """Trains the generators and discriminators of a task.

    Args:
        task: Defines the losses.
        networks: Generators and discriminators by role.
        schedule: Learning rates.
        pools: Earlier images that the discriminators are shown in place of new ones.
    """

    name: PhaseName = "teacher"

    def __init__(self, task: Task, networks: nn.ModuleDict, schedule: Schedule, pools: ImagePools) -> None:
        self.task, self.networks, self.schedule, self.pools = task, networks, schedule, pools

    def trained(self) -> dict[str, nn.Module]:
        """All generators and all discriminators."""
        return trained_sides(self.task, self.networks)

    def optimizer(self, name: str) -> Optimizer:
        """Adam, as the schedule sets it."""
        return self.schedule.adam(self.trained()[name])

    def lr_factor(self, epoch: int) -> float:
        """Constant, then linear to zero: upstream's `lr_policy` `linear`."""
        return self.schedule.factor(epoch - self.began)

    def step(self, batch: dict[str, Any], at: Position, optimizers: Optimizers) -> Logs:
        """One step of all discriminators and one of all generators, on the same images."""
        return gan_update(self.task, self.networks, batch, self.pools, optimizers)
