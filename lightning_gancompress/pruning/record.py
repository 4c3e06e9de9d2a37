"""The record of a reading: labels of channels, layers that read and write them, reasons to keep them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_gancompress.pruning.channels import Filters, LayerChannels, Product, can_be_cut, is_layer
from lightning_gancompress.pruning.labels import NONE, Labels, core

_LARGEST = 2**20  # largest number of elements of a tensor whose elements are labelled individually


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer, or a tensor computed from it elementwise."""

    name: str
    shape: torch.Size


class Record:
    """Labels of all channels, the layers that read and write them, and reasons why channels are kept.

    Args:
        network: The network on the CPU; it is not changed.
        computed: Names of parameters that are parametrized, so computed, in the network to be masked.

    Attributes:
        labels: The union-find of labels.
        layers: Input and output channels of torch's layers, by name, as labels in place of positions.
        tensors: Labels of parameters and buffers outside of such layers, in their shapes, by name.
        filters: Parameters outside of such layers with which functions convolve, by name, as labels.
        products: All products, as labels.
        uses: Number of uses of the weight of each layer.
        called: Number of calls of the forward of each module.
        held: Reasons for layers whose tensors are used by other operations as well, by name.
        kept: Labels of channels that are kept, with reasons.
        bonds: Labels that one operation has joined, with reasons.
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
        """Keep the channels of these labels."""
        unique = torch.unique(core(labels))
        if len(unique := unique[unique != NONE]):
            self.kept.append((unique, reason))

    def fixed(self, shape: torch.Size, reason: str) -> Tensor:
        """New labels, all the same and kept, of a tensor whose shape never changes."""
        label = self.labels.new(1)
        self.keep(label, reason)
        return label.view([1] * len(shape)).expand(shape)

    def bond(self, rows: Tensor, reason: str) -> Tensor:
        """Join the labels of each row of `(N, n)`; return one label per row, `(N,)`.

        A row with `NONE` in it is kept.
        """
        first = rows.amax(1)
        self.labels.join(rows, first[:, None])
        if rows.shape[1] > 1:
            self.bonds.append((torch.unique(rows), reason))
        self.keep(rows[(rows == NONE).any(1)], reason)
        return first

    # -- tensors and layers ----------------------------------------------------------------------------

    def owners_of(self, weight: Weight) -> list[tuple[str, str]]:
        """Modules that own a tensor, and its names in them."""
        return self._owners[id(self._tensor(weight.name))]

    def first_name(self, weight: Weight) -> str:
        """First name of a tensor that has several."""
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
        """First name of a module; for one that is created in a forward, that of the module around it."""
        while module not in self._modules:
            module = module.rpartition(".")[0]
        return self._names[id(self._modules[module])]

    def layer_of(self, weight: Weight, caller: str, kinds: tuple[type[nn.Module], ...]) -> str | None:
        """Name of the layer of torch that owns a tensor: the caller, if it does, else the first one."""
        owners = [name for name, _ in self.owners_of(weight)]
        layers = [name for name in owners if isinstance(self.network.get_submodule(name), kinds)]
        caller = self.name_of(caller)
        return caller if caller in layers else next(iter(layers), None)

    def labels_of(self, weight: Weight, reason: str) -> Tensor:
        """Labels of a tensor's elements: one for each, which operations may join with those of features."""
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
        """Whether a floating-point tensor is owned by modules other than torch's layers alone."""
        modules = [(self.network.get_submodule(name), key) for name, key in owners]
        return all(
            not is_layer(module) and getattr(module, key).is_floating_point() for module, key in modules
        )

    def can_be_cut(self, name: str, axis: int) -> bool:
        """Whether channels along an axis of a tensor can be dropped."""
        module, _, key = name.rpartition(".")
        return can_be_cut(self.network.get_submodule(module), key, axis)

    def filter(self, name: str, filters: Filters) -> tuple[Tensor, Tensor]:
        """Record filters of a function; further uses of a parameter are joined with its first one."""
        first = self.filters.setdefault(name, filters)
        self.labels.join(first.inputs, filters.inputs)
        self.labels.join(first.outputs, filters.outputs)
        owner = name.rpartition(".")[0]
        inside = filters.module == first.module and f"{owner}.".startswith(f"{first.module}.".lstrip("."))
        if name in self.computed or not inside:
            # masks can't be applied there
            self.keep(first.inputs, f"{name!r} is computed, or used outside of its own module")
        return first.inputs, first.outputs

    def multiply(self, inputs: Tensor | None, outputs: Tensor, module: str, macs: tuple[int, int]) -> None:
        """Record a product with labels `outputs`; its MACs depend on `inputs` too, unless that is None."""
        one = self.fixed(torch.Size([1]), "")
        written = core(outputs).flatten()
        written = torch.where(written == NONE, one, written)
        self.products.append(Product(one if inputs is None else inputs, written, module, macs))

    def keep_layer(self, name: str, reason: str) -> None:
        """Keep all input and output channels of a layer."""
        self.keep(self.layers[name].inputs, reason)
        self.keep(self.layers[name].outputs, reason)

    def meet(self, name: str, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Record a use of a layer; further uses are joined with the first, whose labels are returned."""
        first = self.layers.setdefault(name, LayerChannels(inputs, outputs))
        self.labels.join(first.inputs, inputs)
        self.labels.join(first.outputs, outputs)
        self.uses[name] = self.uses.get(name, 0) + 1
        return first.inputs, first.outputs
