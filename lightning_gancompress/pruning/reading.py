"""Reading: from the dependency graph of a network to the positions of its channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch_pruning as tp
from torch import nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.pruning.channels import (
    CHANNELWISE,
    CONSUMERS,
    ChannelGroups,
    LayerChannels,
    is_channelwise,
    widths,
)
from lightning_gancompress.pruning.probes import Probed
from lightning_gancompress.pruning.ties import ALWAYS, Ties

# What the dependency graph itself puts between layers: they carry channels but own no tensors.
_WIRES = tuple(
    getattr(tp.ops, f"_{kind}Op")
    for kind in ("Concat", "Split", "ElementWise", "Reshape", "Unbind", "Slice", "Expand", "Output")
    if hasattr(tp.ops, f"_{kind}Op")
)
Part: TypeAlias = nn.Module | nn.Parameter
_Items: TypeAlias = "list[tp.dependency.GroupItem]"


class Reading:
    """From the dependency graph to the positions of every layer's channels.

    Args:
        graph: The dependency graph.
        probed: What it is of.
        whole: What the user wants to keep.
    """

    def __init__(self, graph: tp.DependencyGraph, probed: Probed, whole: set[Part]) -> None:
        self.graph = graph
        self.probed = probed
        self.names: dict[Part, str] = {x: name for name, x in probed.network.named_modules()}
        self.names |= {x: name for name, x in probed.network.named_parameters()}
        self.known = set(self.names)
        self.names |= {standing.layer: standing.name for standing in probed.stand_ins}
        self.fixed = whole.union(probed.entries, probed.exits)
        self.ties = Ties()
        # channels that each part reads and writes; one list for both where they are the same
        self.sides: dict[Part, tuple[list[int], list[int]]] = {}
        for part, name in self.names.items():
            if isinstance(part, (*CONSUMERS, *CHANNELWISE)):
                self._add(part, name, *widths(part))
            elif isinstance(part, nn.Module):
                for key, tensor in part.named_parameters(name, recurse=False):
                    if tensor.ndim and max(tensor.shape) == tensor.numel():
                        self._add(tensor, key, tensor.numel(), tensor.numel())

    def _add(self, part: Part, name: str, n_in: int, n_out: int) -> None:
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
        feeders: dict[Part, str] = {}  # of stand-ins, which no user knows
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

    def _kept(self, groups: list[set[Part]]) -> set[int]:
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


def _carries(module: Part) -> bool:
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
