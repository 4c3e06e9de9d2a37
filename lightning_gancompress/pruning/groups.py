"""Groups: which channels of a network must be kept or dropped together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.pruning.probes import Probed, flatten

CONSUMERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
# Layers without tensors that mix channels: the graph would take them for activations.
_MIXERS = (nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.LocalResponseNorm)
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
        names: The first layer that writes it gives each group its name and place. Where its channels part
            ways (some meet one layer, some another) each part is a group, and the later ones are numbered.
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
        return list(torch.split(flat, self.sizes))

    def kept(self, mask: Tensor) -> dict[str, int]:
        """Channels kept per group under a `(total,)` mask."""
        return {n: int((m > 0.5).sum()) for n, m in zip(self.names, self.split(mask), strict=True)}


def find_groups(
    network: nn.Module, inputs: Sequence[Tensor], ignored_layers: Sequence[str] = ()
) -> ChannelGroups:
    """Trace a network and find the groups of channels that can be dropped.

    Args:
        network: Any traceable convolutional network; it is copied, never changed.
        inputs: Example inputs, each `(1, C, H, W)`.
        ignored_layers: Names of layers, or of modules that hold them, that stay whole, and with them every
            group they touch.

    Raises:
        UserError: The network can't be traced, holds a layer that can't be grouped, or nothing is left to
            drop.
    """
    unknown = [name for name in ignored_layers if name not in dict(network.named_modules())]
    if unknown:
        raise UserError(f"ignored_layers: the network has no layer named {', '.join(map(repr, unknown))}.")
    inputs = [x.detach().cpu().float() for x in inputs]
    try:
        # The graph follows autograd: without gradients it silently finds nothing.
        copied = copy.deepcopy(network).cpu().float().eval().requires_grad_(True)
        with torch.no_grad():
            outputs = flatten(copied(*inputs))
        probed = Probed(copied, inputs, outputs).eval()
        with torch.enable_grad():
            graph = tp.DependencyGraph().build_dependency(
                probed,
                example_inputs=(inputs,),
                customized_pruners={mixer: tp.ops.DummyPruner() for mixer in _MIXERS},
                verbose=False,
            )
        found = list(graph.get_all_groups(root_module_types=list(CONSUMERS)))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{type(network).__name__} can't be traced for pruning ({type(error).__name__}: {error}). Its "
            "forward must work on tensors alone, without control flow that depends on their values."
        ) from error
    whole = {x for name in ignored_layers for x in _parts(copied.get_submodule(name))}
    _refuse_unseen(copied, whole.union(graph.module2node))
    names = {x: name for name, x in (*copied.named_modules(), *copied.named_parameters())}
    return _collect(found, names, whole.union(probed.entries, probed.exits), network)


def _parts(module: nn.Module) -> list[nn.Module | nn.Parameter]:
    return [*module.modules(), *module.parameters()]


def _refuse_unseen(network: nn.Module, seen: set[nn.Module | nn.Parameter]) -> None:
    """Whatever feeds a layer that the trace did not meet, one can't tell; it may be used another time."""
    for name, layer in network.named_modules():
        if isinstance(layer, (*CONSUMERS, *NORMS)) and layer not in seen:
            raise UserError(
                f"{name!r} ({type(layer).__name__}) takes no part in the traced forward pass: it is never "
                "called, or only under a condition or torch.no_grad(). Remove it; or, if no channel that may "
                f"be dropped ever reaches it, list it in ignored_layers: [{name}]."
            )


