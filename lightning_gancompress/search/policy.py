"""The shared base of all pruning policies, and the policies that need no search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gancompress.errors import UserError
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.pruning import weights_of
from lightning_gancompress.pruning.channels import LayerChannels

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)


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

    def make_optimizer(self, module: CompressionModule, name: str, network: nn.Module) -> Optimizer:
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
    found = []
    for tensor, axes in weights_of(module.bundle(role), module.sides[role].groups):
        weight = tensor.detach().abs().float().cpu()
        found += [(index, weight.transpose(0, axis).flatten(1).mean(1)) for axis, index in axes.items()]
    return mean_per_channel(module, role, found).nan_to_num()


def norm_scales(module: CompressionModule, role: str) -> Tensor:
    """Mean absolute scale `(total,)` of the norms of each channel, NaN for a channel without."""
    found = [
        (channels.outputs, layer.weight.detach().abs().float().cpu())
        for layer, channels in layers_of(module, role)
        if isinstance(layer, NORMS) and layer.weight is not None
    ]
    return mean_per_channel(module, role, found)


def layers_of(module: CompressionModule, role: str) -> Iterator[tuple[nn.Module, LayerChannels]]:
    """The layers of a side that have channels to drop, and which."""
    network = module.bundle(role)
    for name, channels in module.sides[role].groups.layers.items():
        yield network.get_submodule(name), channels


def mean_per_channel(module: CompressionModule, role: str, found: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean `(total,)` of what was found for each channel, NaN for nothing, from pairs of index and values."""
    total = torch.zeros(module.sides[role].groups.total + 1)
    count = torch.zeros_like(total)
    for index, values in found:
        if len(values) == len(index):
            total.index_add_(0, index, values)
            count.index_add_(0, index, torch.ones(len(index)))
    return (total / count)[:-1]


def relative_magnitudes(module: CompressionModule, role: str) -> Tensor:
    """Magnitudes over the mean of their group."""
    parts = module.sides[role].groups.split(magnitudes(module, role))
    return torch.cat([part / part.mean().clamp_min(1e-12) for part in parts])


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
        return relative_magnitudes(module, role)


class BatchNormScale(PruningPolicy):
    """Channels whose norm scales them down go first, wherever they are (network slimming, Liu et al. 2017).

    Groups without a norm that scales, such as a network's first, go by their relative weights around the mean
    scale of all others.
    """

    def scores(self, module: CompressionModule, role: str) -> Tensor:
        """Mean absolute scale of the norms.

        Raises:
            UserError: No norm of the side scales its channels.
        """
        scales = norm_scales(module, role)
        if scales.isnan().all():
            raise UserError(
                f"trainer.callbacks: BatchNormScale finds no norm in the {role} that scales its channels "
                "(instance norms don't by default): use L1Magnitude."
            )
        others = relative_magnitudes(module, role) * scales.nanmean()
        return torch.where(scales.isnan(), others, scales)


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
