"""Rules: what each operation of torch does to the labels of the channels that it reads."""

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
    """One operation of the graph, with what is known of its inputs.

    Attributes:
        record: Where to write down what follows.
        node: The operation.
        name: Its name in torch.
        args: All its arguments by name: labels, weights, numbers.
        shapes: Of its results, all in a tuple.
    """

    record: Record
    node: Node
    name: str
    args: dict[str, Any]
    shapes: tuple[torch.Size, ...]

    @property
    def shape(self) -> torch.Size:
        """Of the first result."""
        return self.shapes[0]

    @property
    def caller(self) -> str:
        """Module whose forward calls it, by its first name."""
        return self.record.name_of(module_of(self.node))

    def why(self, verb: str) -> str:
        """Say in words what the operation does, and where."""
        module = f" in {self.caller!r}" if self.caller else ""
        place = f" ({Path(place_of(self.node)).name})" if place_of(self.node) else ""
        return f"{self.name} {verb}{module}{place}"

    def labels(self, key: str | int) -> Tensor:
        """Labels of an argument, by name or place."""
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
        """Keep all that it reads whole, and what it makes."""
        reason = self.why(verb)
        for labels in self.tensors():
            self.record.keep(labels, reason)
        return self.whole(reason)

    def whole(self, reason: str) -> Any:
        """Results that never change their shapes."""
        made = tuple(self.record.fixed(shape, reason) for shape in self.shapes)
        return made if len(made) > 1 or self.returns_several else made[0]

    @property
    def returns_several(self) -> bool:
        """Whether its result is a list."""
        return isinstance(self.node.meta["val"], (tuple, list))


Rule = Callable[[Operation], Any]


def apply(op: Operation) -> Any:
    """Labels of what an operation makes.

    If it is used in a way that its rule is not made for, everything stays whole.
    """
    try:
        made = rule_for(op)(op)
        shapes = [x.shape for x in (made if isinstance(made, (tuple, list)) else [made])]
    except (RuntimeError, IndexError, KeyError, TypeError, ValueError):
        shapes = []
    return made if shapes == list(op.shapes) else op.fixed("is used in a way that can't be followed")


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
    """An operation that no rule is for."""
    return op.fixed("is not known to keep channels apart")


def new(op: Operation) -> Any:
    """Zeros, noise and the like: they are of the shape that they are asked for."""
    return torch.full([1] * len(op.shape), NONE).expand(op.shape)


# -- element by element --------------------------------------------------------------------------------


def elementwise(op: Operation) -> Any:
    """What meets at one place goes together."""
    values = [x for x in op.args.values() if isinstance(x, (Tensor, Weight)) and math.prod(x.shape) > 1]
    if len(values) == 1 and isinstance(values[0], Weight) and values[0].shape == op.shape and _is_linear(op):
        return values[0]
    result = combine(op, op.tensors())
    return (result,) * len(op.shapes) if op.returns_several else result


def _is_linear(op: Operation) -> bool:
    """Whether scaling its only tensor, as masks do with filters, scales the result."""
    return op.name in ("mul", "div", "neg", "clone", "to", "_to_copy", "type_as", "contiguous")


def combine(op: Operation, tensors: Sequence[Tensor], shape: torch.Size | None = None) -> Tensor:
    """Join the labels of tensors that broadcast to the result, or to another shape.

    A tensor that is spread over the channels of another is of none of these: its own stay whole.
    """
    shape = op.shape if shape is None else shape
    rank = len(shape)
    tensors = [x.reshape([1] * (rank - x.ndim) + list(x.shape)) for x in tensors]
    result = torch.full([1] * rank, NONE)
    for place, x in enumerate(tensors):
        others = tensors[:place] + tensors[place + 1 :]
        dims = [d for d in range(rank) if x.shape[d] == 1]
        if any(varies(other, dims) for other in others):
            op.record.keep(x, op.why("spreads one channel over many"))
            tensors[place] = torch.full([1] * rank, NONE)
    for x in map(core, tensors):
        op.record.labels.join(result, x)
        result = torch.where(result == NONE, x, result)
    return result.expand(shape)


# -- moving data ---------------------------------------------------------------------------------------


def move(op: Operation) -> Any:
    """Do to the labels what is done to the features."""
    if op.name in ("view", "_unsafe_view", "reshape"):
        return op.labels(0).reshape(op.shape)
    arguments = [a.name for a in op.node.target._schema.arguments if not a.kwarg_only]  # type: ignore[union-attr]
    return op.node.target(*(_moved(op, op.args[name]) for name in arguments))  # type: ignore[operator]


