"""The sizes of images for which a network was traced, and a check of them in an ONNX file.

A network that asks for the size of its image ("wider than 2200 pixels? halve it") is traced along one path.
For a size that takes another one, the file would give other pictures than the network, without a word.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

Size = tuple[int, int]  # height and width
Run = Callable[[Tensor], Tensor]
# runtimes show the names of nodes in their errors
REFUSAL = "size_is_none_of_those_the_network_was_traced_for"
STEPS = (1, 2, 4, 8, 16, 32, 64)  # in pixels: sizes that a network may refuse, round, pad, or crop
SMALL = (*STEPS, 128, 256, 512)
# sides of images at which a condition that isn't always fulfilled is broken, in all likelihood
GRID = (*range(1, 10), 15, 16, 17, 31, 33, 48, 63, 65, 100, 127, 129, 250, 257, 500, 1023, 2049, 4097, 30011)
NAMES = ("batch", "channels", "height", "width")
DOUBLE, INT64 = 11, 7  # of `onnx.TensorProto`
_OPERATORS = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Div: "Div", ast.Pow: "Pow"}
_COMPARISONS = {
    ast.Eq: "Equal",
    ast.Lt: "Less",
    ast.LtE: "LessOrEqual",
    ast.Gt: "Greater",
    ast.GtE: "GreaterOrEqual",
}
_FUNCTIONS: dict[str, tuple[str, Callable[..., float]]] = {
    "max": ("Max", max),
    "min": ("Min", min),
    "ceil": ("Ceil", math.ceil),
    "floor": ("Floor", math.floor),
    "trunc": ("Floor", math.floor),  # sizes are positive
    "float": ("Identity", float),
}


def conditions(program: ExportedProgram) -> list[str]:
    """What sizes fulfil on the path that was traced, as Python expressions of `batch`, `height`, `width`.

    Torch 2.8 does not record it. Left out is what every size fulfils.
    """
    found = []
    for guard in getattr(program, "_guards_code", None) or ():
        text = re.sub(r"L\['\w+'\]\.size\(\)\[(\d)\]", lambda match: NAMES[int(match[1])], guard)
        text = re.sub(r"\b(?:torch\.sym_|math\.)(max|min|ceil|floor|trunc|float)\b", r"\1", text)
        if not _is_arithmetic(ast.parse(text, mode="eval").body):
            warnings.warn(
                f"The network takes another path for images that break {guard}, which the file can't check: "
                "compare its pictures with the network's at all sizes that you need.",
                stacklevel=2,
            )
        elif not all(holds(text, size) for size in itertools.product(GRID, repeat=2)):
            found.append(text)
    return list(dict.fromkeys(found))


def _is_arithmetic(node: ast.expr) -> bool:
    """Whether an expression computes with sizes and numbers alone, as `_Arithmetic` can in a file."""
    parts: list[ast.expr] = []
    match node:
        case ast.Constant():
            return type(node.value) in (int, float)
        case ast.Name():
            return node.id in NAMES
        case ast.BoolOp(op=ast.And()):
            parts = node.values
        case ast.Compare(ops=[op]) if type(op) in (*_COMPARISONS, ast.NotEq):
            parts = [node.left, *node.comparators]
        case ast.BinOp() if type(node.op) in (*_OPERATORS, ast.FloorDiv, ast.Mod):
            parts = [node.left, node.right]
        case ast.UnaryOp(op=ast.USub()):
            parts = [node.operand]
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            parts = node.args
    return bool(parts) and all(map(_is_arithmetic, parts))


def holds(condition: str, size: Size) -> bool:
    """Whether one image of a size fulfils a condition."""
    names: dict[str, Any] = {"batch": 1, "height": size[0], "width": size[1]}
    names |= {name: function for name, (_, function) in _FUNCTIONS.items()}
    try:
        return bool(eval(condition, {"__builtins__": {}}, names))  # arithmetic alone, see `conditions`
    except ZeroDivisionError:  # nor can the runtime
        return False


def needed(found: Sequence[str], network: nn.Module, run: Run, sample: Tensor, tolerance: float) -> list[str]:
    """The conditions without which a file gives something else than the network, for sizes like the sample's.

    Most conditions concern how torch lays tensors out in memory: those are let be that are broken by a size
    at which both give the same, or only by such at which both fail. Those that no tried size breaks stay,
    such as that of a far larger width.

    Args:
        found: The conditions of the traced program.
        network: The network.
        run: The file without these checks.
        sample: An image `(B, C, H, W)` of the exported size.
        tolerance: Largest accepted difference.
    """
    untried, wrong, needless, tried = set(found), set[str](), set[str](), set[frozenset[str]]()

    def sizes() -> Iterator[Size]:
        yield from _near(sample)
        for condition in found:
            if condition in untried:
                yield from itertools.islice((s for s in _small(sample) if not holds(condition, s)), 1)

    for size in sizes():
        broken = frozenset(c for c in found if c not in needless and not holds(c, size))
        if not broken or broken in tried:
            continue
        tried.add(broken)
        untried -= broken
        same = _same(network, run, sample, size, tolerance)
        if same:
            needless |= broken
        elif same is False:
            wrong |= broken
    return [c for c in found if c in untried | wrong and c not in needless]


def _near(sample: Tensor) -> Iterator[Size]:
    height, width = sample.shape[2:]
    yield from ((height, width), (2 * height, width))
    for step in SMALL:
        if step < min(height, width):
            yield from ((step, step), (height, step), (step, width))
    for step in STEPS:
        yield from ((height + step, width + step), (height + step, width), (height, width + step))


def _small(sample: Tensor) -> list[Size]:
    """Sizes of at most four times the sample's pixels, the smallest first."""
    sizes = itertools.product(GRID, repeat=2)
    return sorted((s for s in sizes if math.prod(s) <= 4 * sample[0, 0].numel()), key=math.prod)


