"""Export to ONNX, with a check in ONNX Runtime."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils.flop_counter import FlopCounterMode

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.export.faster_layers import use_faster_layers
from lightning_gancompress.export.onnx_pixels import (
    CLOSE,
    levels_of_difference,
    require_pictures,
    use_pixels,
)
from lightning_gancompress.export.program import (
    check,
    describe,
    image_differences,
    inference_copy,
    max_difference,
    quiet,
    random_images,
    trace,
)
from lightning_gancompress.export.reduction import Reduction, require_half_range
from lightning_gancompress.export.sizes import conditions, needed, refuse_others
from lightning_gancompress.files import user_path, write_files
from lightning_gancompress.networks.layers import Network
from lightning_gancompress.options import Amount, Workers, checked
from lightning_gancompress.packages import require

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18  # the version that torch's exporter writes without conversion, for the oldest possible runtimes
LEAST_TORCH = "2.8"  # 2.6 calls free sizes `s0`, and its 16-bit files can't be loaded


@checked
def export_onnx(
    network: nn.Module,
    path: str | Path,
    sample: Tensor,
    *,
    tolerance: Amount = 1e-4,
    dynamic_size: bool = False,
    optimize: bool = True,
    preprocessing: Mapping[str, Any] | None = None,
    reduction: Reduction | None = None,
    uint8: bool = False,
) -> dict[str, Any]:
    """Write `network` as one self-contained ONNX file: input `image`, output `output`, free batch size.

    Of torch's two exporters this uses the one based on `torch.export`. The files of both run equally fast in
    ONNX Runtime and keep instance norms as one operator, but this one also folds batch norms into transposed
    convolutions, and writes reflection padding as one operator where the other takes nine.

    Args:
        network: Maps one (B, C, H, W) image batch to another; it is copied, not changed.
        path: File to write, atomically.
        sample: An input (B, C, H, W) of the shape to export; its values don't matter.
        tolerance: Largest accepted absolute difference of ONNX Runtime's output from torch's.
        dynamic_size: Whether to accept other heights and widths too, those that the network itself accepts; a
            fixed size can be optimised better.
        optimize: Whether to write layers in the form that ONNX Runtime computes fastest on CPUs, see
            `use_faster_layers`; False keeps the network's own layers, for other runtimes and devices.
        preprocessing: How images become its input, in plain types; written as JSON into the file's metadata,
            under the key `preprocessing`. Under `cost` is what the network multiplies for one image of
            `sample`: `macs_exact`, `height`, `width`.
        reduction: In how many bits; None is float32. The tolerance is for the float32 file that it begins
            with: how far the reduced one is from the network is returned, not limited.
        uint8: Read and give pixels of 8 bits, (B, H, W, C), in place of floats (B, C, H, W) in [-1, 1]. Then
            the difference is one of grey levels, and at most 1 is accepted; with a `reduction` it is that of
            the file with floats.

    Returns:
        The facts of `describe`, the `opset`, and with a `reduction` the `mean_difference`, and `float_bytes`,
        the size that the file would have in float32.

    Raises:
        UserError: A package is missing, the network can't be exported, differs too much, or can't be written.
    """
    path = user_path(path)
    sample = torch.zeros(sample.shape)  # as the copies of the network are: float32, on the CPU
    if uint8:
        require_pictures(inference_copy(network), sample)
    model, facts = onnx_model(
        network, path, sample, tolerance, dynamic_size, optimize, preprocessing, reduction
    )
    if uint8:
        reference = inference_copy(network) if reduction is None else load_onnx(model.SerializeToString())
        use_pixels(model)
        run = load_onnx(model.SerializeToString())
        levels = levels_of_difference(reference, run, sample, dynamic_size)
        check(levels, CLOSE, path)
        facts |= {"max_difference": levels} if reduction is None else {}
    write_files({path: model.SerializeToString()})
    return {**describe(path, "onnx", sample, 0.0, dynamic_size), **facts, "opset": OPSET}


def onnx_model(
    network: nn.Module,
    path: Path,
    sample: Tensor,
    tolerance: float,
    dynamic_size: bool,
    optimize: bool,
    preprocessing: Mapping[str, Any] | None,
    reduction: Reduction | None,
) -> tuple[ModelProto, dict[str, Any]]:
    """The model that `export_onnx` writes, with float images, and how far it is from the network."""
    require("ONNX", "onnx", "onnxruntime", "onnxscript")
    if torch.__version__ < LEAST_TORCH:  # it compares as a version, not as text
        raise UserError(
            f"ONNX files need torch {LEAST_TORCH}, and this is {torch.__version__}: run "
            "`pip install --upgrade torch torchvision`."
        )
    reference = inference_copy(network)
    program = trace(reference, sample, dynamic_size)
    multiple = network.size_multiple if dynamic_size and isinstance(network, Network) else 1
    any_width = reduction is not None and reduction.precision == "int8"
    metadata = {"cost": _cost(reference, sample), "preprocessing": preprocessing}
    model = _convert(program, dynamic_size, multiple, optimize, any_width, metadata)
    found = conditions(program) if dynamic_size else []
    if found:
        run = load_onnx(model.SerializeToString())
        if found := needed(found, reference, run, sample, tolerance):
            refuse_others(model, found)
    difference = max_difference(reference, load_onnx(model.SerializeToString()), sample, dynamic_size)
    check(difference, tolerance, path)
    if reduction is None:
        return model, {"max_difference": difference}
    return _reduced(model, reduction, reference, path, random_images(sample, dynamic_size))


def _reduced(
    model: ModelProto, reduction: Reduction, reference: nn.Module, path: Path, probes: list[Tensor]
) -> tuple[ModelProto, dict[str, Any]]:
    if reduction.precision == "fp16":
        require_half_range(reference, [*probes, *reduction.held_out])
    size = model.ByteSize()
    reduced = reduction.apply(model)
    run = load_onnx(reduced.SerializeToString())
    mean, largest = image_differences(reference, run, probes)
    if reduction.held_out:
        mean, largest = image_differences(reference, run, reduction.held_out)
    if not math.isfinite(largest):
        raise UserError(
            f"{path.name} was not written: in {reduction.precision} its output isn't finite; export it in "
            "float32."
        )
    return reduced, {"max_difference": largest, "mean_difference": mean, "float_bytes": size}


def _convert(
    program: ExportedProgram,
    dynamic_size: bool,
    multiple: int,
    optimize: bool,
    any_width: bool,
    metadata: Mapping[str, Any],
) -> ModelProto:
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default and node.args[5]:
            # it normalises by the batch; torch's exporter would by the averages that it is given to update
            node.args = (*node.args[:3], None, None, *node.args[5:])
    names = {0: "batch", **({2: "height", 3: "width"} if dynamic_size else {})}
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations within the exporter
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["output"],
                dynamic_shapes=(names,),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        versions = f"torch {torch.__version__}, onnxscript {version('onnxscript')}"
        raise UserError(
            f"The network can't be converted to ONNX by {versions} ({str(error.__cause__ or error)[:200]}): "
            "upgrade both (`pip install --upgrade torch torchvision onnxscript`), or export --format torch."
        ) from error
    assert exported is not None  # only the TorchScript exporter returns nothing
    model = exported.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")  # paths of this machine's code, a tenth of a small network's file
    if optimize:
        use_faster_layers(model, any_width)
    if multiple > 1:
        _refuse_other_sizes(model, multiple)
    for key, value in metadata.items():
        if value:
            model.metadata_props.add(key=key, value=json.dumps(value))
    return model


def _cost(network: nn.Module, sample: Tensor) -> dict[str, int]:
    """What `profile` says of the network: layers of the file may be in another form, with more products."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(sample)
    height, width = sample.shape[2:]
    macs = counter.get_total_flops() // 2 // len(sample)
    return {"macs_exact": macs, "height": height, "width": width}


