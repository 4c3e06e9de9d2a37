"""Positions of the channels of each layer in the flat mask of a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_gancompress.networks.spec import PARAMETER_CONTAINERS

CONSUMERS = (_ConvNd, nn.Linear)
# layers with as many output channels as input channels, where each depends on itself or its group alone
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
        inputs: (C_in,) int64. Position `total`, one after the mask, is that of channels that are always kept.
        outputs: (C_out,) int64, likewise. The same as `inputs` for a norm or an activation.
    """

    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Filters:
    """A parameter outside of torch's layers with which a function convolves or multiplies.

    Attributes:
        inputs: Positions of the input channels, `(C_in,)` int64.
        outputs: Positions of the output channels, `(C_out,)` int64.
        module: Name of the module whose forward calls the function.
        axes: Axes of the parameter for output and input channels.
    """

    inputs: Tensor
    outputs: Tensor
    module: str
    axes: tuple[int, int]


@dataclass(frozen=True)
class Product:
    """One convolution, linear layer or matrix product, for the count of MACs.

    Attributes:
        inputs: Positions of the input channels.
        outputs: Positions of the output channels; every pair of input and output costs the same MACs.
        module: Name of the module whose forward computes it.
        macs: MACs of the whole product, in the conventions `exact` and `literature`.
    """

    inputs: Tensor
    outputs: Tensor
    module: str
    macs: tuple[int, int]


@dataclass(frozen=True)
class ChannelGroups:
    """All channel groups of a network, concatenated in one flat mask of `total` positions.

    A position is one channel of every layer of its group, or several channels that can only be kept or
    dropped together, such as those of one group of a grouped convolution or of a group norm, or those that a
    pixel shuffle merges into one.

    Attributes:
        names: Name of each group: the first layer that writes its channels. If different channels of a layer
            are read by different layers, they are different groups, and the later ones are numbered.
        sizes: Positions per group; their sum is the length of the mask.
        layers: Positions of the channels of convolutions, linear layers, norms and activations, by name.
        tensors: Positions along the axes of parameters and buffers outside of such layers, by name.
        filters: Parameters outside of such layers with which functions convolve, by name.
        products: All products, for the count of MACs.
        whole: Reasons why layers or filters keep all output channels, by name.
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
        """Number of positions that can be dropped, over all groups."""
        return sum(self.sizes)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Split a flat `(total,)` vector into one vector per group."""
        return list(torch.split(flat, self.sizes))

    def names_of(self, positions: Tensor) -> list[str]:
        """Names of the groups that contain the positions."""
        ends = torch.tensor(self.sizes).cumsum(0)
        numbers = torch.bucketize(positions[positions < self.total], ends, right=True)
        return [self.names[number] for number in sorted({*numbers.tolist()})]

    def kept(self, mask: Tensor) -> dict[str, int]:
        """Number of kept positions per group under a `(total,)` mask, by name."""
        return {n: int((m > 0.5).sum()) for n, m in zip(self.names, self.split(mask), strict=True)}

    def narrowed(self, keep: Tensor) -> ChannelGroups:
        """The groups of the network that `slim` makes with the mask `keep`, `(total,)`."""
        stays = with_always_kept(keep)
        numbers = stays.cumsum(0) - 1

        def left(positions: Tensor) -> Tensor:
            return numbers[positions[stays[positions]]]

        def left_of(product: Product) -> Product:
            inputs, outputs = left(product.inputs), left(product.outputs)
            before = len(product.inputs) * len(product.outputs)
            exact, literature = (macs * len(inputs) * len(outputs) // before for macs in product.macs)
            return replace(product, inputs=inputs, outputs=outputs, macs=(exact, literature))

        return ChannelGroups(
            names=self.names,
            sizes=[int(own.sum()) for own in self.split(stays[:-1])],
            layers={n: LayerChannels(left(c.inputs), left(c.outputs)) for n, c in self.layers.items()},
            tensors={n: {a: left(p) for a, p in axes.items()} for n, axes in self.tensors.items()},
            filters={
                n: replace(f, inputs=left(f.inputs), outputs=left(f.outputs)) for n, f in self.filters.items()
            },
            products=[left_of(product) for product in self.products],
            whole=self.whole,
        )


def with_always_kept(mask: Tensor) -> Tensor:
    """Which of `(total + 1,)` positions a `(total,)` mask keeps, on the CPU: the last one always."""
    return torch.cat([mask.detach().cpu().float(), torch.ones(1)]) > 0.5


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
    """Whether a module is one of torch's, or a convolution, linear layer or norm derived from one."""
    own = not type(module).__module__.startswith("torch.") or isinstance(module, PARAMETER_CONTAINERS)
    return not own or isinstance(module, (*CONSUMERS, *CHANNELWISE))


def can_be_cut(module: nn.Module, name: str, axis: int) -> bool:
    """Whether channels along an axis of a tensor outside of torch's layers can be dropped.

    False for a buffer that is not saved in state dicts, unless its values are constant along the axis: a
    small network that is built from its class would have the values of other channels.
    """
    tensor = getattr(module, name)
    return name not in module._non_persistent_buffers_set or bool((tensor == tensor.narrow(axis, 0, 1)).all())
