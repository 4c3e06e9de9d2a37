"""Channels: where those of each layer stand in the flat mask of its network."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

CONSUMERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
# Layers that hand on as many channels as they read, each made of itself or of a few around it.
CHANNELWISE = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.PReLU,
)


@dataclass(frozen=True)
class LayerChannels:
    """Positions of one layer's channels in the flat mask of its network.

    Attributes:
        inputs: (C_in,) int64. The last position of the mask stands for "always kept".
        outputs: (C_out,) int64, likewise. For a norm or an activation both are the same.
    """

    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class ChannelGroups:
    """All groups of a network, laid side by side in one flat mask of `total` positions.

    A position is one channel of every layer of its group; or several, where these can only be kept or dropped
    together: those of one group of a grouped convolution or of a group norm, say, or those that a pixel
    shuffle lays into one.

    Attributes:
        names: The first layer that writes it gives each group its name and place. Where its channels part
            ways (some meet one layer, some another) each part is a group, and the later ones are numbered.
        sizes: Positions per group; their sum is the length of the mask.
        layers: Convolutions, linear layers, norms and activations by name, with their channels' positions.
        tensors: Parameters and buffers outside such layers by name, with the positions along their only
            dimension above one.
    """

    names: list[str]
    sizes: list[int]
    layers: dict[str, LayerChannels]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Positions that can be dropped, over all groups."""
        return sum(self.sizes)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Cut a flat `(total,)` vector into one vector per group."""
        return list(torch.split(flat, self.sizes))

    def kept(self, mask: Tensor) -> dict[str, int]:
        """Positions kept per group under a `(total,)` mask."""
        return {n: int((m > 0.5).sum()) for n, m in zip(self.names, self.split(mask), strict=True)}


def widths(layer: nn.Module) -> tuple[int, int]:
    """Channels that a layer of `CONSUMERS` or `CHANNELWISE` reads and writes."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels, layer.num_channels
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters, layer.num_parameters
    if isinstance(layer, CHANNELWISE):
        return layer.num_features, layer.num_features  # type: ignore[return-value]
    assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    return layer.in_channels, layer.out_channels


def is_grouped(layer: nn.Module) -> bool:
    """Whether each filter of a convolution reads some of its channels only."""
    return isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.groups > 1


def is_channelwise(layer: nn.Module) -> bool:
    """Whether the channels that a layer writes are those that it reads."""
    return isinstance(layer, CHANNELWISE) or (is_grouped(layer) and {*widths(layer)} == {layer.groups})


def can_be_cut(module: nn.Module, name: str) -> bool:
    """Whether the channels of a tensor of the user's own can be dropped.

    Not those of a constant that no state dict holds, unless all are alike: a small network that is built
    again from its class would have the wrong ones.
    """
    tensor = getattr(module, name)
    first = tensor[:1] if len(tensor) > 1 or tensor.ndim == 1 else tensor[:, :1]
    stored = name not in module._non_persistent_buffers_set
    return bool(tensor.is_floating_point() and (stored or (tensor == first).all()))