def _collect(
    found: list[tp.Group],
    names: dict[nn.Module | nn.Parameter, str],
    fixed: set[nn.Module | nn.Parameter],
    network: nn.Module,
) -> ChannelGroups:
    """Number the droppable channels and write down every layer's positions among them."""
    order = {part: number for number, part in enumerate(names)}
    candidates: list[tuple[int, list[tp.dependency.GroupItem]]] = []
    for group in found:
        items = [item for item in group if not isinstance(item.dep.target.module, _WIRES)]
        if not any(item.dep.target.module in fixed for item in items):
            writers = [item.dep.target.module for item in items if _is_output(item)]
            candidates.append((min(order[w] for w in writers if isinstance(w, CONSUMERS)), items))
    group_names: list[str] = []
    sizes: list[int] = []
    writes: list[tuple[str, bool, list[int], Tensor]] = []
    # in the order of the network, whatever that of the search through the graph
    for first, items in sorted(candidates, key=lambda candidate: candidate[0]):
        root = list(names.values())[first]
        for item in items:
            _refuse_unfit(item, names[item.dep.target.module], root)
        position: dict[int, int] = {}
        for number, block in enumerate(_blocks(items)):
            position |= {channel: sum(sizes) + rank for rank, channel in enumerate(block)}
            group_names.append(f"{root}:{number}" if number else root)
            sizes.append(len(block))
        for item in items:
            index = torch.tensor([position[channel] for channel in item.root_idxs])
            writes.append((names[item.dep.target.module], _is_output(item), list(item.idxs), index))
    if not sizes:
        raise UserError(
            f"{type(network).__name__} has no channels that can be dropped: every layer writes its output, "
            "reads its image, or is in ignored_layers."
        )
    return ChannelGroups(group_names, sizes, _layers(network, writes, always=sum(sizes)))


def _blocks(items: list[tp.dependency.GroupItem]) -> list[list[int]]:
    """Channels of the root that touch the same layers: each of those layers must keep some of them."""
    touched: dict[int, list[int]] = {}
    for number, item in enumerate(items):
        for channel in dict.fromkeys(item.root_idxs):
            touched.setdefault(channel, []).append(number)
    blocks: dict[tuple[int, ...], list[int]] = {}
    for channel in sorted(touched):
        blocks.setdefault(tuple(touched[channel]), []).append(channel)
    return list(blocks.values())


def _layers(
    network: nn.Module, writes: list[tuple[str, bool, list[int], Tensor]], always: int
) -> dict[str, LayerChannels]:
    layers = {}
    for name, module in network.named_modules():
        if isinstance(module, (*CONSUMERS, *NORMS)):
            n_in, n_out = _in_out(module)
            layers[name] = LayerChannels(torch.full((n_in,), always), torch.full((n_out,), always))
    for name, is_output, own, index in writes:
        module = network.get_submodule(name)
        if name not in layers:
            continue
        # A norm and a depthwise convolution map every channel to itself: both sides are one.
        both = isinstance(module, NORMS) or is_depthwise(module)
        if is_output or both:
            layers[name].outputs[own] = index
        if not is_output or both:
            layers[name].inputs[own] = index
    return layers


def _is_output(item: tp.dependency.GroupItem) -> bool:
    return bool(item.dep.handler.__name__ == "prune_out_channels")


def _in_out(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, NORMS):
        return module.num_features, module.num_features
    assert isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    return module.in_channels, module.out_channels


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution filters every channel on its own."""
    return (
        isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        and module.groups > 1
        and module.groups == module.in_channels == module.out_channels
    )


def _refuse_unfit(item: tp.dependency.GroupItem, name: str, root: str) -> None:
    """Refuse what no channel can be cut out of, and channels that can't be followed to their reader."""
    module = item.dep.target.module
    if isinstance(module, nn.PReLU) and module.num_parameters == 1:
        return
    grouped = isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.groups > 1
    remedy = name
    if isinstance(module, nn.Parameter):
        problem, remedy = "is used outside the known layers, so its channels can't be dropped", root
    elif not isinstance(module, (*CONSUMERS, *NORMS)) or (grouped and not is_depthwise(module)):
        problem = "is of a kind whose channels can't be dropped one by one"
    elif "weight" not in module._parameters:
        problem = "computes its weight (weight or spectral norm), which can't be slimmed"
    elif None in item.root_idxs or max(item.idxs) >= _in_out(module)[_is_output(item)]:
        problem, remedy = f"is reached by channels of {root!r} that were rearranged or broadcast", root
    else:
        return
    raise UserError(
        f"{name!r} ({type(module).__name__}) {problem}. Keep all channels around it with "
        f"ignored_layers: [{remedy}]."
    )
