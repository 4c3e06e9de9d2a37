"""Slimming: a small dense network with the same output as a masked one."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_gancompress.networks import bake_parametrizations, copy_network
from lightning_gancompress.pruning.channels import CHANNELWISE, ChannelGroups, with_always_kept

NetworkType = TypeVar("NetworkType", bound=nn.Module)


def slim(network: NetworkType, groups: ChannelGroups, mask: Tensor) -> NetworkType:
    """Copy a network without the channels that the mask drops.

    Args:
        network: The whole network; it is not changed.
        groups: The network's groups.
        mask: `(total,)`; values above 0.5 keep a channel.

    Returns:
        An ordinary dense network with the weights of the kept channels, all of them trainable. Weight norm
        and spectral norm are removed, see `bake_parametrizations`.
    """
    keep = with_always_kept(mask)
    small = bake_parametrizations(copy_network(network))
    for name, channels in groups.layers.items():
        inputs, outputs = (keep[index].nonzero().flatten() for index in (channels.inputs, channels.outputs))
        _shrink(small.get_submodule(name), inputs, outputs)
    for name, axes in groups.tensors.items():
        owner, _, attribute = name.rpartition(".")
        for axis, index in axes.items():
            _select(small.get_submodule(owner), attribute, axis, keep[index].nonzero().flatten())
    return small.requires_grad_(True)


def _shrink(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    if isinstance(layer, CHANNELWISE):
        if isinstance(layer, nn.GroupNorm):
            layer.num_groups = layer.num_groups * len(outputs) // layer.num_channels
            layer.num_channels = len(outputs)
        elif isinstance(layer, nn.PReLU):
            layer.num_parameters = len(outputs)
        else:
            layer.num_features = len(outputs)
        for name in ("weight", "bias", "running_mean", "running_var"):
            _select(layer, name, 0, outputs)
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = len(inputs), len(outputs)
        _select(layer, "bias", 0, outputs)
        _select(layer, "weight", 0, outputs)
        _select(layer, "weight", 1, inputs)
    elif isinstance(layer, _ConvNd):
        first, second = (inputs, outputs) if layer.transposed else (outputs, inputs)
        _select(layer, "bias", 0, outputs)
        _select(layer, "weight", 0, first)
        if layer.groups == 1:
            _select(layer, "weight", 1, second)
        else:  # each group is kept or dropped as a whole
            layer.groups = layer.groups * len(inputs) // layer.in_channels
        layer.in_channels, layer.out_channels = len(inputs), len(outputs)


def _select(layer: nn.Module, name: str, dim: int, keep: Tensor) -> None:
    tensor = getattr(layer, name, None)
    if tensor is None:
        return
    selected = tensor.detach().index_select(dim, keep.to(tensor.device)).clone()
    if isinstance(tensor, nn.Parameter):
        selected = nn.Parameter(selected)
    setattr(layer, name, selected)
