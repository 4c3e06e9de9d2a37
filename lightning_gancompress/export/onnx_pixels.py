"""ONNX models that read and give pixels of 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_gancompress.data.pictures import to_uint8
from lightning_gancompress.errors import UserError

if TYPE_CHECKING:
    from onnx import ModelProto

CLOSE = 1  # grey levels by which a model may differ from the network: two float results round to neighbours
_LEVELS = {"half": 127.5, "one": 1.0, "black": 0.0, "white": 255.0}


def use_pixels(model: ModelProto) -> None:
    """Have a model from floats (B, C, H, W) to such read and give pixels (B, H, W, C) of 8 bits, in place.

    So cameras, Pillow and OpenCV have them.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    for node in graph.node:
        node.input[:] = [f"{name}_float" if name in ("image", "output") else name for name in node.input]
        node.output[:] = ["output_float" if name == "output" else name for name in node.output]
    before = [
        helper.make_node("Transpose", ["image"], ["image_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["image_planes"], ["image_levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["image_levels", "half"], ["image_scaled"]),
        helper.make_node("Sub", ["image_scaled", "one"], ["image_float"]),
    ]
    after = [
        helper.make_node("Add", ["output_float", "one"], ["output_positive"]),
        helper.make_node("Mul", ["output_positive", "half"], ["output_scaled"]),
        helper.make_node("Round", ["output_scaled"], ["output_rounded"]),
        helper.make_node("Clip", ["output_rounded", "black", "white"], ["output_levels"]),
        helper.make_node("Cast", ["output_levels"], ["output_planes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["output_planes"], ["output"], perm=[0, 2, 3, 1]),
    ]
    graph.initializer.extend(
        numpy_helper.from_array(np.array(level, np.float32), name) for name, level in _LEVELS.items()
    )
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        batch, channels, height, width = [
            type(side).FromString(side.SerializeToString()) for side in kind.shape.dim
        ]
        kind.elem_type = TensorProto.UINT8
        del kind.shape.dim[:]
        kind.shape.dim.extend([batch, height, width, channels])
    del graph.value_info[:]


def require_pictures(network: nn.Module, sample: Tensor) -> None:
    """Raise a `UserError` unless a network maps greyscale or RGB pictures to such."""
    with torch.inference_mode():
        counts = [sample.shape[1], network(torch.zeros_like(sample)).shape[1]]
    if not {*counts} <= {1, 3}:
        raise UserError(
            f"uint8 is for pictures of 1 or 3 channels, and {type(network).__name__} maps images of "
            f"{counts[0]} channels to {counts[1]}: leave uint8 out."
        )


def levels_of_difference(
    network: Callable[[Tensor], Tensor],
    run: Callable[[Any], Any],
    sample: Tensor,
    dynamic_size: bool = False,
) -> float:
    """Largest difference of `run`, on pixels (B, H, W, C), from a network, in grey levels."""
    random = torch.Generator().manual_seed(0)
    batches = [(1, *sample.shape[1:]), (3, *sample.shape[1:])]
    if dynamic_size:
        batches.append((1, sample.shape[1], 2 * sample.shape[2], sample.shape[3]))
    worst = 0.0
    for shape in batches:
        pixels = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
        with torch.inference_mode():
            expected = to_uint8(network(pixels.float() / 127.5 - 1))
        found = run(pixels.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)
        worst = max(worst, float((found.int() - expected.int()).abs().max()))
    return worst
