"""The sizes of images for which a network was traced, and a check of them in an ONNX file.

A network that asks for the size of its image ("wider than 2200 pixels? halve it") is traced along one path.
For a size that takes another one, the file would give other pictures than the network, without a word.
"""

from __future__ import annotations

import ast
import re
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
SIDES = {"[2]": "height", "[3]": "width"}
_OPERATORS = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.FloorDiv: "Div", ast.Mod: "Mod"}
_COMPARISONS = {
    ast.Eq: "Equal",
    ast.NotEq: "NotEqual",
    ast.Lt: "Less",
    ast.LtE: "LessOrEqual",
    ast.Gt: "Greater",
    ast.GtE: "GreaterOrEqual",
}
_FUNCTIONS = {"max": "Max", "min": "Min"}
INT64 = 7  # `onnx.TensorProto.INT64`


def conditions(program: ExportedProgram) -> list[str]:
    """What height and width fulfil on the path that was traced, as Python expressions of `height`, `width`.

    Torch 2.8 does not record it. Left out is that a size isn't one, which torch requires for its own sake,
    and what is no arithmetic of whole numbers.
    """
    found = []
    for guard in getattr(program, "_guards_code", None) or ():
        text = re.sub(r"L\['\w+'\]\.size\(\)(\[[23]\])", lambda match: SIDES[match[1]], guard)
        text = text.replace("torch.sym_max", "max").replace("torch.sym_min", "min")
        if not re.search(r"(!=|>) 1$", text) and _is_arithmetic(ast.parse(text, mode="eval").body):
            found.append(text)
    return list(dict.fromkeys(found))


def _is_arithmetic(node: ast.expr) -> bool:
    parts: list[ast.expr]
    match node:
        case ast.Constant():
            return type(node.value) is int
        case ast.Name():
            return node.id in SIDES.values()
        case ast.BoolOp():
            parts = node.values if isinstance(node.op, ast.And) else []
        case ast.Compare():
            parts = [node.left, *node.comparators] if len(node.ops) == 1 else []
        case ast.BinOp():
            parts = [node.left, node.right] if type(node.op) in _OPERATORS else []
        case ast.UnaryOp():
            parts = [node.operand] if isinstance(node.op, ast.USub) else []
        case ast.Call():
            named = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
            parts = node.args if named else []
        case _:
            parts = []
    return bool(parts) and all(map(_is_arithmetic, parts))


def holds(condition: str, size: Size) -> bool:
    """Whether a size fulfils a condition."""
    names = {"height": size[0], "width": size[1], "max": max, "min": min}
    return bool(eval(condition, {"__builtins__": {}}, names))  # arithmetic alone, see `conditions`


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
    untried, kept, needless = set(found), list[str](), set[str]()
    for size in _near(sample):
        broken = [c for c in found if c not in needless and not holds(c, size)]
        untried -= set(broken)
        if not broken or set(broken) & set(kept):
            continue
        same = _same(network, run, sample, size, tolerance)
        if same is False:
            kept.append(min(broken, key=len))
        elif same:
            needless |= set(broken)
    return [*kept, *sorted(untried)]


def _near(sample: Tensor) -> Iterator[Size]:
    height, width = sample.shape[2:]
    yield from ((height, width), (2 * height, width))
    yield from ((step, step) for step in STEPS if step < min(height, width))
    for step in STEPS:
        yield from ((height + step, width + step), (height + step, width), (height, width + step))


@torch.inference_mode()
def _same(network: nn.Module, run: Run, sample: Tensor, size: Size, tolerance: float) -> bool | None:
    """Whether a network and its file give the same image of a size; None if both fail."""
    image = torch.rand(1, sample.shape[1], *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours, its = _given(network, image), _given(run, image)
    if ours is None or its is None:
        return None if ours is its else False
    return ours.shape == its.shape and float((ours - its).abs().max()) <= tolerance


def _given(call: Run, image: Tensor) -> Tensor | None:
    with suppress(Exception):  # whatever a forward or a runtime raises
        return call(image)
    return None


def refuse_others(model: Any, found: Sequence[str]) -> None:
    """Begin an ONNX model with a reshape that fails unless all conditions hold: ONNX has no assertions."""
    from onnx import helper

    for node in model.graph.node:
        node.input[:] = ["checked" if name == "image" else name for name in node.input]
    graph = _Arithmetic(model)
    sides = {"height": graph.side(2), "width": graph.side(3)}
    last = sides["width"]
    for condition in found:
        fails = graph.add("Not", [graph.of(ast.parse(condition, mode="eval").body, sides)])
        last = graph.add("Add", [last, graph.add("Cast", [fails], to=INT64)])  # a width that there isn't
    before = graph.add("Shape", ["image"], start=0, end=3)
    shape = graph.add("Concat", [before, last], axis=0)
    nodes = [*graph.nodes, helper.make_node("Reshape", ["image", shape], ["checked"], REFUSAL, allowzero=1)]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


class _Arithmetic:
    """Nodes that compute with whole numbers, each a tensor `(1,)`."""

    def __init__(self, model: Any) -> None:
        self.model, self.nodes, self._constants = model, list[Any](), dict[int, str]()

    def add(self, operator: str, inputs: list[str], **attributes: int) -> str:
        """A node; returns the name of its output."""
        from onnx import helper

        output = f"size_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], None, None, None, None, **attributes))
        return output

    def side(self, axis: int) -> str:
        """The size of the image along an axis."""
        return self.add("Shape", ["image"], start=axis, end=axis + 1)

    def constant(self, value: int) -> str:
        """A number."""
        from onnx import numpy_helper

        if value not in self._constants:
            self._constants[value] = f"size_constant_{len(self._constants)}"
            tensor = numpy_helper.from_array(np.array([value]), self._constants[value])
            self.model.graph.initializer.append(tensor)
        return self._constants[value]

    def of(self, node: ast.expr, names: dict[str, str]) -> str:
        """The value of an expression for which `_is_arithmetic`."""
        match node:
            case ast.Constant():
                return self.constant(int(node.value))  # type: ignore[arg-type]
            case ast.Name():
                return names[node.id]
            case ast.UnaryOp():
                return self.add("Neg", [self.of(node.operand, names)])
            case ast.BinOp():
                sides = [self.of(part, names) for part in (node.left, node.right)]
                if isinstance(node.op, ast.FloorDiv):  # of ONNX rounds towards zero
                    sides[0] = self.add("Sub", [sides[0], self.add("Mod", list(sides))])
                return self.add(_OPERATORS[type(node.op)], sides)
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
                return self.add(_FUNCTIONS[name], [self.of(part, names) for part in node.args])
            case _:
                raise AssertionError(ast.dump(node))
