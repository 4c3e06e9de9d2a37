"""Channels of equal range before instance norms, for features in 8 bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LEAST_VARIANCE = 0.01  # below, the norm's epsilon, commonly 1e-5, would tell the difference
MOST = 64.0


def equalise_ranges(model: ModelProto, images: Sequence[Tensor]) -> None:
    """Scale channels of convolutions to one range, where an instance norm follows, which undoes it.

    In 8 bits the outputs of a convolution share a scale, whose steps are coarse for channels of small range,
    and the norm amplifies just these.

    Args:
        model: Changed in place; its outputs stay the same but for rounding.
        images: Inputs (1, C, H, W) on which ranges are measured.
    """
    import onnxruntime
    from onnx import ModelProto, helper, numpy_helper

    nodes = _before_norms(model)
    if not nodes:
        return
    probe, names = ModelProto(), [node.output[0] for node in nodes]
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    largest, least = [np.zeros(1)] * len(nodes), [np.full(1, np.inf)] * len(nodes)
    for image in images:
        features = session.run(names, {model.graph.input[0].name: image.numpy(force=True)})
        largest = [np.maximum(a, np.abs(f).max((0, 2, 3))) for a, f in zip(largest, features, strict=True)]
        least = [np.minimum(a, f.var((0, 2, 3))) for a, f in zip(least, features, strict=True)]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node, ranges, variances in zip(nodes, largest, least, strict=True):
        scale = np.minimum(ranges.max() / np.maximum(ranges, 1e-9), MOST)
        scale = np.where(variances < LEAST_VARIANCE, 1, scale)
        for name in node.input[1:]:
            array = numpy_helper.to_array(constants[name])
            scaled = array * scale.reshape(-1, *[1] * (array.ndim - 1))
            constants[name].CopyFrom(numpy_helper.from_array(scaled.astype(array.dtype), name))


def _before_norms(model: ModelProto) -> list[NodeProto]:
    """Convolutions with weights of their own whose outputs only an instance norm reads."""
    graph = model.graph
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    normed = {node.input[0] for node in graph.node if node.op_type == "InstanceNormalization"}
    constants = {tensor.name for tensor in graph.initializer}
    return [
        node
        for node in graph.node
        if node.op_type == "Conv"
        and node.output[0] in normed
        and uses[node.output[0]] == 1
        and all(name in constants and uses[name] == 1 for name in node.input[1:])
    ]
