"""The shared base of all pruning policies, and the policies that need no search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gancompress.errors import UserError
from lightning_gancompress.modules import CompressionModule


class PruningPolicy(Callback, ABC):
    """Decides which channels stay; everything else is shared.

    A policy only answers `scores`: a number per channel, the higher the longer it stays. Budgets, rounding,
    slimming and fine-tuning are the same for all, so that a comparison differs in one line of YAML. Where
    several policies are listed, the last one decides: `callbacks+:` in a second YAML replaces the first's.
    """

    search_epochs = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Become the module's policy."""
        if stage != "fit":
            return
        if not isinstance(pl_module, CompressionModule):
            raise UserError(
                f"trainer.callbacks: {type(self).__name__} prunes a CompressionModule, not a "
                f"{type(pl_module).__name__}: leave it out."
            )
        pl_module.policy = self

    @abstractmethod
    def scores(self, module: CompressionModule, role: str) -> Tensor:
        """Score `(total,)` of every channel of a side; higher stays."""

    def prepare(self, module: CompressionModule) -> None:
        """Make what the search needs, before the strategy wraps the module."""

    def make_optimizer(self, name: str, network: nn.Module) -> Optimizer:
        """The optimizer of an agent."""
        raise NotImplementedError(f"{type(self).__name__} has no agents")

    def search_step(self, module: CompressionModule, batch: dict[str, Any], batch_idx: int) -> None:
        """One step of the search."""
        raise NotImplementedError(f"{type(self).__name__} does not search")

    def choose(self, module: CompressionModule) -> dict[str, Tensor]:
        """The final mask per side, within the budgets and equal on all ranks."""
        return {
            role: module.trainer.strategy.broadcast(side.fit(self.scores(module, role)))
            for role, side in module.sides.items()
        }


def magnitudes(module: CompressionModule, role: str) -> Tensor:
    """Mean absolute weight `(total,)` of all filters that write or read each channel."""
    side, network = module.sides[role], module.bundle(role)
    total = torch.zeros(side.groups.total + 1)
    count = torch.zeros_like(total)
    for name, channels in side.groups.layers.items():
        layer = network.get_submodule(name)
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            continue
        weight = layer.weight.detach().abs().float().cpu()
        outputs, inputs = (1, 0) if isinstance(layer, nn.ConvTranspose2d) else (0, 1)
        for dim, index in ((outputs, channels.outputs), (inputs, channels.inputs)):
            per_channel = weight.transpose(0, dim).flatten(1).mean(1)
            if len(per_channel) == len(index):
                total.index_add_(0, index, per_channel)
                count.index_add_(0, index, torch.ones(len(index)))
    return (total / count.clamp_min(1))[:-1]


class UniformWidth(PruningPolicy):
    """Every group keeps the same fraction of its channels, the largest weights first."""

    def scores(self, module: CompressionModule, role: str) -> Tensor:
        """The channel's rank within its group, as a fraction."""
        parts = module.sides[role].groups.split(magnitudes(module, role))
        ranks = [part.argsort(descending=True).argsort() for part in parts]
        return torch.cat([1 - (rank + 0.5) / len(rank) for rank in ranks])


class L1Magnitude(PruningPolicy):
    """Channels with small weights go first, wherever they are (Li et al. 2017).

    Magnitudes are divided by their group's mean: layers differ in scale for reasons that say nothing about
    their channels.
    """

    def scores(self, module: CompressionModule, role: str) -> Tensor:
        """Mean absolute weight, relative to the group."""
        parts = module.sides[role].groups.split(magnitudes(module, role))
        return torch.cat([part / part.mean().clamp_min(1e-12) for part in parts])


class RandomChannels(PruningPolicy):
    """Random channels: the floor that every policy must beat.

    Args:
        seed: Of the scores.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def scores(self, module: CompressionModule, role: str) -> Tensor:
        """Uniform noise."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(module.sides[role].groups.total, generator=generator)
