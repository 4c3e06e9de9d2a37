"""Groups: which channels of a network must be kept or dropped together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import Tensor, nn

from lightning_gancompress.errors import UserError

CONSUMERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
# What the dependency graph itself puts between layers: they carry channels but own no tensors.
_WIRES = tuple(
    getattr(tp.ops, f"_{kind}Op")
    for kind in ("Concat", "Split", "ElementWise", "Reshape", "Unbind", "Slice", "Expand", "Output")
    if hasattr(tp.ops, f"_{kind}Op")
)


@dataclass(frozen=True)
class LayerChannels:
    """Positions of one layer's channels in the flat mask of its network.

    Attributes:
        inputs: (C_in,) int64. The last position of the mask stands for "always kept".
        outputs: (C_out,) int64, likewise. For a norm both are the same.
    """

    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class ChannelGroups:
    """All groups of a network, laid side by side in one flat mask of `total` channels.

    Attributes:
        names: The layer that gives each group its name: the first that writes it.
        sizes: Channels per group; their sum is the length of the mask.
        layers: Convolutions, linear layers and norms by name, with the positions of their channels.
    """

    names: list[str]
    sizes: list[int]
    layers: dict[str, LayerChannels]

    @property
    def total(self) -> int:
        """Channels that can be dropped, over all groups."""
        return sum(self.sizes)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Cut a flat `(total,)` vector into one vector per group."""
        return list(flat.split(self.sizes))

    def kept(self, mask: Tensor) -> dict[str, int]:
        """Channels kept per group under a `(total,)` mask."""
        return {n: int((m > 0.5).sum()) for n, m in zip(self.names, self.split(mask), strict=True)}


class _Probed(nn.Module):
    """The network between two layers of 1x1 convolutions.

    Whatever group reaches a probe holds channels of the image or of the output, which never change.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.entries = nn.ModuleList(_probe(x.shape, x.shape[1]) for x in inputs)
        self.network = network
        self.exits = nn.ModuleList(_probe(y.shape, 1) for y in outputs)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        outputs = self.network(*(entry(x) for entry, x in zip(self.entries, inputs, strict=True)))
        return [probe(y) for probe, y in zip(self.exits, flatten(outputs), strict=True)]


def _probe(shape: torch.Size, out_channels: int) -> nn.Module:
    if len(shape) == 4:
        return nn.Conv2d(shape[1], out_channels, 1)
    return nn.Linear(shape[-1], out_channels)


def flatten(outputs: object) -> list[Tensor]:
    """All tensors in what a network returned, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values for tensor in flatten(value)]  # type: ignore[attr-defined]


def find_groups(
    network: nn.Module, inputs: Sequence[Tensor], ignored_layers: Sequence[str] = ()
) -> ChannelGroups:
    """Trace a network and find the groups of channels that can be dropped.

    Args:
        network: Any traceable convolutional network; it is copied, never changed.
        inputs: Example inputs, each `(1, C, H, W)`.
        ignored_layers: Names of layers that stay whole, and with them every group they touch.

    Raises:
        UserError: The network can't be traced, holds a layer that can't be grouped, or nothing is left to drop.
    """
    unknown = [name for name in ignored_layers if name not in dict(network.named_modules())]
    if unknown:
        raise UserError(f"ignored_layers: the network has no layer named {', '.join(map(repr, unknown))}.")
    # The graph follows autograd: without gradients it silently finds nothing.
    probed = copy.deepcopy(network).cpu().float().eval().requires_grad_(True)
    inputs = [x.detach().cpu().float() for x in inputs]
    try:
        with torch.no_grad():
            outputs = flatten(probed(*inputs))
        probed = _Probed(probed, inputs, outputs).eval()
        with torch.enable_grad():
            graph = tp.DependencyGraph().build_dependency(probed, example_inputs=(inputs,), verbose=False)
        found = list(graph.get_all_groups(root_module_types=list(CONSUMERS)))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{type(network).__name__} can't be traced for pruning ({type(error).__name__}: {error}). Its forward "
            "must work on tensors alone, without control flow that depends on their values."
        ) from error
    names = {module: name.removeprefix("network.") for name, module in probed.named_modules()}
    fixed = {*probed.entries, *probed.exits, *(probed.network.get_submodule(name) for name in ignored_layers)}
    return _collect(found, names, fixed, network)


def _collect(
    found: list[tp.Group], names: dict[nn.Module, str], fixed: set[nn.Module], network: nn.Module
) -> ChannelGroups:
    """Number the droppable channels and write down every layer's positions among them."""
    group_names: list[str] = []
    sizes: list[int] = []
    writes: list[tuple[str, bool, list[int], Tensor]] = []
    offset = 0
    for group in found:
        items = [item for item in group if not isinstance(item.dep.target.module, _WIRES)]
        if any(item.dep.target.module in fixed for item in items):
            continue
        _refuse_unknown(items, names)
        roots = sorted({root for item in items for root in item.root_idxs})
        position = {root: offset + rank for rank, root in enumerate(roots)}
        for item in items:
            layer = names[item.dep.target.module]
            index = torch.tensor([position[root] for root in item.root_idxs])
            writes.append((layer, _prunes_outputs(item), [int(i) for i in item.idxs], index))
        group_names.append(names[group[0].dep.target.module])
        sizes.append(len(roots))
        offset += len(roots)
    if not sizes:
        raise UserError(
            f"{type(network).__name__} has no channels that can be dropped: every layer writes its output, "
            "reads its image, or is in ignored_layers."
        )
    return ChannelGroups(group_names, sizes, _layers(network, writes, always=offset))


def _layers(
    network: nn.Module, writes: list[tuple[str, bool, list[int], Tensor]], always: int
) -> dict[str, LayerChannels]:
    layers = {}
    for name, module in network.named_modules():
        if isinstance(module, CONSUMERS):
            n_in, n_out = _in_out(module)
        elif isinstance(module, NORMS):
            n_in = n_out = module.num_features
        else:
            continue
        layers[name] = LayerChannels(torch.full((n_in,), always), torch.full((n_out,), always))
    for name, is_output, own, index in writes:
        module = network.get_submodule(name)
        layer = layers[name]
        # A norm and a depthwise convolution map every channel to itself: both sides are one.
        both = isinstance(module, NORMS) or is_depthwise(module)
        if is_output or both:
            layer.outputs[own] = index
        if not is_output or both:
            layer.inputs[own] = index
    return layers


def _prunes_outputs(item: tp.dependency.GroupItem) -> bool:
    return bool(item.dep.handler.__name__ == "prune_out_channels")


def _in_out(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    assert isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    return module.in_channels, module.out_channels


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution filters every channel on its own."""
    return (
        isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        and module.groups > 1
        and module.groups == module.in_channels == module.out_channels
    )


def _refuse_unknown(items: list[tp.dependency.GroupItem], names: dict[nn.Module, str]) -> None:
    for item in items:
        module = item.dep.target.module
        name = names.get(module, item.dep.target.name)
        grouped = isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.groups > 1
        if isinstance(module, (*CONSUMERS, *NORMS)) and (not grouped or is_depthwise(module)):
            continue
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            continue
        raise UserError(
            f"Layer {name!r} ({type(module).__name__}) mixes channels in a way that can't be grouped. "
            f"Keep it whole with ignored_layers: [{name}]."
        )
