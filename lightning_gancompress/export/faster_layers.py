"""Layers of an ONNX graph in an equal form that ONNX Runtime computes faster on CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Array = NDArray[Any]
END = np.iinfo(np.int64).max  # of a slice, whatever the size


def use_faster_layers(model: ModelProto, any_width: bool = False) -> None:
    """Replace layers in place; each has the same output, but for rounding, at any size of the image.

    A convolution with few outputs, such as the last of a ResNet, would be computed with eight or sixteen of
    them, the width of the CPU's vectors; here the rows of its kernel are outputs, to be shifted and added. A
    transposed convolution would be a matrix product whose result is scattered; here it is an ordinary
    convolution with an output for each place within a stride, for which the runtime has faster code.

    Args:
        model: Changed in place.
        any_width: Replace transposed convolutions of all numbers of inputs. In float32 those that aren't
            multiples of four would be slower, outside of the runtime's fast layout; in 8 bits all are faster.
    """
    from onnx import numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        layer = _Layer.of(node, constants)
        replacement = (_summed_rows(layer) or _upsampling(layer, any_width)) if layer else None
        if replacement is None:
            nodes.append(node)
            continue
        nodes += replacement.nodes
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in replacement.constants.items())
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


@dataclass(frozen=True)
class _Layer:
    """A 2-D convolution of either kind, without groups and dilation, whose weights are constants."""

    node: NodeProto
    weight: Array  # (outputs, inputs, height, width), of a transposed one (inputs, outputs, height, width)
    bias: Array  # (outputs,)
    strides: list[int]
    pads: list[int]  # top, left, bottom, right
    output_padding: list[int]

    @classmethod
    def of(cls, node: NodeProto, constants: dict[str, Any]) -> _Layer | None:
        """The layer of a node, None for all others."""
        from onnx import helper, numpy_helper

        if node.op_type not in ("Conv", "ConvTranspose") or not {*node.input[1:]} <= {*constants, ""}:
            return None
        weight, *biases = (numpy_helper.to_array(constants[name]) for name in node.input[1:] if name)
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = {"group": 1, "auto_pad": b"NOTSET", "dilations": [1, 1], "output_shape": None}
        if weight.ndim != 4 or any(given.get(name, value) != value for name, value in plain.items()):
            return None
        outputs = weight.shape[node.op_type == "ConvTranspose"]
        bias = biases[0] if biases else np.zeros(outputs, weight.dtype)
        return cls(
            node,
            weight,
            bias,
            given.get("strides", [1, 1]),
            given.get("pads", [0] * 4),
            given.get("output_padding", [0, 0]),
        )


class _Replacement:
    """Nodes and constants in place of a node, whose input and output they have."""

    def __init__(self, node: NodeProto) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self._source, self._weight, self._name = node.input[0], node.input[1], node.output[0]

    def constant(self, value: Array) -> str:
        """The name of a new constant."""
        name = f"{self._weight}_of_{self._name}_{len(self.constants)}"  # which tells the layer
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; return the name of its output."""
        from onnx import helper

        output = f"{self._name}_part_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}_{kind}", **attributes))
        return output

    def convolution(self, weight: Array, bias: Array, **attributes: Any) -> str:
        """Add a convolution of the replaced node's input."""
        return self.add(
            "Conv",
            self._source,
            self.constant(weight),
            *([self.constant(bias)] if bias.any() else []),
            kernel_shape=weight.shape[2:],
            **attributes,
        )

    def slice(self, source: str, axes: list[int], starts: list[int], ends: list[int]) -> str:
        """Add a slice."""
        bounds = (self.constant(np.array(numbers, np.int64)) for numbers in (starts, ends, axes))
        return self.add("Slice", source, *bounds)

    def finished(self) -> _Replacement:
        """This, whose last operator has the output of the replaced node."""
        self.nodes[-1].output[:] = [self._name]
        return self


def _summed_rows(layer: _Layer) -> _Replacement | None:
    """A convolution with each row of the kernel as an output of its own; the sum of the shifted rows."""
    outputs, inputs, height, width = layer.weight.shape
    if layer.node.op_type != "Conv" or layer.strides != [1, 1] or outputs > 4 or height < 5:
        return None
    new = _Replacement(layer.node)
    kernel = layer.weight.transpose(2, 0, 1, 3).reshape(height * outputs, inputs, 1, width)
    bias = np.concatenate([layer.bias, np.zeros((height - 1) * outputs, layer.bias.dtype)])
    rows = new.convolution(kernel, bias, pads=layer.pads)
    shifted = [
        new.slice(rows, [1, 2], [row * outputs, row], [(row + 1) * outputs, row + 1 - height or END])
        for row in range(height)
    ]
    new.add("Sum", *shifted)
    return new.finished()


def _upsampling(layer: _Layer, any_width: bool) -> _Replacement | None:
    """A transposed convolution whose kernel is a multiple of its stride: convolution and depth to space."""
    inputs, outputs, *kernel = layer.weight.shape
    stride, top, left = layer.strides[0], *layer.pads[:2]
    steps = [size // stride for size in kernel]
    crop = [pad - more for pad, more in zip(layer.pads[2:], layer.output_padding, strict=True)]
    if (
        layer.node.op_type != "ConvTranspose"
        or stride == 1
        or layer.strides != [stride] * 2
        or kernel != [stride * n for n in steps]
        or min(crop) < 0
        or (inputs % 4 and not any_width)
    ):
        return None
    new = _Replacement(layer.node)
    parts = layer.weight.reshape(inputs, outputs, steps[0], stride, steps[1], stride)[:, :, ::-1, :, ::-1]
    weight = parts.transpose(3, 5, 1, 0, 2, 4).reshape(stride**2 * outputs, inputs, *steps)
    pads = [n - 1 for n in steps] * 2
    places = new.convolution(weight, np.tile(layer.bias, stride**2), pads=pads)
    whole = new.add("DepthToSpace", places, blocksize=stride)
    if top or left or any(crop):
        new.slice(whole, [2, 3], [top, left], [-n or END for n in crop])
    return new.finished()
