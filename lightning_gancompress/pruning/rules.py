"""Rules: the effect of each torch operation on the labels of its inputs.

A rule joins labels of channels that can only be kept or dropped together, keeps channels that can't be
followed, and returns the labels of the operation's results.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from lightning_gancompress.pruning.channels import CHANNELWISE, CONSUMERS, Filters
from lightning_gancompress.pruning.graph import module_of, place_of
from lightning_gancompress.pruning.labels import NONE, core, varies
from lightning_gancompress.pruning.record import Record, Weight


@dataclass(frozen=True)
class Operation:
    """One operation of the graph with the labels of its inputs.

    Attributes:
        record: Record of labels, layers and reasons, to which rules add.
        node: Node of the graph.
        name: Name of the operation in torch.
        args: All arguments by name: labels in place of tensors, weights, numbers.
        shapes: Shapes of all results.
    """

    record: Record
    node: Node
    name: str
    args: dict[str, Any]
    shapes: tuple[torch.Size, ...]

    @property
    def shape(self) -> torch.Size:
        """Shape of the first result."""
        return self.shapes[0]

    @property
    def caller(self) -> str:
        """First name of the module whose forward calls the operation."""
        return self.record.name_of(module_of(self.node))

    def why(self, verb: str) -> str:
        """A reason as text: the operation, a verb with its object, the module and the line of code."""
        module = f" in {self.caller!r}" if self.caller else ""
        place = f" ({Path(place_of(self.node)).name})" if place_of(self.node) else ""
        return f"{self.name} {verb}{module}{place}"

    def labels(self, key: str | int) -> Tensor:
        """Labels of an argument, by name or position."""
        value = list(self.args.values())[key] if isinstance(key, int) else self.args[key]
        return self._labels(value)

    def tensors(self) -> list[Tensor]:
        """Labels of all tensors among the arguments."""
        flat = [y for x in self.args.values() for y in (x if isinstance(x, (list, tuple)) else [x])]
        return [self._labels(x) for x in flat if isinstance(x, (Tensor, Weight))]

    def _labels(self, value: Any) -> Tensor:
        if isinstance(value, Weight):
            return self.record.labels_of(value, self.why("uses the tensor of a layer"))
        assert isinstance(value, Tensor)
        return value

    def fixed(self, verb: str) -> Any:
        """Keep all input channels; return labels of results whose shapes never change."""
        reason = self.why(verb)
        for labels in self.tensors():
            self.record.keep(labels, reason)
        return self.whole(reason)

    def whole(self, reason: str) -> Any:
        """Labels of results whose shapes never change."""
        results = tuple(self.record.fixed(shape, reason) for shape in self.shapes)
        return results if len(results) > 1 or self.returns_several else results[0]

    @property
    def returns_several(self) -> bool:
        """Whether the result is a tuple or list."""
        return isinstance(self.node.meta["val"], (tuple, list))


Rule = Callable[[Operation], Any]


def apply(op: Operation) -> Any:
    """Labels of the results of an operation, by its rule.

    If the rule fails, or returns other shapes, all input channels are kept.
    """
    try:
        results = rule_for(op)(op)
        shapes = [x.shape for x in (results if isinstance(results, (tuple, list)) else [results])]
    except (RuntimeError, IndexError, KeyError, TypeError, ValueError):
        shapes = []
    return results if shapes == list(op.shapes) else op.fixed("is used in a way that can't be followed")


def rule_for(op: Operation) -> Rule:
    """The rule of an operation."""
    for pattern, rule in _RULES.items():
        if re.fullmatch(pattern, op.name):
            return rule
    if torch.Tag.pointwise in getattr(op.node.target, "tags", ()):
        return elementwise
    if getattr(op.node.target, "is_view", False):
        return move
    return unknown if op.tensors() else new


def unknown(op: Operation) -> Any:
    """An operation without a rule: all input channels are kept."""
    return op.fixed("is not known to keep channels apart")


def new(op: Operation) -> Any:
    """New tensors, such as zeros and noise, which have no channels."""
    return torch.full([1] * len(op.shape), NONE).expand(op.shape)


# -- element by element --------------------------------------------------------------------------------


def elementwise(op: Operation) -> Any:
    """An elementwise operation joins the labels of elements that it combines."""
    values = [x for x in op.args.values() if isinstance(x, (Tensor, Weight)) and math.prod(x.shape) > 1]
    if len(values) == 1 and isinstance(values[0], Weight) and values[0].shape == op.shape and _is_linear(op):
        return values[0]
    result = combine(op, op.tensors())
    return (result,) * len(op.shapes) if op.returns_several else result


def _is_linear(op: Operation) -> bool:
    """Whether scaling the only input tensor, as masks do with filters, scales the result."""
    return op.name in ("mul", "div", "neg", "clone", "to", "_to_copy", "type_as", "contiguous")


def combine(op: Operation, tensors: Sequence[Tensor], shape: torch.Size | None = None) -> Tensor:
    """Join the labels of tensors that broadcast to the shape of the result, or to `shape`.

    A tensor of one channel that is broadcast over the channels of another is kept, and not joined with these.
    """
    shape = op.shape if shape is None else shape
    rank = len(shape)
    tensors = [x.reshape([1] * (rank - x.ndim) + list(x.shape)) for x in tensors]
    result = torch.full([1] * rank, NONE)
    for number, x in enumerate(tensors):
        others = tensors[:number] + tensors[number + 1 :]
        dims = [d for d in range(rank) if x.shape[d] == 1]
        if any(varies(other, dims) for other in others):
            op.record.keep(x, op.why("spreads one channel over many"))
            tensors[number] = torch.full([1] * rank, NONE)
    for x in map(core, tensors):
        op.record.labels.join(result, x)
        result = torch.where(result == NONE, x, result)
    return result.expand(shape)


# -- moving data ---------------------------------------------------------------------------------------


def move(op: Operation) -> Any:
    """An operation that moves data is applied to the labels themselves."""
    if op.name in ("view", "_unsafe_view", "reshape"):
        return op.labels(0).reshape(op.shape)
    arguments = [a.name for a in op.node.target._schema.arguments if not a.kwarg_only]  # type: ignore[union-attr]
    return op.node.target(*(_moved(op, op.args[name]) for name in arguments))  # type: ignore[operator]


def _moved(op: Operation, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_moved(op, x) for x in value]
    return op._labels(value) if isinstance(value, (Tensor, Weight)) else value


def expand(op: Operation) -> Any:
    """Expand along new dimensions or those of size one; a single channel that is expanded is kept."""
    x = op.labels(0)
    sizes = [1] * (len(op.shape) - x.ndim) + list(x.shape)
    grown = [d for d, (old, size) in enumerate(zip(sizes, op.shape, strict=True)) if old != size]
    if core(x).numel() > 1 or not any(grown):
        return move(op)
    op.record.keep(x, op.why("spreads one channel over many"))
    return new(op)


def split(op: Operation) -> Any:
    """Split into chunks of equal length, which stay equal if the same channels are dropped in each."""
    x, dim = op.labels(0), op.args.get("dim", 0)
    if varies(x, [dim]):
        size = x.shape[dim]
        length, rows = _chunk_length(op, size), core(x.movedim(dim, -1))
        if length is None or (length == 1 and rows[..., 0].numel() == 1):
            op.record.keep(x, op.why("takes channels by fixed numbers"))
        else:
            rows = rows.reshape(*rows.shape[:-1], size // length, length).transpose(-1, -2)
            op.record.bond(rows.reshape(-1, size // length), op.why("needs equal parts"))
    return move(op)


def _chunk_length(op: Operation, size: int) -> int | None:
    """Length of the chunks; None if they are not of equal length."""
    if op.name == "slice":
        start, end, _ = slice(op.args["start"], op.args["end"]).indices(size)
        length = end - start
        return (
            length if op.args["step"] == 1 and length and not size % length and not start % length else None
        )
    if op.name in ("select", "unbind"):
        return 1
    lengths = {shape[op.args["dim"]] for shape in op.shapes}
    return lengths.pop() if len(lengths) == 1 else None


def slice_scatter(op: Operation) -> Any:
    """Overwrite a slice: its channels are joined with those written."""
    x, written = op.labels("self"), op.labels("src")
    keys = {key: op.args[key] for key in ("dim", "start", "end", "step", "index") if key in op.args}
    take = torch.ops.aten.select.int if "index" in keys else torch.ops.aten.slice.Tensor
    op.record.labels.join(take(x, *keys.values()), written)
    return x


def pad(op: Operation) -> Any:
    """Pad: channels that are added are kept."""
    x, widths = op.labels(0), op.args["pad" if "pad" in op.args else "padding"]
    dims = [x.ndim - 1 - number // 2 for number, width in enumerate(widths) if width]
    if not varies(x, dims):
        return _repeated(x, dims, op.shape)
    zeros = op.name in ("pad", "constant_pad_nd") and op.args.get("mode", "constant") == "constant"
    if not zeros or min(widths) < 0:
        return op.fixed("mixes channels")
    outside = op.record.fixed(torch.Size([1]), op.why("adds channels"))
    return F.pad(x, list(widths), value=int(outside))


def pixel_shuffle(op: Operation) -> Any:
    """Pixel shuffle: the channels that become pixels of one channel are joined."""
    x, area = op.labels(0), op.args["upscale_factor"] ** 2
    if varies(x, [-2, -1]):
        return op.fixed("mixes channels")
    channels = core(x.narrow(-1, 0, 1).narrow(-2, 0, 1)).expand(*x.shape[:-2], 1, 1)
    rows = channels.reshape(-1, area)
    first = op.record.bond(rows, op.why("lays channels into one"))
    return first.view(*op.shape[:-2], 1, 1).expand(op.shape)


def channel_shuffle(op: Operation) -> Any:
    """Channel shuffle: channels at the same position of all groups are joined, which preserves the order."""
    x, groups = op.labels(0), op.args["groups"]
    vector = channels_of(op, x, 1).view(groups, -1)
    op.record.bond(vector.t(), op.why("needs equal groups"))
    return _along_axis(vector.t().flatten(), 1, op.shape)


def pixel_unshuffle(op: Operation) -> Any:
    """Inverse pixel shuffle: the channels that are made of one channel are joined."""
    x = op.labels(0)
    if varies(x, [-2, -1]):
        return op.fixed("mixes channels")
    return x[..., :1, :1].repeat_interleave(op.args["downscale_factor"] ** 2, -3).expand(op.shape)


def as_complex(op: Operation) -> Any:
    """View pairs in the last dimension as complex numbers: the two are joined."""
    x = op.labels(0)
    rows = x.reshape(-1, 2)
    return op.record.bond(rows, op.why("lays channels into one")).view(op.shape)


def as_real(op: Operation) -> Any:
    """View complex numbers as pairs in a new last dimension."""
    return op.labels(0)[..., None].expand(op.shape)


def unfolded(op: Operation) -> Any:
    """im2col: the channels of all neighbours of a pixel have the label of its channel."""
    x = op.labels(0)
    if varies(x, [-2, -1]):
        return op.fixed("mixes channels")
    area = op.shape[-2] // x.shape[-3]
    return x[..., 0, 0].repeat_interleave(area, -1)[..., None].expand(op.shape)


def gated_linear_unit(op: Operation) -> Any:
    """A gated linear unit joins the two halves of its channels."""
    x, dim = op.labels(0), op.args["dim"]
    first, second = x.chunk(2, dim)
    op.record.labels.join(first, second)
    return first


# -- mixing along dimensions ---------------------------------------------------------------------------


def over_positions(op: Operation) -> Any:
    """Pool or resize positions; channels stay the same."""
    x = op.labels(0)
    rank = re.search(r"(\d)d", op.name)
    dims = range(-int(rank[1]) if rank else 2 - x.ndim, 0)
    for other in op.tensors()[1:]:
        op.record.keep(other, op.why("reads places from channels"))
    if varies(x, dims):
        return op.fixed("mixes channels")
    result = _repeated(x, dims, op.shape)
    return (result,) * len(op.shapes) if op.returns_several else result


def reduction(op: Operation) -> Any:
    """A reduction joins the channels that it reduces to one number; if these are all, they are kept."""
    return elementwise(op) if "other" in op.args else _reduced(op, keep_shape=False)


def along(op: Operation) -> Any:
    """A softmax, sort or the like joins the channels along its dimension; if these are all, they are kept."""
    return _reduced(op, keep_shape=True)


def _reduced(op: Operation, keep_shape: bool) -> Any:
    x = op.labels(0)
    dims = _dims(op, x.ndim)
    if varies(x, dims):
        rows = core(x).movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
        if math.prod(rows.shape[:-1]) == 1 or (keep_shape and op.shape != x.shape):
            return op.fixed("mixes all channels")
        op.record.bond(rows.reshape(-1, rows.shape[-1]), op.why("mixes channels"))
        if keep_shape:
            return (x,) * len(op.shapes) if op.returns_several else x
        x = x.amax(dims, keepdim=True)
    for other in op.tensors()[1:]:  # weights of a layer norm
        op.record.keep(other, op.why("is one for all channels"))
    if len(op.shape) < x.ndim:
        for dim in dims:
            x = x.narrow(dim, 0, 1)
        x = x.squeeze(tuple(dims))
        dims = []
    results = tuple(
        _repeated(x, dims, shape) if len(shape) == x.ndim else _none(shape) for shape in op.shapes
    )
    return results if op.returns_several else results[0]


def _dims(op: Operation, rank: int) -> list[int]:
    """Dimensions that an operation mixes."""
    if "normalized_shape" in op.args:
        return list(range(rank - len(op.args["normalized_shape"]), rank))
    dim = op.args.get("dim")
    if dim is None or dim == []:
        return list(range(rank))
    return sorted({d % rank for d in ([dim] if isinstance(dim, int) else dim)}) if rank else []


# -- layers --------------------------------------------------------------------------------------------


def convolution(op: Operation) -> Any:
    """A convolution, by a layer or a function."""
    x, size = op.labels("input"), math.prod(op.args["weight"].shape)
    axis = x.ndim - len(op.args["weight"].shape) + 1
    at_output = size * (math.prod(op.shape) // op.shape[axis])
    if "transpose" in op.name:
        return _weighted(op, x, axis, (1, 0), (size * (math.prod(x.shape) // x.shape[axis]), at_output))
    return _weighted(op, x, axis, (0, 1), (at_output, at_output))


def linear(op: Operation) -> Any:
    """A linear layer, or a function with a weight."""
    x, macs = op.labels("input"), math.prod(op.shape) * op.args["weight"].shape[-1]
    return _weighted(op, x, x.ndim - 1, (0, 1), (macs, macs))


def _weighted(op: Operation, x: Tensor, axis: int, axes: tuple[int, int], macs: tuple[int, int]) -> Any:
    """An operation with a weight reads the channels of `x` along an axis, and writes new ones."""
    record, groups = op.record, op.args.get("groups", 1)
    others = [d for d in range(x.ndim) if d != axis]
    every = not varies(x, range(axis, x.ndim)) and varies(x, others)
    if every:
        why = op.why("applies the same filters to every channel")
        inputs, outputs = (record.fixed(torch.Size([n]), why) for n in (x.shape[axis], op.shape[axis]))
    else:
        inputs, outputs = channels_of(op, x, axis), record.labels.new(op.shape[axis])
    inputs, outputs, module = _recorded(op, inputs, outputs, axes)
    if groups > 1:
        rows = torch.cat([inputs.view(groups, -1), outputs.view(groups, -1)], 1)
        record.bond(rows, op.why(f"has {groups} groups"))
    result = _repeated(x, range(axis, x.ndim), op.shape) if every else _along_axis(outputs, axis, op.shape)
    # a filter of a grouped convolution reads the inputs of its group alone, which are kept with it
    record.multiply(inputs if groups == 1 else None, result, module, macs)
    return result


def _recorded(
    op: Operation, inputs: Tensor, outputs: Tensor, axes: tuple[int, int]
) -> tuple[Tensor, Tensor, str]:
    """Record the layer or function; return labels of its first use, and the module whose forward it is in."""
    record, weight = op.record, op.args["weight"]
    if not isinstance(weight, Weight):
        _computed_filters(op, inputs, outputs)
        return inputs, outputs, op.caller
    layer = record.layer_of(weight, op.caller, CONSUMERS)
    if layer is not None:
        inputs, outputs = record.meet(layer, inputs, outputs)
        # within slices of nn.Sequential, or torch.no_grad(), the tracer's caller is not the layer
        own = record.uses[layer] <= record.called[layer]
        return inputs, outputs, layer if own else op.caller
    if record.is_own(record.owners_of(weight)):
        filters = Filters(inputs, outputs, op.caller, axes)
        inputs, outputs = record.filter(record.first_name(weight), filters)
    else:
        for labels in (inputs, outputs):
            record.keep(labels, op.why("has no weight that could be cut"))
    if op.args["bias"] is not None:
        record.labels.join(op.labels("bias"), outputs)
    return inputs, outputs, op.caller


def _computed_filters(op: Operation, inputs: Tensor, outputs: Tensor) -> None:
    """A convolution with filters that the forward computes: kept, unless it is depthwise."""
    record, weight = op.record, op.labels("weight")
    if op.args.get("groups", 1) == len(weight) == len(inputs) > 1 and op.args["bias"] is None:
        record.labels.join(inputs, outputs)
        if varies(weight, [0]):
            record.labels.join(core(weight).flatten(1), inputs[:, None])
        return
    for labels in (inputs, outputs, weight):
        record.keep(labels, op.why("has filters that the forward computes"))
    if isinstance(record.network.get_submodule(op.caller), CONSUMERS):
        record.meet(op.caller, inputs, outputs)


def norm(op: Operation) -> Any:
    """A batch norm, instance norm, group norm or PReLU."""
    x = op.labels(0)
    if x.ndim < 2:
        return op.fixed("mixes all channels")
    weights = [w for w in op.args.values() if isinstance(w, Weight)]
    if op.name == "prelu" and weights and weights[0].shape.numel() == 1:
        return x
    channels = channels_of(op, x, 1)
    layer = _layer_of_norm(op, weights)
    if layer is not None:
        op.record.meet(layer, channels, channels)
    if op.name.endswith("group_norm"):
        if layer is None:
            return op.fixed("has a fixed number of groups")
        groups = op.args["num_groups" if "num_groups" in op.args else "group"]
        op.record.bond(channels.view(groups, -1), op.why("mixes channels"))
    for labels in op.tensors()[1:] if layer is None else ():
        op.record.labels.join(labels, channels)
    return (x, *(_none(shape) for shape in op.shapes[1:])) if op.returns_several else x


def _layer_of_norm(op: Operation, weights: Sequence[Weight]) -> str | None:
    for weight in weights:
        if (layer := op.record.layer_of(weight, op.caller, CHANNELWISE)) is not None:
            return layer
    caller = op.record.network.get_submodule(op.caller)
    return op.caller if isinstance(caller, CHANNELWISE) else None


# -- products of features ------------------------------------------------------------------------------


def product(op: Operation) -> Any:
    """A matrix product of features: channels over which it sums are kept."""
    *added, first, second = op.tensors()
    if first.ndim < 2 or second.ndim < 2:
        return op.fixed("mixes channels")
    return combine(op, [*added, _product(op, first, second, op.shape)])


def _product(op: Operation, first: Tensor, second: Tensor, shape: torch.Size) -> Tensor:
    for x, dim in ((first, -1), (second, -2)):
        if varies(x, [dim]):
            op.record.keep(x, op.why("sums over channels"))
    result = combine(op, [first[..., :1], second[..., :1, :]], shape)
    macs = math.prod(shape) * first.shape[-1]
    op.record.multiply(None, result, op.caller, (macs, macs))
    return result


def attention(op: Operation) -> Any:
    """Scaled dot-product attention."""
    query, key, value, *more = op.tensors()
    shape = torch.Size([*query.shape[:-1], key.shape[-2]])
    weights = _product(op, query, key.transpose(-1, -2), shape)
    for x in more:
        op.record.keep(x, op.why("masks with channels"))
    return _product(op, weights, value, op.shape)


def einsum(op: Operation) -> Any:
    """An einsum: channels over which it sums are kept."""
    equation = op.args["equation"].replace(" ", "")
    if "." in equation or "->" not in equation:
        return op.fixed("mixes channels")
    terms, result = equation.split("->")
    aligned, sizes = [], dict[str, int]()
    for letters, x in zip(terms.split(","), op.tensors(), strict=True):
        if len(set(letters)) < len(letters):
            return op.fixed("mixes channels")
        summed = [d for d, letter in enumerate(letters) if letter not in result]
        if varies(x, summed):
            op.record.keep(x, op.why("sums over channels"))
        aligned.append(_aligned(x, letters, result))
        sizes.update(zip(letters, x.shape, strict=True))
    labels = combine(op, aligned)
    macs = math.prod(sizes.values())
    op.record.multiply(None, labels, op.caller, (macs, macs))
    return labels


def _aligned(x: Tensor, letters: str, result: str) -> Tensor:
    """Permute to the order of the result's letters, with a dimension of size one for each missing letter."""
    for dim, letter in enumerate(letters):
        x = x if letter in result else x.narrow(dim, 0, 1)
    rest = [letter for letter in letters if letter in result]
    x = x.squeeze(tuple(d for d, letter in enumerate(letters) if letter not in result))
    x = x.permute([rest.index(letter) for letter in result if letter in rest])
    for dim, letter in enumerate(result):
        x = x if letter in rest else x.unsqueeze(dim)
    return x


