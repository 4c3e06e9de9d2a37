"""Slim: turn a masked network into a small dense one with the same output."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.pruning.groups import NORMS, ChannelGroups, find_groups, flatten, is_depthwise
from lightning_gancompress.pruning.masks import ChannelMasks


def slim(network: nn.Module, groups: ChannelGroups, mask: Tensor) -> nn.Module:
    """Copy a network without the channels that the mask drops.

    Args:
        network: The whole network; it stays as it is.
        groups: Its groups.
        mask: `(total,)`; above 0.5 keeps a channel.

    Returns:
        An ordinary dense network with the inherited weights, all of them trainable.
    """
    keep = torch.cat([mask.detach().cpu().float(), torch.ones(1)]) > 0.5
    small = copy.deepcopy(network)
    for name, channels in groups.layers.items():
        layer = small.get_submodule(name)
        inputs, outputs = (keep[index].nonzero().flatten() for index in (channels.inputs, channels.outputs))
        _shrink(layer, inputs, outputs)
    return small.requires_grad_(True)


def _shrink(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    if isinstance(layer, NORMS):
        layer.num_features = len(outputs)
        for name in ("weight", "bias", "running_mean", "running_var"):
            _select(layer, name, 0, outputs)
        return
    if isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = len(inputs), len(outputs)
    elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        layer.in_channels, layer.out_channels = len(inputs), len(outputs)
    _select(layer, "bias", 0, outputs)
    if is_depthwise_weight(layer):
        layer.groups = len(outputs)
        _select(layer, "weight", 0, outputs)
        return
    transposed = isinstance(layer, nn.ConvTranspose2d)
    _select(layer, "weight", int(transposed), outputs)
    _select(layer, "weight", int(not transposed), inputs)


def is_depthwise_weight(layer: nn.Module) -> bool:
    """Whether a convolution whose channel counts may just have changed is depthwise."""
    return isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.groups > 1


def _select(layer: nn.Module, name: str, dim: int, keep: Tensor) -> None:
    tensor = getattr(layer, name, None)
    if tensor is None:
        return
    selected = tensor.detach().index_select(dim, keep.to(tensor.device)).clone()
    if isinstance(tensor, nn.Parameter):
        selected = nn.Parameter(selected)
    setattr(layer, name, selected)


def slim_by_mask(network: nn.Module, mask: Tensor, sample: Tensor) -> nn.Module:
    """Slim a network whose groups are not at hand, such as one from a checkpoint of the search.

    Args:
        network: The whole network.
        mask: `(total,)`; above 0.5 keeps a channel.
        sample: An example input, `(1, C, H, W)`.
    """
    return slim(network, find_groups(network, [sample]), mask)


@torch.no_grad()
def check_groups(
    network: nn.Module, groups: ChannelGroups, inputs: Sequence[Tensor], tolerance: float = 1e-4
) -> None:
    """Refuse groups under which masking and slimming disagree.

    One random mask goes through both. A network that mixes channels where the graph can't see it (a norm
    called as a function, say) would otherwise give a silent wrong answer.

    Args:
        tolerance: Largest difference allowed, relative to the largest output.

    Raises:
        UserError: The two outputs differ.
    """
    whole = copy.deepcopy(network).cpu().float().eval()
    inputs = [x.cpu().float() for x in inputs]
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(groups.total, generator=generator) > 0.4).float()
    for part in groups.split(mask):
        part[0] = 1.0
    small = slim(whole, groups, mask).eval()
    masks = ChannelMasks(groups)
    masks.attach(whole)
    masks.set(mask)
    pairs = zip(flatten(whole(*inputs)), flatten(small(*inputs)), strict=True)
    worst = max(float((a - b).abs().max() / a.abs().max().clamp_min(1.0)) for a, b in pairs)
    if not worst <= tolerance:
        raise UserError(
            f"{type(network).__name__} can't be slimmed exactly: masked and small outputs differ by {worst:.2g}. "
            "Some layer mixes channels in a way the trace can't see; list the layers around it in ignored_layers."
        )


__all__ = ["check_groups", "is_depthwise", "slim", "slim_by_mask"]