@torch.inference_mode()
def _same(network: nn.Module, run: Run, sample: Tensor, size: Size, tolerance: float) -> bool | None:
    """Whether a network and its file give the same image of a size; None if both fail."""
    image = torch.rand(1, sample.shape[1], *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours, its = _given(network, image), _given(run, image)
    if ours is None or its is None:
        return None if ours is its else False
    return ours.shape == its.shape and float((ours - its).abs().max()) <= tolerance


def _given(call: Run, image: Tensor) -> Tensor | None:
    """An image; None if there is none, since the call fails, or has nothing to give."""
    with suppress(Exception):  # whatever a forward or a runtime raises
        output = call(image)
        return output if output.numel() else None
    return None


def refuse_others(model: Any, found: Sequence[str]) -> None:
    """Begin an ONNX model with a reshape that fails unless all conditions hold: ONNX has no assertions."""
    from onnx import helper

    for node in model.graph.node:
        node.input[:] = ["checked" if name == "image" else name for name in node.input]
    graph = _Arithmetic(model)
    sides = [graph.add("Shape", ["image"], start=axis, end=axis + 1) for axis in range(4)]
    numbers = {name: graph.add("Cast", [side], to=DOUBLE) for name, side in zip(NAMES, sides, strict=True)}
    last = sides[3]
    for condition in found:
        fails = graph.add("Not", [graph.of(ast.parse(condition, mode="eval").body, numbers)])
        last = graph.add("Add", [last, graph.add("Cast", [fails], to=INT64)])  # a width that there isn't
    shape = graph.add("Concat", [*sides[:3], last], axis=0)
    nodes = [*graph.nodes, helper.make_node("Reshape", ["image", shape], ["checked"], REFUSAL, allowzero=1)]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


class _Arithmetic:
    """Nodes that compute with numbers of double precision, each a tensor `(1,)`."""

    def __init__(self, model: Any) -> None:
        self.model, self.nodes, self._constants = model, list[Any](), dict[float, str]()

    def add(self, operator: str, inputs: list[str], **attributes: int) -> str:
        """A node; returns the name of its output."""
        from onnx import helper

        output = f"size_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], None, None, None, None, **attributes))
        return output

    def constant(self, value: float) -> str:
        """A number."""
        from onnx import numpy_helper

        if value not in self._constants:
            self._constants[value] = f"size_constant_{len(self._constants)}"
            tensor = numpy_helper.from_array(np.array([value], np.float64), self._constants[value])
            self.model.graph.initializer.append(tensor)
        return self._constants[value]

    def of(self, node: ast.expr, names: dict[str, str]) -> str:
        """The value of an expression for which `_is_arithmetic`."""
        match node:
            case ast.Constant():
                return self.constant(float(node.value))  # type: ignore[arg-type]
            case ast.Name():
                return names[node.id]
            case ast.UnaryOp():
                return self.add("Neg", [self.of(node.operand, names)])
            case ast.BinOp():
                sides = [self.of(part, names) for part in (node.left, node.right)]
                if type(node.op) in _OPERATORS:
                    return self.add(_OPERATORS[type(node.op)], sides)
                floor = self.add("Floor", [self.add("Div", sides)])
                if isinstance(node.op, ast.FloorDiv):
                    return floor
                return self.add("Sub", [sides[0], self.add("Mul", [floor, sides[1]])])
            case ast.Compare():
                sides = [self.of(part, names) for part in (node.left, *node.comparators)]
                if isinstance(node.ops[0], ast.NotEq):
                    return self.add("Not", [self.add("Equal", sides)])
                return self.add(_COMPARISONS[type(node.ops[0])], sides)
            case ast.BoolOp():
                parts = [self.of(part, names) for part in node.values]
                for part in parts[1:]:
                    parts[0] = self.add("And", [parts[0], part])
                return parts[0]
            case ast.Call(func=ast.Name(id=name)):
                return self.add(_FUNCTIONS[name][0], [self.of(part, names) for part in node.args])
            case _:
                raise AssertionError(ast.dump(node))