# -- helpers -------------------------------------------------------------------------------------------


def channels_of(op: Operation, x: Tensor, axis: int) -> Tensor:
    """One label per index of an axis: labels at the same index are joined; a new kept one for `NONE`."""
    rows = core(x.movedim(axis, -1))
    rows = rows.expand(*rows.shape[:-1], x.shape[axis]).movedim(-1, 0).reshape(x.shape[axis], -1)
    vector = op.record.bond(rows, op.why("reads them as one channel"))
    if (vector == NONE).any():
        vector = torch.where(
            vector == NONE, op.record.fixed(vector.shape, op.why("reads what is no feature")), vector
        )
    return vector


def _repeated(x: Tensor, dims: Iterable[int], shape: torch.Size) -> Tensor:
    """Labels expanded to a shape that differs along dimensions in which they are constant."""
    for dim in dims:
        x = x.narrow(dim, 0, 1)
    return x.expand(shape)


def _along_axis(vector: Tensor, axis: int, shape: torch.Size) -> Tensor:
    return vector.view([-1 if d == axis else 1 for d in range(len(shape))]).expand(shape)


def _none(shape: torch.Size) -> Tensor:
    return torch.full([1] * len(shape), NONE).expand(shape)


# rules by patterns of names; `rule_for` chooses others by the tags that torch gives to operations
_RULES: dict[str, Rule] = {
    r"\w*dropout|clone|to|_to_copy|copy|contiguous|lift_fresh_copy|relu6|hardtanh|rrelu": elementwise,
    r"leaky_relu|hardswish|log_sigmoid|absolute|negative|subtract|multiply|(floor_)?divide": elementwise,
    r"bernoulli|normal|uniform|exponential|polar": elementwise,
    r"fill|zero|type_as|lerp|masked_fill|real|imag|complex|_?conj|resolve_conj": elementwise,
    r"\w+_like|new_\w+": new,
    r"conv\dd|conv_transpose\dd|_?convolution": convolution,
    r"linear": linear,
    r"\w*batch_norm\w*|instance_norm|(native_)?group_norm|prelu": norm,
    r"matmul|bmm|mm|addmm|baddbmm|addbmm": product,
    r"scaled_dot_product_attention": attention,
    r"einsum": einsum,
    r"_?(adaptive_)?(avg|max)_pool\dd\w*|_?upsample_\w+\dd\w*|grid_sampler\w*": over_positions,
    r"mean|sum|amax|amin|max|min|var|std|prod|norm|linalg_vector_norm": reduction,
    r"var_mean|std_mean|any|all|argmax": reduction,
    r"_?(log_)?softmax|cumsum|cumprod|(native_)?layer_norm|sort|_?fft_\w+": along,
    r"pad|constant_pad_nd|(reflection|replication)_pad\dd": pad,
    r"slice|select|(unsafe_)?split\w*|(unsafe_)?chunk|unbind|tensor_split": split,
    r"slice_scatter|select_scatter": slice_scatter,
    r"expand|repeat": expand,
    r"cat|stack|flip|roll|repeat_interleave|_unsafe_view|reshape": move,
    r"pixel_shuffle": pixel_shuffle,
    r"pixel_unshuffle": pixel_unshuffle,
    r"(native_)?channel_shuffle": channel_shuffle,
    r"im2col": unfolded,
    r"glu": gated_linear_unit,
    r"view_as_complex": as_complex,
    r"view_as_real": as_real,
    r"as_strided": unknown,
}
