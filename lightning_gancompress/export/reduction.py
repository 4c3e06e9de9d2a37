"""ONNX models in fewer bits: half precision, and 8-bit integers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.options import check_fields

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LARGEST_HALF = 65504.0
Precision = Literal["float32", "fp16", "int8"]


@dataclass(frozen=True)
class Reduction:
    """In how many bits a file keeps a network, whose input and output stay float32.

    `fp16` is for GPUs and phones: there it computes in half precision; CPUs compute in single precision.
    `int8` quantises the inputs and weights of convolutions, the weights with a scale per output channel, in
    ONNX's QDQ form. Float stay the first and the last convolution, which cost much quality and little time,
    and all that isn't faster in 8 bits: norms, activations, transposed convolutions.

    Args:
        precision: `fp16` or `int8`.
        calibration: Inputs (1, C, H, W) of the network, whose features `int8` takes its ranges from.
        held_out: Further inputs, on which the file is compared with the network; if empty, random ones.
        keep_float: Further layers that stay float32, by name or pattern (`model.1`, `model.model.1.*`).
        round_outputs: Whether `int8` quantises outputs of convolutions too. ONNX Runtime's 8-bit convolutions
            need that; `export_openvino` leaves it out, which is faster there and much nearer to the network.
    """

    precision: Literal["fp16", "int8"]
    calibration: Sequence[Tensor] = ()
    held_out: Sequence[Tensor] = ()
    keep_float: Sequence[str] = ()
    round_outputs: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if self.precision == "int8" and not self.calibration:
            raise UserError("precision int8 needs pictures to take its ranges from: give calibration.")

    def apply(self, model: ModelProto) -> ModelProto:
        """The model in fewer bits, with its metadata.

        Raises:
            UserError: A pattern fits no layer, no layer is left to convert, or the conversion fails.
        """
        kept = _kept(model, self.keep_float)
        if self.precision == "int8":
            convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
            kept += [*convolutions[:1], *convolutions[-1:]]
            if not {*convolutions} - {*kept}:
                raise UserError(
                    "precision int8 has no convolution to quantise, since the first and the last stay float, "
                    "and those that keep_float names: choose fp16 or float32."
                )
        try:
            with _quiet():
                return _half(model, kept) if self.precision == "fp16" else _quantised(model, self, kept)
        except Exception as error:  # of all kinds
            raise UserError(
                f"The network can't be converted to {self.precision} ({first_line(error)[:300]}): export it "
                "in float32."
            ) from error


@torch.inference_mode()
def require_half_range(network: nn.Module, images: Sequence[Tensor]) -> None:
    """Raise a `UserError` if a layer's output is beyond half precision, which CPUs would hide.

    Args:
        network: The network, in eval mode.
        images: Its inputs (B, C, H, W).
    """
    largest: dict[str, float] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                largest[name] = max(largest.get(name, 0.0), float(output.abs().max()))

        return hook

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in network.named_modules()
        if not list(module.children())
    ]
    try:
        for image in images:
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    for name, value in largest.items():
        if not value <= LARGEST_HALF:
            raise UserError(
                f"precision fp16 can't hold the features of layer {name}, up to {value:.3g} where half "
                f"precision ends at {LARGEST_HALF:.0f}: export it in float32."
            )


def layer_of(node: NodeProto) -> str:
    """The name of the layer in the network that a node with weights computes; empty for others."""
    return str(node.input[1]).partition(".weight")[0] if len(node.input) > 1 else ""


def _kept(model: ModelProto, patterns: Sequence[str]) -> list[str]:
    """Names of the nodes of the layers that stay float."""
    weights = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if len(node.input) > 1 and node.input[1] in weights]
    layers = {node.name: layer_of(node) for node in nodes if node.op_type.startswith("Conv")}
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in layers.values()):
            raise UserError(
                f"keep_float {pattern!r} fits no convolution of the network: choose of "
                f"{', '.join(list(dict.fromkeys(layers.values()))[:40])}."
            )
    return [name for name, layer in layers.items() if any(fnmatchcase(layer, p) for p in patterns)]


def _half(model: ModelProto, kept: list[str]) -> ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half: ModelProto = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    return half


def _quantised(model: ModelProto, reduction: Reduction, kept: list[str]) -> ModelProto:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(reduction.calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {model.graph.input[0].name: image.numpy(force=True)}

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantize_static(
            model,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=kept,
            extra_options={} if reduction.round_outputs else {"OpTypesToExcludeOutputQuantization": ["Conv"]},
        )
        return onnx.load(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without the converters' hints, which go to the root logger."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