def _moved(op: Operation, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_moved(op, x) for x in value]
    return op._labels(value) if isinstance(value, (Tensor, Weight)) else value


def spread(op: Operation) -> Any:
    """Repeat along new or single dimensions: one channel that becomes many is none of these."""
    x = op.labels(0)
    sizes = [1] * (len(op.shape) - x.ndim) + list(x.shape)
    grown = [d for d, (old, size) in enumerate(zip(sizes, op.shape, strict=True)) if old != size]
    if core(x).numel() > 1 or not any(grown):
        return move(op)
    op.record.keep(x, op.why("spreads one channel over many"))
    return new(op)


def parts(op: Operation) -> Any:
    """Cut into parts: equal ones stay equal when each loses the same channels."""
    x, dim = op.labels(0), op.args.get("dim", 0)
    if varies(x, [dim]):
        size = x.shape[dim]
        part, rows = _part(op, size), core(x.movedim(dim, -1))
        if part is None or (part == 1 and rows[..., 0].numel() == 1):
            op.record.keep(x, op.why("takes channels by fixed numbers"))
        else:
            rows = rows.reshape(*rows.shape[:-1], size // part, part).transpose(-1, -2)
            op.record.bond(rows.reshape(-1, size // part), op.why("needs equal parts"))
    return move(op)


def _part(op: Operation, size: int) -> int | None:
    """Length of the parts, if all are as long."""
    if op.name == "slice":
        start, end, _ = slice(op.args["start"], op.args["end"]).indices(size)
        part = end - start
        return part if op.args["step"] == 1 and part and not size % part and not start % part else None
    if op.name in ("select", "unbind"):
        return 1
    lengths = {shape[op.args["dim"]] for shape in op.shapes}
    return lengths.pop() if len(lengths) == 1 else None


def slice_scatter(op: Operation) -> Any:
    """Write over a part: the channels there go along with those written."""
    x, written = op.labels("self"), op.labels("src")
    keys = {key: op.args[key] for key in ("dim", "start", "end", "step", "index") if key in op.args}
    place = torch.ops.aten.select.int if "index" in keys else torch.ops.aten.slice.Tensor
    op.record.labels.join(place(x, *keys.values()), written)
    return x


def pad(op: Operation) -> Any:
    """Pad: what is added along channels has none."""
    x, widths = op.labels(0), op.args["pad" if "pad" in op.args else "padding"]
    dims = [x.ndim - 1 - place // 2 for place, width in enumerate(widths) if width]
    if not varies(x, dims):
        return _over(x, dims, op.shape)
    zeros = op.name in ("pad", "constant_pad_nd") and op.args.get("mode", "constant") == "constant"
    if not zeros or min(widths) < 0:
        return op.fixed("mixes channels")
    outside = op.record.fixed(torch.Size([1]), op.why("adds channels"))
    return F.pad(x, list(widths), value=int(outside))


def pixel_shuffle(op: Operation) -> Any:
    """Lay channels into pixels: those of one pixel go together."""
    x, area = op.labels(0), op.args["upscale_factor"] ** 2
    if varies(x, [-2, -1]):
        return op.fixed("mixes channels")
    channels = core(x.narrow(-1, 0, 1).narrow(-2, 0, 1)).expand(*x.shape[:-2], 1, 1)
    rows = channels.reshape(-1, area)
    first = op.record.bond(rows, op.why("lays channels into one"))
    return first.view(*op.shape[:-2], 1, 1).expand(op.shape)


def channel_shuffle(op: Operation) -> Any:
    """Every group must lose the same channels, or the same number would not be the same order."""
    x, groups = op.labels(0), op.args["groups"]
    vector = channels_of(op, x, 1).view(groups, -1)
    op.record.bond(vector.t(), op.why("needs equal groups"))
    return _laid(vector.t().flatten(), 1, op.shape)


def pixel_unshuffle(op: Operation) -> Any:
    """Lay pixels into channels: those of one channel go together."""
    x = op.labels(0)
    if varies(x, [-2, -1]):
        return op.fixed("mixes channels")
    return x[..., :1, :1].repeat_interleave(op.args["downscale_factor"] ** 2, -3).expand(op.shape)


def as_complex(op: Operation) -> Any:
    """Real and imaginary parts that lie side by side become numbers."""
    x = op.labels(0)
    rows = x.reshape(-1, 2)
    return op.record.bond(rows, op.why("lays channels into one")).view(op.shape)


def as_real(op: Operation) -> Any:
    """Complex numbers become two parts."""
    return op.labels(0)[..., None].expand(op.shape)


def unfolded(op: Operation) -> Any:
    """Lay the neighbours of each pixel into channels."""
    x = op.labels(0)
    if varies(x, [-2, -1]):
        return op.fixed("mixes channels")
    area = op.shape[-2] // x.shape[-3]
    return x[..., 0, 0].repeat_interleave(area, -1)[..., None].expand(op.shape)


def halves(op: Operation) -> Any:
    """A gated linear unit."""
    x, dim = op.labels(0), op.args["dim"]
    first, second = x.chunk(2, dim)
    op.record.labels.join(first, second)
    return first


# -- mixing along dimensions ---------------------------------------------------------------------------


def over_positions(op: Operation) -> Any:
    """Pool or resize."""
    x = op.labels(0)
    rank = re.search(r"(\d)d", op.name)
    dims = range(-int(rank[1]) if rank else 2 - x.ndim, 0)
    for other in op.tensors()[1:]:
        op.record.keep(other, op.why("reads places from channels"))
    if varies(x, dims):
        return op.fixed("mixes channels")
    result = _over(x, dims, op.shape)
    return (result,) * len(op.shapes) if op.returns_several else result


def reduction(op: Operation) -> Any:
    """Reduce: what becomes one number goes together; if that is all of it, it stays."""
    return elementwise(op) if "other" in op.args else _reduced(op, keep_shape=False)


def along(op: Operation) -> Any:
    """Change all along a dimension by what is there: it goes together; if that is all of it, it stays."""
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
    results = tuple(_over(x, dims, shape) if len(shape) == x.ndim else _none(shape) for shape in op.shapes)
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
    """A convolution, of a layer or of the user's own."""
    x, size = op.labels("input"), math.prod(op.args["weight"].shape)
    axis = x.ndim - len(op.args["weight"].shape) + 1
    at_output = size * (math.prod(op.shape) // op.shape[axis])
    if "transpose" in op.name:
        return _weighted(op, x, axis, (1, 0), (size * (math.prod(x.shape) // x.shape[axis]), at_output))
    return _weighted(op, x, axis, (0, 1), (at_output, at_output))


def linear(op: Operation) -> Any:
    """A linear layer, or a product with a weight of the user's own."""
    x, macs = op.labels("input"), math.prod(op.shape) * op.args["weight"].shape[-1]
    return _weighted(op, x, x.ndim - 1, (0, 1), (macs, macs))


def _weighted(op: Operation, x: Tensor, axis: int, axes: tuple[int, int], macs: tuple[int, int]) -> Any:
    """Read the channels of `x` along an axis, and write new ones."""
    record, groups = op.record, op.args.get("groups", 1)
    others = [d for d in range(x.ndim) if d != axis]
    every = not varies(x, range(axis, x.ndim)) and varies(x, others)
    if every:
        why = op.why("applies the same filters to every channel")
        read, made = (record.fixed(torch.Size([n]), why) for n in (x.shape[axis], op.shape[axis]))
    else:
        read, made = channels_of(op, x, axis), record.labels.new(op.shape[axis])
    read, made, module = _met(op, read, made, axes)
    if groups > 1:
        rows = torch.cat([read.view(groups, -1), made.view(groups, -1)], 1)
        record.bond(rows, op.why(f"has {groups} groups"))
    result = _over(x, range(axis, x.ndim), op.shape) if every else _laid(made, axis, op.shape)
    # a filter of a grouped convolution reads the inputs of its group, whatever else is kept
    record.multiply(read if groups == 1 else None, result, module, macs)
    return result


def _met(op: Operation, read: Tensor, made: Tensor, axes: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
    """Write down who reads and writes these labels; return what it knows them by, and whose forward it is."""
    record, weight = op.record, op.args["weight"]
    if not isinstance(weight, Weight):
        _compute(op, read, made)
        return read, made, op.caller
    layer = record.layer_of(weight, op.caller, CONSUMERS)
    if layer is not None:
        read, made = record.meet(layer, read, made)
        # in a part of nn.Sequential, or inside of torch.no_grad(), the tracer does not know who calls
        own = record.uses[layer] <= record.called[layer]
        return read, made, layer if own else op.caller
    if record.is_own(record.owners_of(weight)):
        read, made = record.filter(record.first_name(weight), Filters(read, made, op.caller, axes))
    else:
        for labels in (read, made):
            record.keep(labels, op.why("has no weight that could be cut"))
    if op.args["bias"] is not None:
        record.labels.join(op.labels("bias"), made)
    return read, made, op.caller


def _compute(op: Operation, read: Tensor, made: Tensor) -> None:
    """A convolution with filters that the forward makes: only one for each channel can be followed."""
    record, weight = op.record, op.labels("weight")
    if op.args.get("groups", 1) == len(weight) == len(read) > 1 and op.args["bias"] is None:
        record.labels.join(read, made)
        if varies(weight, [0]):
            record.labels.join(core(weight).flatten(1), read[:, None])
        return
    for labels in (read, made, weight):
        record.keep(labels, op.why("has filters that the forward computes"))
    if isinstance(record.network.get_submodule(op.caller), CONSUMERS):
        record.meet(op.caller, read, made)


def norm(op: Operation) -> Any:
    """A norm within each channel, or a PReLU."""
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
    """A matrix product of features: what is summed over stays whole."""
    *added, first, second = op.tensors()
    if first.ndim < 2 or second.ndim < 2:
        return op.fixed("mixes channels")
    return combine(op, [*added, _product(op, first, second, op.shape)])


def _product(op: Operation, first: Tensor, second: Tensor, shape: torch.Size) -> Tensor:
    for x, dim in ((first, -1), (second, -2)):
        if varies(x, [dim]):
            op.record.keep(x, op.why("sums over channels"))
    made = combine(op, [first[..., :1], second[..., :1, :]], shape)
    macs = math.prod(shape) * first.shape[-1]
    op.record.multiply(None, made, op.caller, (macs, macs))
    return made


def attention(op: Operation) -> Any:
    """Scaled dot-product attention."""
    query, key, value, *more = op.tensors()
    shape = torch.Size([*query.shape[:-1], key.shape[-2]])
    weights = _product(op, query, key.transpose(-1, -2), shape)
    for x in more:
        op.record.keep(x, op.why("masks with channels"))
    return _product(op, weights, value, op.shape)


def einsum(op: Operation) -> Any:
    """A sum of products that letters describe."""
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
    made = combine(op, aligned)
    macs = math.prod(sizes.values())
    op.record.multiply(None, made, op.caller, (macs, macs))
    return made


def _aligned(x: Tensor, letters: str, result: str) -> Tensor:
    """Permute to the order of the result's letters, with a single dimension for each that is missing."""
    for dim, letter in enumerate(letters):
        x = x if letter in result else x.narrow(dim, 0, 1)
    rest = [letter for letter in letters if letter in result]
    x = x.squeeze(tuple(d for d, letter in enumerate(letters) if letter not in result))
    x = x.permute([rest.index(letter) for letter in result if letter in rest])
    for place, letter in enumerate(result):
        x = x if letter in rest else x.unsqueeze(place)
    return x


# -- helpers -------------------------------------------------------------------------------------------


def channels_of(op: Operation, x: Tensor, axis: int) -> Tensor:
    """One label for each index of an axis, those that share it joined; a fixed one where there is none."""
    rows = core(x.movedim(axis, -1))
    rows = rows.expand(*rows.shape[:-1], x.shape[axis]).movedim(-1, 0).reshape(x.shape[axis], -1)
    vector = op.record.bond(rows, op.why("reads them as one channel"))
    if (vector == NONE).any():
        vector = torch.where(
            vector == NONE, op.record.fixed(vector.shape, op.why("reads what is no feature")), vector
        )
    return vector


def _over(x: Tensor, dims: Iterable[int], shape: torch.Size) -> Tensor:
    """The labels repeated to a shape that differs along dimensions where they don't vary."""
    for dim in dims:
        x = x.narrow(dim, 0, 1)
    return x.expand(shape)


def _laid(vector: Tensor, axis: int, shape: torch.Size) -> Tensor:
    return vector.view([-1 if d == axis else 1 for d in range(len(shape))]).expand(shape)


def _none(shape: torch.Size) -> Tensor:
    return torch.full([1] * len(shape), NONE).expand(shape)


# Patterns of names; what none fits goes by what torch itself says of the operation.
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
    r"slice|select|(unsafe_)?split\w*|(unsafe_)?chunk|unbind|tensor_split": parts,
    r"slice_scatter|select_scatter": slice_scatter,
    r"expand|repeat": spread,
    r"cat|stack|flip|roll|repeat_interleave|_unsafe_view|reshape": move,
    r"pixel_shuffle": pixel_shuffle,
    r"pixel_unshuffle": pixel_unshuffle,
    r"(native_)?channel_shuffle": channel_shuffle,
    r"im2col": unfolded,
    r"glu": halves,
    r"view_as_complex": as_complex,
    r"view_as_real": as_real,
    r"as_strided": unknown,
}
