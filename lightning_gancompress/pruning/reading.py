"""Reading of a network: from its graph to the positions of its channels in one flat mask."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg

from lightning_gancompress.errors import UserError
from lightning_gancompress.pruning.channels import CONSUMERS, ChannelGroups, Filters, LayerChannels, Product
from lightning_gancompress.pruning.graph import Deadline, Graph, operation, place_of
from lightning_gancompress.pruning.labels import NONE, core, settled
from lightning_gancompress.pruning.record import Record, Weight
from lightning_gancompress.pruning.rules import Operation, apply

_Channels = TypeVar("_Channels", LayerChannels, Filters, Product)


@dataclass(frozen=True)
class Trace:
    """One operation: the module and the line of code that call it, and the labels that it reads."""

    layer: str
    place: str
    labels: Tensor


class Reading:
    """Runs the graphs of a network on labels, and numbers the channels that can be dropped.

    Args:
        network: The network on the CPU.
        deadline: Time limit.
        computed: Names of parameters that are parametrized, so computed, in the network to be masked.

    Attributes:
        record: Labels, layers and reasons.
        deadline: Time limit.
        traces: One per operation, in the order of the pass.
    """

    def __init__(self, network: nn.Module, deadline: Deadline, computed: Collection[str] = ()) -> None:
        self.record = Record(network, computed)
        self.traces: list[Trace] = []
        self._blamed: set[str] = set()
        self._network, self.deadline = network, deadline

    def walk(self, graph: Graph) -> None:
        """Run the operations of a graph on labels in place of values."""
        values: dict[Node, Any] = {}
        last = {read: node for node in graph.nodes for read in node.all_input_nodes}
        uses, self.record.called = dict(self.record.uses), graph.calls
        for number, node in enumerate(graph.nodes):
            self.deadline.check(lambda n=number: f"operation {n} of {len(graph.nodes)}")  # type: ignore[misc]
            if node.op == "placeholder":
                values[node] = self._placeholder(graph, node)
            elif node.op == "output":
                for labels in _tensors(map_arg(node.args, values.__getitem__)):
                    self.record.keep(labels, "makes the output")
            elif node.op == "call_function" and node.target is operator.getitem:
                source, index = node.args
                values[node] = values[source][index]  # type: ignore[index]
            else:
                values[node] = self._run(node, values)
            for read in node.all_input_nodes:
                if last[read] is node:
                    del values[read]
        for layer, count in self.record.uses.items():
            if count - uses.get(layer, 0) > graph.calls[layer]:
                self.record.keep(
                    self.record.layers[layer].inputs, f"{layer!r} has a weight that is used without it"
                )

    def _placeholder(self, graph: Graph, node: Node) -> Any:
        value = node.meta["val"]
        if node.name in graph.tensors:
            return Weight(graph.tensors[node.name], value.shape)
        if not isinstance(value, Tensor):
            return value
        if node.name in graph.images:
            return self.record.fixed(value.shape, "goes with channels of the input")
        return torch.full([1] * value.ndim, NONE).expand(value.shape)

    def _run(self, node: Node, values: dict[Node, Any]) -> Any:
        output = node.meta.get("val")
        shapes = tuple(torch.Size(n if isinstance(n, int) else 1 for n in x.shape) for x in _tensors(output))
        if not shapes:
            return output
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        schema = getattr(node.target, "_schema", None)
        named: dict[str, Any] = {a.name: a.default_value for a in schema.arguments} if schema else {}
        keys = list(named) if schema else [str(position) for position in range(len(args))]
        named |= dict(zip(keys, args, strict=False)) | kwargs
        op = Operation(self.record, node, operation(node), named, shapes)
        self.traces.append(Trace(op.caller, place_of(node), _labels_in(named)))
        known = all(isinstance(n, int) for x in _tensors(output) for n in x.shape)
        result = apply(op) if known else op.fixed("makes as many as the values say")
        if isinstance(result, (tuple, list)):
            return tuple(map(settled, result))
        return settled(result) if isinstance(result, Tensor) else result

    def keep(self, modules: Iterable[str], reason: str) -> None:
        """Keep all channels of layers, tensors and filters in these modules."""
        names, record = set(modules), self.record
        for name in names & record.layers.keys():
            record.keep_layer(name, reason)
        for name, labels in record.tensors.items():
            if name.rpartition(".")[0] in names:
                record.keep(labels, reason)
        for name, filters in record.filters.items():
            if name.rpartition(".")[0] in names:
                record.keep(torch.cat([filters.inputs, filters.outputs]), reason)

    def blame(self, calls: list[str], places: list[str], reason: str) -> None:
        """Keep the channels that may cause a difference of masked and slim network after some layers.

        These are the first of the following that are not kept already: channels that the failing line reads;
        those read up to the next layer; those that this layer writes; those read before; all channels.

        Args:
            calls: Names of the layers that were called before the difference.
            places: If the forward failed, the lines of the network's own code in the traceback.
            reason: Reason for which the channels are kept.

        Raises:
            UserError: All channels are kept already.
        """
        start, end = self._span(calls)
        failing = [trace for trace in self.traces[start:end] if trace.place in places]
        # a line that fails again is kept for all channels, unless it is one that calls layers
        lines = {trace.place for trace in failing if trace.layer not in self.record.layers}
        if again := self._blamed & lines:
            failing = [trace for trace in self.traces if trace.place in again]
        self._blamed |= lines
        written = self.record.layers.get(self.traces[end - 1].layer)
        suspects = [_read(failing), _read(self.traces[start:end]), written.outputs if written else _read([])]
        for labels in (*suspects, _read(self.traces[:end]), torch.cat([x for _, _, x in self._accesses()])):
            kept = self._reasons(self.record.kept)
            free = [c not in kept for c in self.record.labels.classes(labels).tolist()]
            if any(free):
                self.record.keep(labels[torch.tensor(free)], reason)
                return
        raise UserError(
            f"{type(self._network).__name__} can't be slimmed exactly even with all channels kept: {reason}. "
            "Its forward must compute the same for the same image each time."
        )

    def _span(self, calls: list[str]) -> tuple[int, int]:
        """Range of the operations after the calls, up to and with the next operation of a layer."""
        start, total = 0, len(self.traces)
        for name in calls:
            later = (n + 1 for n in range(start, total) if self.traces[n].layer == name)
            start = next(later, start)
        following = (n for n in range(start, total) if self.traces[n].layer in self.record.layers)
        return start, next(following, total - 1) + 1

    # -- numbering -------------------------------------------------------------------------------------

    def groups(self) -> ChannelGroups:
        """Number the channels that can be dropped.

        Channels that are read and written by the same layers are a group, of which each layer must keep at
        least one channel. A group of one channel can't be dropped.
        """
        record = self.record
        self._settle()
        accesses = list(self._accesses())
        reasons = self._reasons(record.kept)
        accessed_by: dict[int, list[int]] = {}
        for number, (_, _, labels) in enumerate(accesses):
            for channel in dict.fromkeys(record.labels.classes(labels).tolist()):
                if channel not in reasons:
                    accessed_by.setdefault(channel, []).append(number)
        alike: dict[tuple[int, ...], list[int]] = {}
        for channel, numbers in accessed_by.items():
            alike.setdefault(tuple(numbers), []).append(channel)
        groups = sorted(
            (min(key, key=lambda number: (not accesses[number][1], number)), channels)
            for key, channels in alike.items()
            if len(channels) > 1
        )
        positions = {c: position for position, c in enumerate(c for _, channels in groups for c in channels)}
        names, counts = [], Counter[str]()
        for number, _ in groups:
            name = accesses[number][0]
            names.append(f"{name}:{counts[name]}" if counts[name] else name)
            counts[name] += 1
        return self._grouped(names, [len(channels) for _, channels in groups], positions)

    def _grouped(self, names: list[str], sizes: list[int], positions: dict[int, int]) -> ChannelGroups:
        record, total = self.record, len(positions)

        def place(labels: Tensor) -> Tensor:
            classes = record.labels.classes(labels)
            return torch.tensor([positions.get(c, total) for c in classes.tolist()], dtype=torch.int64)

        def placed(known: _Channels) -> _Channels:
            return replace(known, inputs=place(known.inputs), outputs=place(known.outputs))

        layers = {name: placed(channels) for name, channels in record.layers.items()}
        filters = {name: placed(channels) for name, channels in record.filters.items()}
        tensors = {}
        for name, labels in record.tensors.items():
            if (axis := self._axis(labels)) is not None:
                tensors[name] = {axis: place(labels.movedim(axis, 0).reshape(labels.shape[axis], -1)[:, 0])}
        for name, one in filters.items():
            shape, both = record.shape_of(name), zip(one.axes, (one.outputs, one.inputs), strict=True)
            tensors[name] = {axis: index for axis, index in both if len(index) == shape[axis]}
        tensors = {n: axes for n, axes in tensors.items() if any((p < total).any() for p in axes.values())}
        products = [placed(product) for product in record.products]
        return ChannelGroups(names, sizes, layers, tensors, filters, products, self._whole(positions))

    def _settle(self) -> None:
        """Keep channels of tensors that are used in two ways, vary along two axes, or are not saved."""
        record = self.record
        for name in record.held.keys() & record.layers.keys():
            record.keep_layer(name, record.held[name])
        for name, filters in record.filters.items():
            if name in record.tensors:
                for labels in (filters.inputs, filters.outputs, record.tensors[name]):
                    record.keep(labels, f"{name!r} is used in several ways")
            for axis, labels in zip(filters.axes, (filters.outputs, filters.inputs), strict=True):
                if not record.can_be_cut(name, axis):
                    record.keep(labels, f"{name!r} is not saved with the network")
        for name, labels in record.tensors.items():
            axis_of = self._axis(labels)
            if axis_of is None:
                record.keep(labels, f"{name!r} has their values along several axes")
            elif not record.can_be_cut(name, axis_of):
                record.keep(labels, f"{name!r} is not saved with the network")

    def _axis(self, labels: Tensor) -> int | None:
        """The axis of a tensor along which its channels vary; None if there is none."""
        classes = self.record.labels.classes(labels)
        for axis in range(classes.ndim):
            rows = classes.movedim(axis, 0).reshape(classes.shape[axis], -1)
            if len(rows) > 1 and bool((rows == rows[:, :1]).all()) and bool((rows[:, 0] != rows[0, 0]).any()):
                return axis
        return None

    def _accesses(self) -> Iterator[tuple[str, bool, Tensor]]:
        """Name, whether it writes, and labels of each read and write of channels, in the order of modules."""
        record = self.record
        for name, module in self._network.named_modules():
            if name in record.layers:
                yield name, isinstance(module, CONSUMERS), record.layers[name].outputs
                yield name, False, record.layers[name].inputs
            for key, filters in record.filters.items():
                if key.rpartition(".")[0] == name:
                    yield key, True, filters.outputs
                    yield key, False, filters.inputs
            for tensor, labels in record.tensors.items():
                if tensor.rpartition(".")[0] == name:
                    yield tensor, False, labels.flatten()

    def _reasons(self, events: Iterable[tuple[Tensor, str]]) -> dict[int, str]:
        """The first reason for each class."""
        reasons: dict[int, str] = {}
        for labels, reason in events:
            for channel in self.record.labels.classes(labels).tolist():
                reasons.setdefault(channel, reason)
        return reasons

    def _whole(self, positions: dict[int, int]) -> dict[str, str]:
        """The most frequent reason of each layer whose output channels are all kept, by name."""
        kept, bonds = self._reasons(self.record.kept), self._reasons(self.record.bonds)
        whole = {}
        for name, writes, labels in self._accesses():
            classes = self.record.labels.classes(labels).tolist()
            if writes and not any(c in positions for c in classes):
                reasons = [kept[c] for c in classes if c in kept]
                if not reasons:
                    cause = next((bonds[c] for c in classes if c in bonds), None)
                    reasons = [
                        f"its channels can only go together: {cause}" if cause else "it has one channel"
                    ]
                whole[name] = Counter(reasons).most_common(1)[0][0]
        return whole


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _read(traces: Iterable[Trace]) -> Tensor:
    """All labels that operations read."""
    return torch.cat([torch.zeros(0, dtype=torch.int64), *(trace.labels for trace in traces)])


def _labels_in(named: dict[Any, Any]) -> Tensor:
    """All labels among the arguments of an operation."""
    labels = [torch.unique(core(x)) for x in _tensors(list(named.values()))]
    return torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64)
