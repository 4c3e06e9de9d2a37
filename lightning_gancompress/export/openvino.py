"""Export to OpenVINO's own format, with a check on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.export.onnx import onnx_model
from lightning_gancompress.export.program import describe, image_differences, inference_copy, random_images
from lightning_gancompress.export.reduction import Reduction, require_half_range
from lightning_gancompress.files import user_path, write_files
from lightning_gancompress.options import Amount, checked
from lightning_gancompress.packages import require

RECORD = ["preprocessing"]  # where the description of the preprocessing stands in a model's information


@checked
def export_openvino(
    network: nn.Module,
    path: str | Path,
    sample: Tensor,
    *,
    tolerance: Amount = 1e-4,
    dynamic_size: bool = False,
    optimize: bool = True,
    preprocessing: Mapping[str, Any] | None = None,
    reduction: Reduction | None = None,
) -> dict[str, Any]:
    """Write `network` as OpenVINO's `.xml` and, beside it, `.bin`; it is converted from the ONNX file.

    Args:
        network: See `export_onnx`; the others too.
        path: The `.xml` file to write, atomically.
        sample: An input (B, C, H, W) of the shape to export.
        tolerance: Largest accepted absolute difference of the float32 ONNX file from torch.
        dynamic_size: Whether to accept other heights and widths too.
        optimize: Whether layers are written in another form; see `use_faster_layers`.
        preprocessing: How images become its input, in plain types; written as JSON into the model's
            information, under the key `preprocessing`.
        reduction: In how many bits; None is float32.

    Returns:
        The facts of `export_onnx`, of OpenVINO in single precision.

    Raises:
        UserError: A package is missing, the network can't be exported, differs too much, or can't be written.
    """
    require("OpenVINO", "openvino")
    path = user_path(path)
    if path.suffix != ".xml":
        raise UserError(f"path {path} doesn't end in .xml, as OpenVINO's files do: choose such a name.")
    sample = torch.zeros(sample.shape)  # as the copies of the network are: float32, on the CPU
    half = reduction is not None and reduction.precision == "fp16"  # OpenVINO halves by itself
    images = random_images(sample, dynamic_size)
    if reduction is not None and half:
        if reduction.keep_float:
            raise UserError("keep_float is not for OpenVINO in fp16, which halves all layers: leave it out.")
        require_half_range(inference_copy(network), [*images, *reduction.held_out])
    quantised = None if half or reduction is None else replace(reduction, round_outputs=False)
    model, facts = onnx_model(network, path, sample, tolerance, dynamic_size, optimize, None, quantised)
    content = model.SerializeToString()
    files = _convert(content, half, preprocessing or {}, path)
    images = list(reduction.held_out) if reduction and reduction.held_out else images
    with tempfile.TemporaryDirectory() as folder:
        for ending, data in files.items():
            Path(folder, f"model{ending}").write_bytes(data)
        run = load_openvino(Path(folder, "model.xml"), exact=True)
        mean, largest = image_differences(inference_copy(network), run, images)
    if not largest < float("inf"):
        raise UserError(f"{path.name} was not written: its output isn't finite; export it in float32.")
    if reduction is None and largest > 10 * max(tolerance, facts["max_difference"]):
        raise UserError(
            f"{path.name} was not written: OpenVINO's output differs from the network's by {largest:.3g}; "
            "export it to ONNX."
        )
    write_files({path.with_suffix(ending): data for ending, data in files.items()})
    facts = {**describe(path, "openvino", sample, largest, dynamic_size), **facts, "max_difference": largest}
    facts["bytes"] = sum(map(len, files.values()))
    if half:
        facts["float_bytes"] = len(content)
    return {**facts, "mean_difference": mean} if reduction else facts


def _convert(content: bytes, half: bool, preprocessing: Mapping[str, Any], path: Path) -> dict[str, bytes]:
    """The content of both files by their endings."""
    import openvino

    try:
        model = openvino.Core().read_model(model=content)
        if preprocessing:
            model.set_rt_info(json.dumps(preprocessing), RECORD)
        with tempfile.TemporaryDirectory() as folder:
            openvino.save_model(model, Path(folder, "model.xml"), compress_to_fp16=half)
            return {ending: Path(folder, f"model{ending}").read_bytes() for ending in (".xml", ".bin")}
    except Exception as error:  # its errors are of many kinds
        raise UserError(
            f"{path.name} was not written: OpenVINO can't convert the network ({first_line(error)[:300]}); "
            "export it to ONNX."
        ) from error


def open_openvino(path: Path, threads: int = 0, exact: bool = False) -> tuple[Any, str]:
    """An `openvino.CompiledModel` of an `.xml` file, for the CPU, and its record of the preprocessing.

    Args:
        path: The file, which may be of others.
        threads: CPU threads; 0 for OpenVINO's default.
        exact: Compute in single precision also where the CPU has bfloat16, which is OpenVINO's default there.

    Raises:
        UserError: The package is missing, or the file can't be read.
    """
    require("OpenVINO", "openvino")
    import openvino

    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads} if threads else {}
    settings |= {"INFERENCE_PRECISION_HINT": "f32"} if exact else {}
    try:
        core = openvino.Core()
        model = core.read_model(path)
        record = str(model.get_rt_info(RECORD).value) if model.has_rt_info(RECORD) else "{}"
        return core.compile_model(model, "CPU", settings), record
    except Exception as error:
        raise UserError(
            f"{path} can't be loaded by OpenVINO ({first_line(error)[:300]}): it is damaged, or its .bin "
            "file isn't beside it; copy both, or export it again."
        ) from error


def load_openvino(path: Path, threads: int = 0, exact: bool = False) -> Callable[[Tensor], Tensor]:
    """A function that maps an image batch (B, C, H, W) through an OpenVINO model; see `open_openvino`."""
    compiled, _ = open_openvino(path, threads, exact)
    return lambda image: torch.from_numpy(compiled([image.numpy(force=True)])[0])
