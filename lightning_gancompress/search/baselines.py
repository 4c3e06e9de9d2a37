"""Pruning policies that score channels without a search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Seed, checked
from lightning_gancompress.pruning import weights_of
from lightning_gancompress.pruning.channels import LayerChannels
from lightning_gancompress.search.phase import SearchPhase
from lightning_gancompress.search.policy import PruningPolicy
from lightning_gancompress.tasks import Side

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)


def magnitudes(search: SearchPhase, side: Side) -> Tensor:
    """Mean absolute weight `(total,)` of all filters that write or read each channel; 0 without filters."""
    means = [(positions, weights.abs().mean(1)) for positions, weights in weights_by_channel(search, side)]
    return mean_per_channel(search, side, means).nan_to_num()


def weights_by_channel(search: SearchPhase, side: Side) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions `(C,)` of the channels that filters write or read, with the weights `(C, N)` of each."""
    for tensor, axes in weights_of(search.networks.group(side), search.sides[side].groups):
        weight = tensor.detach().float().cpu()
        for axis, positions in axes.items():
            yield positions, weight.transpose(0, axis).flatten(1)


def norm_scales(search: SearchPhase, side: Side) -> Tensor:
    """Mean absolute scale `(total,)` of the norm layers after each channel; NaN for a channel without."""
    scales = [
        (channels.outputs, layer.weight.detach().abs().float().cpu())
        for layer, channels in layers_of(search, side)
        if isinstance(layer, NORMS) and layer.weight is not None
    ]
    return mean_per_channel(search, side, scales)


def layers_of(search: SearchPhase, side: Side) -> Iterator[tuple[nn.Module, LayerChannels]]:
    """Layers of a side, each with the positions of its channels in the flat mask."""
    network = search.networks.group(side)
    for name, channels in search.sides[side].groups.layers.items():
        yield network.get_submodule(name), channels


def mean_per_channel(search: SearchPhase, side: Side, values_at: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean `(total,)` per channel over (positions, values) pairs; NaN for a channel without values."""
    total = torch.zeros(search.sides[side].groups.total + 1)
    count = torch.zeros_like(total)
    for index, values in values_at:
        if len(values) == len(index):
            total.index_add_(0, index, values)
            count.index_add_(0, index, torch.ones(len(index)))
    return (total / count)[:-1]


def relative_magnitudes(search: SearchPhase, side: Side) -> Tensor:
    """Magnitudes `(total,)`, each divided by the mean of its group; 1 in a group without filters."""
    groups = search.sides[side].groups.split(magnitudes(search, side))
    return torch.cat([group / group.mean() if group.any() else torch.ones_like(group) for group in groups])


def standardized(values: Tensor) -> Tensor:
    """Values with mean 0 and standard deviation 1, cut off at -2 and 2; zeros where all are equal."""
    return ((values - values.mean()) / values.std(correction=0).clamp_min(1e-6)).clamp(-2, 2)


class UniformWidth(PruningPolicy):
    """Every group keeps the same fraction of its channels, the largest weights first."""

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """Rank `(total,)` of each channel within its group, in (0, 1): near 1 for the largest weights."""
        groups = search.sides[side].groups.split(magnitudes(search, side))
        ranks = [group.argsort(descending=True).argsort() for group in groups]
        return torch.cat([1 - (rank + 0.5) / len(rank) for rank in ranks])


class L1Magnitude(PruningPolicy):
    """Drops the channels with the smallest weights over all groups together (Li et al. 2017).

    Magnitudes are divided by the mean of their group, since the scale of a layer's weights is not a measure
    of its importance.
    """

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """Mean absolute weight `(total,)`, relative to the group."""
        return relative_magnitudes(search, side)


class IsomorphicMagnitude(PruningPolicy):
    """Drops the channels with the smallest weights over groups of the same structure (Fang et al. 2024).

    Such groups lead through layers of the same kinds: the inner channels of all residual blocks, say, but not
    the stream through them. All kinds lose the same fraction, and within a kind magnitudes, relative to their
    group, decide which groups lose more. Paddings and activations between layers do not count; in
    torch-pruning a padded layer is of another kind.
    """

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """Rank `(total,)` of each channel among those of its kind, in (0, 1): near 1 for the largest."""
        sizes = search.sides[side].groups.sizes
        kinds = structures(search, side)
        of_channel = torch.tensor(kinds).repeat_interleave(torch.tensor(sizes))
        relative, scores = relative_magnitudes(search, side), torch.zeros(sum(sizes))
        for kind in {*kinds}:
            own = relative[of_channel == kind]
            ranks = own.argsort(descending=True, stable=True).argsort()
            scores[of_channel == kind] = 1 - (ranks + 0.5) / len(own)
        return scores


def structures(search: SearchPhase, side: Side) -> list[int]:
    """A number per group, the same for groups that layers of the same kinds write and read."""
    groups = search.sides[side].groups
    group_at = torch.arange(len(groups.sizes)).repeat_interleave(torch.tensor(groups.sizes)).tolist()
    found: list[list[str]] = [[] for _ in groups.sizes]
    for layer, channels in layers_of(search, side):
        for use, positions in (("writes", channels.outputs), ("reads", channels.inputs)):
            for group in {group_at[place] for place in positions.tolist() if place < groups.total}:
                found[group].append(f"{type(layer).__name__} {use}")
    numbers: dict[tuple[str, ...], int] = {}
    return [numbers.setdefault(tuple(sorted(uses)), len(numbers)) for uses in found]


class BatchNormScale(PruningPolicy):
    """Drops the channels with the smallest norm scales over all groups (network slimming, Liu et al. 2017).

    Channels without an affine norm, such as those of a network's first group, are scored by their relative
    weights times the mean scale of the others.
    """

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """Mean absolute scale `(total,)` of the norm layers.

        Raises:
            UserError: No norm layer of the side is affine.
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
    """Scores channels at random: the lower bound for other policies.

    Args:
        seed: Seed of the scores; None is the run's.
    """

    @checked
    def __init__(self, seed: Seed | None = None) -> None:
        self.seed = seed

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """Uniform noise `(total,)` in [0, 1)."""
        generator = torch.Generator().manual_seed(search.seed if self.seed is None else self.seed)
        return torch.rand(search.sides[side].groups.total, generator=generator)
