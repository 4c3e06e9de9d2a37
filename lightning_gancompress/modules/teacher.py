"""Teacher training: the original losses, schedules and update order of the task."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from lightning_gancompress.modules.base import GANModule
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.tasks import Task
from lightning_gancompress.training.gan_update import gan_update, linear_decay


class TeacherModule(GANModule):
    """Trains generators and discriminators from scratch, as upstream does.

    Args:
        generator: For example UnetGenerator or ResnetGenerator. CycleGAN makes the one of the other direction
            after its pattern.
        discriminator: For Pix2Pix it reads source and image side by side, so its input channels are the sum
            of both; for CycleGAN it reads an image, and the second one is made after its pattern.
        task: Networks and losses; None is Pix2Pix.
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
        task: Task | None = None,
        lr: float = 2e-4,
        beta1: float = 0.5,
        epochs: int = 100,
        decay_epochs: int = 100,
    ) -> None:
        super().__init__(task, lr, beta1)
        self.remember_arguments()
        self.epochs, self.decay_epochs = epochs, decay_epochs
        self.networks = nn.ModuleDict()
        pattern, judge = self.describe("generator", generator), self.describe("discriminator", discriminator)
        self._adopt(self.task.generators, generator, pattern, swapped(pattern))
        self._adopt(self.task.discriminators, discriminator, judge, judging(judge, pattern))

    def _adopt(self, roles: tuple[str, ...], network: nn.Module, *specs: NetworkSpec) -> None:
        for role, spec in zip(roles, specs, strict=False):
            self.networks[role] = spec.build() if role in roles[1:] else network
            self.specs[f"networks.{role}"] = spec

    @property
    def total_epochs(self) -> int:
        """Both parts of the schedule."""
        return self.epochs + self.decay_epochs

    def lr_factor(self, epoch: int) -> float:
        """Constant, then linear to zero: upstream's `linear` policy."""
        return linear_decay(epoch, self.epochs, self.decay_epochs)

    def trained_networks(self) -> dict[str, nn.Module]:
        """Generators and discriminators."""
        return by_kind(self.task, self.networks)

    def generators(self, role: str) -> dict[str, nn.Module]:
        """The generator in training."""
        return {"generator": self.networks[role]}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """One step of all discriminators and one of all generators, on the same images."""
        gan_update(self, self.task, self.networks, batch)
        self.average_statistics()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of something else."""
        self.require_kind(
            checkpoint, "teacher", "give the CompressionModule's settings to go on with a compression"
        )
        super().on_load_checkpoint(checkpoint)


def by_kind(task: Task, networks: nn.ModuleDict) -> dict[str, nn.Module]:
    """Networks that train, gathered under `generator` and `discriminator`: each kind has one optimizer."""
    kinds = {"generator": task.generators, "discriminator": task.discriminators}
    found = {
        kind: nn.ModuleList(networks[r] for r in roles if r in networks and _trains(networks[r]))
        for kind, roles in kinds.items()
    }
    return {kind: members for kind, members in found.items() if len(members)}


def _trains(network: nn.Module) -> bool:
    return any(p.requires_grad for p in network.parameters())


def swapped(generator: NetworkSpec) -> NetworkSpec:
    """The recipe of a generator for the way back: it reads what this one writes."""
    args = generator.init_args or {}
    ends = {"in_channels": args.get("out_channels"), "out_channels": args.get("in_channels")}
    return dataclasses.replace(
        generator, init_args={name: ends.get(name) or value for name, value in args.items()}, widths=None
    )


def judging(discriminator: NetworkSpec, generator: NetworkSpec) -> NetworkSpec:
    """The recipe of a discriminator for the way back: it judges what `generator` reads."""
    args, channels = discriminator.init_args or {}, (generator.init_args or {}).get("in_channels")
    known = {"in_channels": channels} if channels and "in_channels" in args else {}
    return dataclasses.replace(discriminator, init_args=args | known, widths=None)
