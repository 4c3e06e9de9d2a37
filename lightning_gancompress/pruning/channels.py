"""Channels: where those of each layer stand in the flat mask of its network."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

CONSUMERS = (_ConvNd, nn.Linear)
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
        grouped: Whether each filter of a convolution reads some of the channels only.
    """

    inputs: Tensor
    outputs: Tensor
    grouped: bool = False


@dataclass(frozen=True)
class Call:
    """A convolution or matrix product that no layer of torch does.

    Attributes:
        module: Whose forward calls it.
        weight: Name of the parameter with the filters; None for a product of features.
        axes: Axes of the weight that have the output and the input channels.
        inputs: Positions of the channels it reads, `(C_in,)`.
        outputs: Positions of what it makes, all of equal cost; of features, one or several for each channel.
        macs: MACs of the whole call: exact, and as the literature counts.
        grouped: Whether each filter reads some of the channels only.
    """

    module: str
    weight: str | None
    axes: tuple[int, int]
    inputs: Tensor
    outputs: Tensor
    macs: tuple[int, int]
    grouped: bool = False


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
        tensors: Parameters and buffers outside such layers by name, with the positions along their axes.
        calls: Convolutions and products that functions do, with the positions of their channels.
        whole: Why a layer, or the filters of a function, writes all of its channels, by name.
    """

    names: list[str]
    sizes: list[int]
    layers: dict[str, LayerChannels]
    tensors: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)

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


def is_layer(module: nn.Module) -> bool:
    """Whether a module is torch's own, or of a kind whose channels are cut as a whole."""
    return type(module).__module__.startswith("torch.") or isinstance(module, (*CONSUMERS, *CHANNELWISE))


def can_be_cut(module: nn.Module, name: str) -> bool:
    """Whether the channels of a tensor of the user's own can be dropped.

    Not those of a constant that no state dict holds, unless all are alike: a small network that is built
    again from its class would have the wrong ones.
    """
    tensor = getattr(module, name)
    first = tensor[:1] if len(tensor) > 1 or tensor.ndim == 1 else tensor[:, :1]
    stored = name not in module._non_persistent_buffers_set
    return bool(tensor.is_floating_point() and (stored or (tensor == first).all()))
