"""Groups: which channels of a network must be kept or dropped together."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

import torch
import torch_pruning as tp
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import bake_parametrizations, copy_network
from lightning_gancompress.pruning.channels import (
    CHANNELWISE,
    CONSUMERS,
    ChannelGroups,
    LayerChannels,
    can_be_cut,
    is_channelwise,
    widths,
)
from lightning_gancompress.pruning.probes import Probed, flatten
from lightning_gancompress.pruning.stand_ins import Watch
from lightning_gancompress.pruning.ties import ALWAYS, Ties

_UNMET = -1  # no group reaches the channel
# Layers without tensors that mix channels: the graph would take them for activations.
_MIXERS = (nn.LocalResponseNorm,)
# What the dependency graph itself puts between layers: they carry channels but own no tensors.
_WIRES = tuple(
    getattr(tp.ops, f"_{kind}Op")
    for kind in ("Concat", "Split", "ElementWise", "Reshape", "Unbind", "Slice", "Expand", "Output")
    if hasattr(tp.ops, f"_{kind}Op")
)


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
    side_by_side = list(network.values()) if isinstance(network, nn.ModuleDict) else [network]
    name = " and ".join(dict.fromkeys(type(one).__name__ for one in side_by_side))
    for one in side_by_side:
        _check_arguments(one, len(inputs) // len(side_by_side))
    inputs = [x.detach().cpu().float() if x.is_floating_point() else x.cpu() for x in inputs]
    try:
        copied = _traceable(network)
        with torch.no_grad(), Watch(name, copied) as watch:
            outputs = flatten(copied(*watch.follow([x.clone() for x in inputs])))
        probed = Probed(copied, name, inputs, outputs, watch.made).eval()
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
            f"{name} can't be traced for pruning ({type(error).__name__}: {error}). Its forward must work on "
            "tensors alone, without control flow that depends on their values."
        ) from error
    whole = {x for ignored in ignored_layers for x in _parts(copied.get_submodule(ignored))}
    _refuse_unseen(copied, whole.union(graph.module2node))
    groups = _Reading(probed, whole).groups(found)
    if not groups.total:
        raise UserError(
            f"{name} has no channels that can be dropped: every layer writes its output, reads its image, or "
            "is in ignored_layers."
        )
    return groups


def _check_arguments(network: nn.Module, given: int) -> None:
    try:
        inspect.signature(network.forward).bind(*range(given))
    except TypeError as error:
        raise UserError(
            f"{type(network).__name__}.forward can't be called with {given} input{'s' * (given != 1)} alone "
            f"({error}): wrap it in a module whose forward needs no more, or give the others a default."
        ) from error


def _traceable(network: nn.Module) -> nn.Module:
    """A copy in which every tensor with channels shows in the graph, which follows gradients."""
    copied = bake_parametrizations(copy_network(network)).cpu().float().eval()
    for module in copied.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            # (C, 1, 1) or (1, C, 1, 1), which can only meet the channels of images
            if buffer.ndim > 2 and buffer.shape[-3] == buffer.numel() > 1 and can_be_cut(module, name):
                delattr(module, name)
                module.register_parameter(name, nn.Parameter(buffer))
    return copied.requires_grad_(True)


def _parts(module: nn.Module) -> list[nn.Module | nn.Parameter]:
    return [*module.modules(), *module.parameters()]


def _refuse_unseen(network: nn.Module, seen: set[nn.Module | nn.Parameter]) -> None:
    """Whatever feeds a layer that the trace did not meet, one can't tell; it may be used another time."""
    within = {part for module in network.modules() if module in seen for part in module.modules()}
    for name, layer in network.named_modules():
        if isinstance(layer, (*CONSUMERS, *CHANNELWISE)) and layer not in within:
            raise UserError(
                f"{name!r} ({type(layer).__name__}) takes no part in the traced forward pass: it is never "
                "called, or only under a condition or torch.no_grad(). Remove it; or, if no channel that may "
                f"be dropped ever reaches it, list it in ignored_layers: [{name}]."
            )


