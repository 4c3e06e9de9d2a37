"""Groups: which channels of a network must be kept or dropped together."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TypeAlias

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

# Layers without tensors that mix channels: the graph would take them for activations.
_MIXERS = (nn.LocalResponseNorm,)
# What the dependency graph itself puts between layers: they carry channels but own no tensors.
_WIRES = tuple(
    getattr(tp.ops, f"_{kind}Op")
    for kind in ("Concat", "Split", "ElementWise", "Reshape", "Unbind", "Slice", "Expand", "Output")
    if hasattr(tp.ops, f"_{kind}Op")
)
_Part: TypeAlias = nn.Module | nn.Parameter
_Items: TypeAlias = "list[tp.dependency.GroupItem]"


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
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name} can't be traced for pruning ({type(error).__name__}: {error}). Its forward must work on "
            "tensors alone, without control flow that depends on their values."
        ) from error
    whole = {x for ignored in ignored_layers for x in _parts(copied.get_submodule(ignored))}
    _refuse_unseen(copied, whole.union(graph.module2node))
    groups = _Reading(graph, probed, whole).groups()
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


def _parts(module: nn.Module) -> list[_Part]:
    return [*module.modules(), *module.parameters()]


def _refuse_unseen(network: nn.Module, seen: set[_Part]) -> None:
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
    """From the dependency graph to the positions of every layer's channels.

    Args:
        graph: The dependency graph.
        probed: What it is of.
        whole: What the user wants to keep.
    """

    def __init__(self, graph: tp.DependencyGraph, probed: Probed, whole: set[_Part]) -> None:
        self.graph = graph
        self.probed = probed
        self.names: dict[_Part, str] = {x: name for name, x in probed.network.named_modules()}
        self.names |= {x: name for name, x in probed.network.named_parameters()}
        self.known = set(self.names)
        self.names |= {standing.layer: standing.name for standing in probed.stand_ins}
        self.fixed = whole.union(probed.entries, probed.exits)
        self.ties = Ties()
        # channels that each part reads and writes; one list for both where they are the same
        self.sides: dict[_Part, tuple[list[int], list[int]]] = {}
        for part, name in self.names.items():
            if isinstance(part, (*CONSUMERS, *CHANNELWISE)):
                self._add(part, name, *widths(part))
            elif isinstance(part, nn.Module):
                for key, tensor in part.named_parameters(name, recurse=False):
                    if tensor.ndim and max(tensor.shape) == tensor.numel():
                        self._add(tensor, key, tensor.numel(), tensor.numel())

    def _add(self, part: _Part, name: str, n_in: int, n_out: int) -> None:
        writes = isinstance(part, CONSUMERS) and part in self.known
        outputs = self.ties.side(name, n_out, writes)
        one = not isinstance(part, nn.Module) or is_channelwise(part)
        self.sides[part] = (outputs if one else self.ties.side(name, n_in, writes=False), outputs)

    def groups(self) -> ChannelGroups:
        """Number the channels that can be dropped."""
        found = list(self.graph.get_all_groups(root_module_types=list(CONSUMERS)))
        met = self._read([_items(group) for group in found])
        for sides in self.sides.values():
            self.ties.tie([ALWAYS, *(channel for side in sides for channel in side if channel not in met)])
        for bond in self._bonds():
            self.ties.tie(bond)
        names, sizes, places = self.ties.number()
        layers, tensors = {}, {}
        for part, (inputs, outputs) in self.sides.items():
            if part in self.known and isinstance(part, nn.Module):
                layers[self.names[part]] = LayerChannels(places[inputs], places[outputs])
            elif part in self.known and (places[outputs] < sum(sizes)).any():
                tensors[self.names[part]] = places[outputs]
        for standing in self.probed.stand_ins:
            if standing.tensor is not None:
                tensors[standing.tensor] = places[self.sides[standing.layer][1]]
        return ChannelGroups(names, sizes, layers, tensors)

    def _read(self, groups: list[_Items]) -> set[int]:
        """Tie what each group ties; return the channels of which it is known where they go."""
        met: set[int] = set()
        order = {part: number for number, part in enumerate(self.names)}
        kept = self._kept([{item.dep.target.module for item in items} for items in groups])
        feeders: dict[_Part, str] = {}  # of stand-ins, which no user knows
        first = {
            number: min((order[item.dep.target.module] for item in items if _writes(item)), default=0)
            for number, items in enumerate(groups)
            if number not in kept
        }
        parts = list(self.names)
        for number in sorted(first, key=lambda number: first[number]):
            writer = parts[first[number]]
            root = self.names[writer] if writer in self.known else feeders.get(writer, self.names[writer])
            for items in self._from_all_writers(groups[number]):
                source = self.sides[items[0].dep.target.module][1]
                for item in items:
                    self._refuse_unfit(item, root)
                    side = self._side(item)
                    for own, channel in zip(item.idxs, item.root_idxs, strict=True):
                        self.ties.tie([side[own], source[channel]])
                    met.update(side[own] for own in item.idxs)
                    if not _is_output(item):
                        feeders[item.dep.target.module] = root
        for number in kept:
            for item in groups[number]:
                side = self._side(item)  # such a group may reach what can't be followed
                self.ties.tie([ALWAYS, *(side[own] for own in item.idxs if own < len(side))])
        return met

    def _from_all_writers(self, items: _Items) -> Iterator[_Items]:
        """A group as each of its writers sees it that the root reaches in part only.

        The graph keeps one root channel for each channel of a layer, even if several reach it.
        """
        seen, waiting = {items[0].dep.target.module}, [items]
        while waiting:
            items = waiting.pop()
            yield items
            width = len(items[0].idxs)
            for item in items:
                part = item.dep.target.module
                if _writes(item) and part not in seen and len({*item.root_idxs}) < width:
                    seen.add(part)
                    prune = self.graph.get_pruner_of_module(part).prune_out_channels
                    channels = list(range(widths(part)[1]))
                    waiting.append(_items(self.graph.get_pruning_group(part, prune, channels)))

    def _kept(self, groups: list[set[_Part]]) -> set[int]:
        """Numbers of the groups that touch what is fixed, by themselves or through stand-ins."""
        kept = {number for number, parts in enumerate(groups) if parts & self.fixed}
        passing = [standing.layer for standing in self.probed.stand_ins if -1 not in standing.inputs]
        for layer in [*passing, *reversed(passing)]:
            touched = {number for number, parts in enumerate(groups) if layer in parts}
            kept |= touched if touched & kept else set()
        return kept

    def _side(self, item: tp.dependency.GroupItem) -> list[int]:
        return self.sides.get(item.dep.target.module, ([], []))[_is_output(item)]

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
        elif None in item.root_idxs or max(item.idxs) >= len(self._side(item)):
            problem, remedy = f"is reached by channels of {root!r} that were rearranged or broadcast", root
        else:
            return
        kind = type(module).__name__ if module in self.known else "a function"
        raise UserError(
            f"{name!r} ({kind}) {problem}. Keep all channels around it with ignored_layers: [{remedy}]."
        )


def _carries(module: _Part) -> bool:
    """Whether channels pass by without meeting a tensor of theirs."""
    return isinstance(module, _WIRES) or (isinstance(module, nn.PReLU) and module.num_parameters == 1)


def _items(group: tp.Group) -> _Items:
    return [item for item in group if not _carries(item.dep.target.module)]


def _is_output(item: tp.dependency.GroupItem) -> bool:
    return bool(item.dep.handler.__name__ == "prune_out_channels")


def _writes(item: tp.dependency.GroupItem) -> bool:
    return _is_output(item) and isinstance(item.dep.target.module, CONSUMERS)


def _cut(side: list[int], count: int) -> list[list[int]]:
    size = len(side) // count
    return [side[start : start + size] for start in range(0, len(side), size)]
