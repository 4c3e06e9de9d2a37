"""Record: what a reading finds out about a network's channels, operation by operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_gancompress.pruning.channels import Filters, LayerChannels, Product, can_be_cut, is_layer
from lightning_gancompress.pruning.labels import NONE, Labels, core

_LARGEST = 2**20  # elements of a tensor that are labelled one by one


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer, or what was computed from its elements one by one."""

    name: str
    shape: torch.Size


class Record:
    """Labels of all channels, who reads and writes them, and why some of them stay.

    Args:
        network: The network, on the CPU; it is left as it is.
        computed: Names of parameters that are computed in the network that will be masked.

    Attributes:
        labels: The labels, and which go together.
        layers: What the layers of torch read and write, by name; labels in place of positions.
        tensors: Labels of parameters and buffers outside such layers, in their own shapes, by name.
        filters: Parameters outside such layers that functions convolve with, likewise.
        products: All that is multiplied, likewise.
        uses: How often the weight of each layer was used.
        called: How often the forward of each module was called.
        held: Layers whose tensors something else uses as well, and what.
        kept: Labels that stay, and why.
        bonds: Labels that go together because of one operation, and why.
    """

    def __init__(self, network: nn.Module, computed: Collection[str] = ()) -> None:
        self.computed = computed
        self.labels = Labels()
        self.layers: dict[str, LayerChannels] = {}
        self.tensors: dict[str, Tensor] = {}
        self.filters: dict[str, Filters] = {}
        self.products: list[Product] = []
        self.uses: dict[str, int] = {}
        self.kept: list[tuple[Tensor, str]] = []
        self.bonds: list[tuple[Tensor, str]] = []
        self.network = network
        self.called = Counter[str]()
        self.held: dict[str, str] = {}
        self._modules = dict(network.named_modules(remove_duplicate=False))
        self._names: dict[int, str] = {id(module): name for name, module in network.named_modules()}
        self._owners: dict[int, list[tuple[str, str]]] = {}  # modules and attributes by tensor
        for name, module in network.named_modules():
            for key, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    self._owners.setdefault(id(tensor), []).append((name, key))

    # -- labels ----------------------------------------------------------------------------------------

    def keep(self, labels: Tensor, reason: str) -> None:
        """Channels of these labels always stay."""
        found = torch.unique(core(labels))
        if len(found := found[found != NONE]):
            self.kept.append((found, reason))

    def fixed(self, shape: torch.Size, reason: str) -> Tensor:
        """Labels of something whose shape never changes."""
        label = self.labels.new(1)
        self.keep(label, reason)
        return label.view([1] * len(shape)).expand(shape)

    def bond(self, rows: Tensor, reason: str) -> Tensor:
        """Keep or drop the labels of each row of `(N, n)` together; return one of each.

        Where there is `NONE` in a row, it stays.
        """
        first = rows.amax(1)
        self.labels.join(rows, first[:, None])
        if rows.shape[1] > 1:
            self.bonds.append((torch.unique(rows), reason))
        self.keep(rows[(rows == NONE).any(1)], reason)
        return first

    # -- tensors and layers ----------------------------------------------------------------------------

    def owners_of(self, weight: Weight) -> list[tuple[str, str]]:
        """Modules that have a tensor, and its names in them."""
        return self._owners[id(self._tensor(weight.name))]

    def first_name(self, weight: Weight) -> str:
        """The first of a tensor's names."""
        module, key = self.owners_of(weight)[0]
        return f"{module}.{key}".lstrip(".")

    def shape_of(self, name: str) -> torch.Size:
        """Shape of a parameter or buffer."""
        return self._tensor(name).shape

    def _tensor(self, name: str) -> Tensor:
        module, _, key = name.rpartition(".")
        tensor: Tensor = getattr(self.network.get_submodule(module), key)
        return tensor

    def name_of(self, module: str) -> str:
        """The first of a module's names; of one that a forward makes up, that of the module around it."""
        while module not in self._modules:
            module = module.rpartition(".")[0]
        return self._names[id(self._modules[module])]

    def layer_of(self, weight: Weight, caller: str, kinds: tuple[type[nn.Module], ...]) -> str | None:
        """The layer of torch whose tensor this is, that which calls before others that share it."""
        owners = [name for name, _ in self.owners_of(weight)]
        layers = [name for name in owners if isinstance(self.network.get_submodule(name), kinds)]
        caller = self.name_of(caller)
        return caller if caller in layers else next(iter(layers), None)

    def labels_of(self, weight: Weight, reason: str) -> Tensor:
        """Labels of a tensor's elements: each has its own until it meets those of a feature."""
        if weight.shape.numel() == 1:
            return torch.full([1] * len(weight.shape), NONE)
        owners, full = self.owners_of(weight), self.first_name(weight)
        if full not in self.tensors:
            if not self.is_own(owners) or weight.shape.numel() > _LARGEST:
                self.held |= {layer: reason for layer, _ in owners}
                return self.fixed(weight.shape, reason)
            self.tensors[full] = self.labels.new(weight.shape.numel()).view(weight.shape)
        return self.tensors[full]

    def is_own(self, owners: list[tuple[str, str]]) -> bool:
        """Whether a tensor belongs to modules of the user's own, and channels can be cut out of it."""
        modules = [(self.network.get_submodule(name), key) for name, key in owners]
        return all(
            not is_layer(module) and getattr(module, key).is_floating_point() for module, key in modules
        )

    def can_be_cut(self, name: str, axis: int) -> bool:
        """Whether channels along an axis of a tensor can be dropped."""
        module, _, key = name.rpartition(".")
        return can_be_cut(self.network.get_submodule(module), key, axis)

    def filter(self, name: str, filters: Filters) -> tuple[Tensor, Tensor]:
        """Remember what a function reads and writes; with the same parameter it is the same channels."""
        first = self.filters.setdefault(name, filters)
        self.labels.join(first.inputs, filters.inputs)
        self.labels.join(first.outputs, filters.outputs)
        owner = name.rpartition(".")[0]
        inside = filters.module == first.module and f"{owner}.".startswith(f"{first.module}.".lstrip("."))
        if name in self.computed or not inside:
            # where nothing can mask it
            self.keep(first.inputs, f"{name!r} is computed, or used outside of its own module")
        return first.inputs, first.outputs

    def multiply(self, inputs: Tensor | None, outputs: Tensor, module: str, macs: tuple[int, int]) -> None:
        """Remember a product, of each of the inputs if they are given, that makes a tensor of labels."""
        one = self.fixed(torch.Size([1]), "")
        found = core(outputs).flatten()
        found = torch.where(found == NONE, one, found)
        self.products.append(Product(one if inputs is None else inputs, found, module, macs))

    def keep_layer(self, name: str, reason: str) -> None:
        """A layer stays whole on both sides."""
        self.keep(self.layers[name].inputs, reason)
        self.keep(self.layers[name].outputs, reason)

    def meet(self, name: str, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Remember what a layer reads and writes; another time it is the same channels, which come back."""
        first = self.layers.setdefault(name, LayerChannels(inputs, outputs))
        self.labels.join(first.inputs, inputs)
        self.labels.join(first.outputs, outputs)
        self.uses[name] = self.uses.get(name, 0) + 1
        return first.inputs, first.outputs