class _Reading:
    """From the groups of the dependency graph to the positions of every layer's channels.

    Args:
        probed: The traced network.
        whole: What the user wants to keep.
    """

    def __init__(self, probed: Probed, whole: set[nn.Module | nn.Parameter]) -> None:
        self.probed = probed
        self.names: dict[nn.Module | nn.Parameter, str] = {x: n for n, x in probed.network.named_modules()}
        self.names |= {x: n for n, x in probed.network.named_parameters()}
        self.order = {part: number for number, part in enumerate(self.names)}
        self.names |= {standing.layer: standing.name for standing in probed.stand_ins}
        self.fixed = whole.union(probed.entries, probed.exits)
        self.ties = Ties()
        # positions that each part reads and writes; one list for both where they are the same channels
        self.sides: dict[nn.Module | nn.Parameter, tuple[list[int], list[int]]] = {}
        for part in self.names:
            if isinstance(part, (*CONSUMERS, *CHANNELWISE)):
                inputs, outputs = ([_UNMET] * width for width in widths(part))
                self.sides[part] = (inputs, inputs if is_channelwise(part) else outputs)
            elif isinstance(part, nn.Module):
                for tensor in part.parameters(recurse=False):
                    if tensor.ndim and max(tensor.shape) == tensor.numel():
                        channels = [_UNMET] * tensor.numel()
                        self.sides[tensor] = (channels, channels)

    def groups(self, found: list[tp.Group]) -> ChannelGroups:
        """Number the channels that can be dropped."""
        self._read(found)
        for sides in self.sides.values():
            for side in sides:
                side[:] = [ALWAYS if position == _UNMET else position for position in side]
        for bond in self._bonds():
            self.ties.tie(bond)
        names, sizes, places = self.ties.number()
        layers, tensors = {}, {}
        for part, (inputs, outputs) in self.sides.items():
            if part in self.order and isinstance(part, nn.Module):
                layers[self.names[part]] = LayerChannels(places[inputs], places[outputs])
            elif part in self.order and any(outputs):
                tensors[self.names[part]] = places[outputs]
        for standing in self.probed.stand_ins:
            if standing.tensor is not None:
                tensors[standing.tensor] = places[self.sides[standing.layer][1]]
        return ChannelGroups(names, sizes, layers, tensors)

    def _read(self, found: list[tp.Group]) -> None:
        grouped = [[item for item in group if not _carries(item.dep.target.module)] for group in found]
        kept = self._kept([{item.dep.target.module for item in items} for items in grouped])
        candidates = []
        for number, items in enumerate(grouped):
            if number in kept:
                for item in items:
                    self._write(item, [ALWAYS] * len(item.idxs))
            else:
                writers = {item.dep.target.module for item in items if _is_output(item)}
                first = next(x for x in self.names if x in writers and isinstance(x, CONSUMERS))
                candidates.append((first, items))
        # in the order of the network, whatever that of the search through the graph; stand-ins come last
        order = list(self.names)
        feeders: dict[nn.Module | nn.Parameter, str] = {}  # of stand-ins, which no user knows
        for first, items in sorted(candidates, key=lambda candidate: order.index(candidate[0])):
            root = self.names[first] if first in self.order else feeders.get(first, self.names[first])
            for item in items:
                self._refuse_unfit(item, root)
                if not _is_output(item):
                    feeders[item.dep.target.module] = root
            position: dict[int, int] = {}
            for block in _blocks(items):
                position |= dict(zip(block, self.ties.block(root, len(block)), strict=True))
            for item in items:
                self._write(item, [position[channel] for channel in item.root_idxs])

    def _kept(self, groups: list[set[nn.Module | nn.Parameter]]) -> set[int]:
        """Numbers of the groups that touch what is fixed, by themselves or through stand-ins."""
        kept = {number for number, parts in enumerate(groups) if parts & self.fixed}
        passing = [standing.layer for standing in self.probed.stand_ins if -1 not in standing.inputs]
        for layer in [*passing, *reversed(passing)]:
            touched = {number for number, parts in enumerate(groups) if layer in parts}
            kept |= touched if touched & kept else set()
        return kept

    def _write(self, item: tp.dependency.GroupItem, positions: list[int]) -> None:
        side = self.sides.get(item.dep.target.module, ([], []))[_is_output(item)]
        for own, position in zip(item.idxs, positions, strict=True):
            if own < len(side):  # a group that is kept may reach what can't be followed
                if side[own] != _UNMET:
                    self.ties.tie([side[own], position])
                side[own] = position

    def _bonds(self) -> Iterator[Sequence[int]]:
        """Positions that go together because of a layer that reads or writes them."""
        for standing in self.probed.stand_ins:
            inputs, outputs = self.sides[standing.layer]
            bonds = {-1: [ALWAYS]}
            for number, position in zip(standing.inputs + standing.outputs, inputs + outputs, strict=True):
                bonds.setdefault(number, []).append(position)
            yield from bonds.values()
        filters: dict[str, list[int]] = {}
        for standing in self.probed.stand_ins:
            if standing.tensor is not None:  # which may be used again, elsewhere
                outputs = self.sides[standing.layer][1]
                yield from zip(filters.setdefault(standing.tensor, outputs), outputs, strict=True)
        for layer, (inputs, outputs) in self.sides.items():
            if isinstance(layer, nn.GroupNorm):
                yield from _cut(outputs, layer.num_groups)
            elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.groups > 1:
                for read, written in zip(
                    _cut(inputs, layer.groups), _cut(outputs, layer.groups), strict=True
                ):
                    yield read + written

    def _refuse_unfit(self, item: tp.dependency.GroupItem, root: str) -> None:
        """Refuse what no channel can be cut out of, and channels that can't be followed to their reader."""
        module = item.dep.target.module
        name = remedy = self.names[module]
        if isinstance(module, nn.Parameter) and module not in self.sides:
            problem, remedy = "is used outside the known layers, so its channels can't be dropped", root
        elif module not in self.sides:
            problem = "is of a kind whose channels can't be dropped one by one"
        elif None in item.root_idxs or max(item.idxs) >= len(self.sides[module][_is_output(item)]):
            problem, remedy = f"is reached by channels of {root!r} that were rearranged or broadcast", root
        else:
            return
        kind = type(module).__name__ if module in self.order else "a function"
        raise UserError(
            f"{name!r} ({kind}) {problem}. Keep all channels around it with ignored_layers: [{remedy}]."
        )


def _carries(module: nn.Module | nn.Parameter) -> bool:
    """Whether channels pass by without meeting a tensor of theirs."""
    return isinstance(module, _WIRES) or (isinstance(module, nn.PReLU) and module.num_parameters == 1)


def _is_output(item: tp.dependency.GroupItem) -> bool:
    return bool(item.dep.handler.__name__ == "prune_out_channels")


def _cut(side: list[int], count: int) -> list[list[int]]:
    size = len(side) // count
    return [side[start : start + size] for start in range(0, len(side), size)]


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
