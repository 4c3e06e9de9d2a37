"""The policies that rank channels without a search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.pruning import weights_of
from lightning_gancompress.pruning.channels import LayerChannels
from lightning_gancompress.search.phase import SearchPhase
from lightning_gancompress.search.policy import PruningPolicy
from lightning_gancompress.tasks import Side

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)


def magnitudes(search: SearchPhase, side: Side) -> Tensor:
    """Mean absolute weight `(total,)` of all filters that write or read each channel."""
    found = [(positions, weights.abs().mean(1)) for positions, weights in weights_by_channel(search, side)]
    return mean_per_channel(search, side, found).nan_to_num()


def weights_by_channel(search: SearchPhase, side: Side) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions `(C,)` of the channels that filters write or read, with the weights `(C, N)` of each."""
    for tensor, axes in weights_of(search.networks.group(side), search.sides[side.value].groups):
        weight = tensor.detach().float().cpu()
        for axis, positions in axes.items():
            yield positions, weight.transpose(0, axis).flatten(1)


def norm_scales(search: SearchPhase, side: Side) -> Tensor:
    """Mean absolute scale `(total,)` of the norms of each channel, NaN for a channel without."""
    found = [
        (channels.outputs, layer.weight.detach().abs().float().cpu())
        for layer, channels in layers_of(search, side)
        if isinstance(layer, NORMS) and layer.weight is not None
    ]
    return mean_per_channel(search, side, found)


def layers_of(search: SearchPhase, side: Side) -> Iterator[tuple[nn.Module, LayerChannels]]:
    """The layers of a side that have channels to drop, and which."""
    network = search.networks.group(side)
    for name, channels in search.sides[side.value].groups.layers.items():
        yield network.get_submodule(name), channels


def mean_per_channel(search: SearchPhase, side: Side, found: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean `(total,)` of what was found for each channel, NaN for nothing, from pairs of index and values."""
    total = torch.zeros(search.sides[side.value].groups.total + 1)
    count = torch.zeros_like(total)
    for index, values in found:
        if len(values) == len(index):
            total.index_add_(0, index, values)
            count.index_add_(0, index, torch.ones(len(index)))
    return (total / count)[:-1]


def relative_magnitudes(search: SearchPhase, side: Side) -> Tensor:
    """Magnitudes over the mean of their group."""
    parts = search.sides[side.value].groups.split(magnitudes(search, side))
    return torch.cat([part / part.mean().clamp_min(1e-12) for part in parts])


class UniformWidth(PruningPolicy):
    """Every group keeps the same fraction of its channels, the largest weights first."""

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """The channel's rank within its group, as a fraction."""
        parts = search.sides[side.value].groups.split(magnitudes(search, side))
        ranks = [part.argsort(descending=True).argsort() for part in parts]
        return torch.cat([1 - (rank + 0.5) / len(rank) for rank in ranks])


class L1Magnitude(PruningPolicy):
    """Channels with small weights go first, wherever they are (Li et al. 2017).

    Magnitudes are divided by their group's mean: layers differ in scale for reasons that say nothing about
    their channels.
    """

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """Mean absolute weight, relative to the group."""
        return relative_magnitudes(search, side)


class BatchNormScale(PruningPolicy):
    """Channels whose norm scales them down go first, wherever they are (network slimming, Liu et al. 2017).

    Groups without a norm that scales, such as a network's first, go by their relative weights around the mean
    scale of all others.
    """

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """Mean absolute scale of the norms.

        Raises:
            UserError: No norm of the side scales its channels.
        """
        scales = norm_scales(search, side)
        if scales.isnan().all():
            raise UserError(
                f"trainer.callbacks: BatchNormScale finds no norm in the {side} that scales its channels "
                "(instance norms don't by default): use L1Magnitude."
            )
        others = relative_magnitudes(search, side) * scales.nanmean()
        return torch.where(scales.isnan(), others, scales)


class RandomChannels(PruningPolicy):
    """Random channels: the floor that every policy must beat.

    Args:
        seed: Of the scores.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """Uniform noise."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(search.sides[side.value].groups.total, generator=generator)