def _refuse_other_sizes(model: Any, multiple: int) -> None:
    """Begin a model with a reshape that fails where the network refuses a height or width.

    ONNX has no assertions, and a traced network has lost those of its code: it would return another size.
    """
    from onnx import helper, numpy_helper

    for node in model.graph.node:
        node.input[:] = ["whole" if name == "image" else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array([multiple]), "multiple"))
    name = f"height_and_width_must_be_multiples_of_{multiple}"  # runtimes show it in their error
    checks = [
        helper.make_node("Shape", ["image"], ["outer"], start=0, end=2),
        helper.make_node("Shape", ["image"], ["sides"], start=2),
        helper.make_node("Div", ["sides", "multiple"], ["steps"]),
        helper.make_node("Mul", ["steps", "multiple"], ["whole_sides"]),
        helper.make_node("Concat", ["outer", "whole_sides"], ["whole_shape"], axis=0),
        helper.make_node("Reshape", ["image", "whole_shape"], ["whole"], name, allowzero=1),
    ]
    for node in reversed(checks):
        model.graph.node.insert(0, node)


@checked
def load_onnx(model: str | Path | bytes, threads: Workers = 0) -> Callable[[Tensor], Tensor]:
    """A function that maps an image batch (B, C, H, W) through an ONNX model on the CPU.

    Args:
        model: A file written by `export_onnx`, or its content.
        threads: CPU threads; 0 for ONNX Runtime's default.

    Raises:
        UserError: A package is missing, or the model can't be read.
    """
    session = onnx_session(model, threads)
    (name,) = (node.name for node in session.get_inputs())

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: image.numpy(force=True)})[0])

    return run


def onnx_session(model: str | Path | bytes, threads: int = 0, cuda: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` of a model: a file, or its content.

    Args:
        model: A file, which may be of others, or the content of one.
        threads: CPU threads; 0 for ONNX Runtime's default.
        cuda: Run on the first GPU; what can't runs on the CPU.

    Raises:
        UserError: A package is missing, or the model can't be read.
    """
    require("ONNX", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # the errors are raised as well
    source = model if isinstance(model, bytes) else str(model)
    providers = ["CUDAExecutionProvider"] * cuda + ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(source, options, providers=providers)
    except Exception as error:  # its errors share no base class
        name = "The ONNX model" if isinstance(model, bytes) else str(model)
        raise UserError(
            f"{name} can't be loaded by ONNX Runtime ({first_line(error)[:300]}): it is damaged, or "
            "needs a file or an operator that is missing here; copy it again, or export it anew as one file."
        ) from error
