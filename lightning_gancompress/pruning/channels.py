"""Channels: where those of each layer stand in the flat mask of its network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_gancompress.networks.spec import PARAMETER_CONTAINERS

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
    """

    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Filters:
    """A parameter of the user's own that a function convolves or multiplies with.

    Attributes:
        inputs: Positions of the channels that it reads, `(C_in,)`.
        outputs: Positions of those that it makes, `(C_out,)`.
        module: Whose forward calls the function.
        axes: Axes of the parameter that have the output and the input channels.
    """

    inputs: Tensor
    outputs: Tensor
    module: str
    axes: tuple[int, int]


@dataclass(frozen=True)
class Product:
    """What one convolution, linear layer or matrix product multiplies.

    Attributes:
        inputs: Positions that it reads.
        outputs: Positions that it makes; each pair of the two costs as much as any other.
        module: Whose forward does it.
        macs: MACs of all, exact, and as the literature counts.
    """

    inputs: Tensor
    outputs: Tensor
    module: str
    macs: tuple[int, int]


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
        filters: Parameters outside such layers that functions convolve with, by name.
        products: All that is multiplied.
        whole: Why a layer, or the filters of a function, writes all of its channels, by name.
    """

    names: list[str]
    sizes: list[int]
    layers: dict[str, LayerChannels]
    tensors: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    filters: dict[str, Filters] = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Positions that can be dropped, over all groups."""
        return sum(self.sizes)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Cut a flat `(total,)` vector into one vector per group."""
        return list(torch.split(flat, self.sizes))

    def names_of(self, positions: Tensor) -> list[str]:
        """Names of the groups that the positions are of."""
        ends = torch.tensor(self.sizes).cumsum(0)
        numbers = torch.bucketize(positions[positions < self.total], ends, right=True)
        return [self.names[number] for number in sorted({*numbers.tolist()})]

    def kept(self, mask: Tensor) -> dict[str, int]:
        """Positions kept per group under a `(total,)` mask."""
        return {n: int((m > 0.5).sum()) for n, m in zip(self.names, self.split(mask), strict=True)}


def weights_of(network: nn.Module, groups: ChannelGroups) -> Iterator[tuple[Tensor, dict[int, Tensor]]]:
    """All filters of a network, each with the positions of its channels by axis."""
    for name, channels in groups.layers.items():
        layer = network.get_submodule(name)
        if isinstance(layer, CONSUMERS):
            transposed = getattr(layer, "transposed", False)
            axes = (channels.inputs, channels.outputs) if transposed else (channels.outputs, channels.inputs)
            yield layer.weight, dict(enumerate(axes))
    for name in groups.filters.keys() & groups.tensors.keys():
        module, _, key = name.rpartition(".")
        yield getattr(network.get_submodule(module), key), groups.tensors[name]


def is_layer(module: nn.Module) -> bool:
    """Whether a module is torch's own, or of a kind whose channels are cut as a whole."""
    own = not type(module).__module__.startswith("torch.") or isinstance(module, PARAMETER_CONTAINERS)
    return not own or isinstance(module, (*CONSUMERS, *CHANNELWISE))


def can_be_cut(module: nn.Module, name: str, axis: int) -> bool:
    """Whether channels along an axis of a tensor of the user's own can be dropped.

    Not those of a constant that no state dict holds, unless all are alike: a small network that is built
    again from its class would have the wrong ones.
    """
    tensor = getattr(module, name)
    return name not in module._non_persistent_buffers_set or bool((tensor == tensor.narrow(axis, 0, 1)).all())
