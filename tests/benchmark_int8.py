"""What 8 bits cost, by the layers that stay float, by quantiser and by runtime, as a table in Markdown.

    python tests/benchmark_int8.py generator.pth --pictures test --calibration train
    python tests/benchmark_int8.py G.pth --class vintagify.generator:ResnetGenerator --size 128 ...

`export` writes what the rows "the default" are. L1 is of pixels in [-1, 1], to the network in torch; times
are relative to the float file in the same runtime. Rows of NNCF need `pip install nncf`; nothing else does.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import onnx
import openvino
import torch
from benchmark_exports import (
    add_common_options,
    add_times,
    draw,
    from_float,
    markdown,
    open_torch,
    outputs,
    report,
)
from onnx import ModelProto
from torch import Tensor

from lightning_gancompress.errors import UserError
from lightning_gancompress.export import Reduction, export_onnx, load_onnx, torch_threads
from lightning_gancompress.export.openvino import load_openvino
from lightning_gancompress.export.reduction import _quiet as quiet
from lightning_gancompress.translation.inputs import model_inputs

COLUMNS = {
    "MB": ("file, MB", ".2f"),
    "l1_torch": ("L1", ".4f"),
    "worst": ("worst picture", ".4f"),
    "ms": ("ms", ".3g"),
    "ratio": ("relative", ".2f"),
    "openvino_l1_torch": ("OpenVINO: L1", ".4f"),
    "openvino_worst": ("worst picture", ".4f"),
    "openvino_ms": ("ms", ".3g"),
    "openvino_ratio": ("relative", ".2f"),
}
NORMS = ["InstanceNormalization", "BatchNormalization"]
Quantise = Callable[[Any], Any]


class Unreduced(Reduction):
    """Leaves a model in float32, in the form that `export` quantises."""

    def apply(self, model: ModelProto) -> ModelProto:
        return model


def names(model: ModelProto, kinds: Sequence[str]) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type in kinds]


def trials(images: list[Tensor], folder: Path) -> Iterator[tuple[str, Quantise]]:
    """Names of the ways to 8 bits, and what does it."""

    def quantiser(kinds: list[str], keep: slice = slice(0)) -> Quantise:
        cache = folder / "ranges.json"
        return lambda model: onnxruntime(model, images, cache, kinds, names(model, ["Conv"])[keep])

    yield "the default", Reduction("int8", images).apply
    yield "the default for OpenVINO", Reduction("int8", images, round_outputs=False).apply
    yield "also the first convolution", quantiser(["Conv"], slice(-1, None))
    yield "also the last convolution", quantiser(["Conv"], slice(1))
    yield "all convolutions", quantiser(["Conv"])
    yield "all convolutions, also transposed", quantiser(["Conv", "ConvTranspose"])
    yield "these and norms", quantiser(["Conv", "ConvTranspose", *NORMS])
    yield "all that it can", quantiser([])
    yield "the first convolution alone", quantiser(["Conv"], slice(1, None))
    yield "the last convolution alone", quantiser(["Conv"], slice(-1))
    yield "transposed convolutions alone", quantiser(["ConvTranspose"])
    yield "norms alone", quantiser(NORMS)


def nncf_trials(images: list[Tensor]) -> Iterator[tuple[str, Quantise]]:
    """The same for NNCF, which takes models of ONNX and of OpenVINO."""
    yield "NNCF, as it chooses", lambda model: nncf(model, images)
    yield "NNCF, the default's layers and ranges", lambda model: nncf(model, images, as_default=True)


def onnxruntime(
    model: ModelProto, images: list[Tensor], cache: Path, kinds: list[str], kept: list[str]
) -> ModelProto:
    """Quantise as `Reduction` does, but other layers.

    Args:
        model: The model.
        images: Inputs for the ranges of features.
        cache: File of the ranges of all features, made by the first call; needs ONNX Runtime 1.32.
        kinds: Kinds of operators to quantise; all that are known, if empty.
        kept: Names of operators that stay float.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs = ({model.graph.input[0].name: image.numpy(force=True)} for image in images)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.inputs, None)

    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        for chosen, excluded in ([] if cache.exists() else [([], [])]) + [(kinds, kept)]:
            with quiet():
                quantize_static(
                    deepcopy(model),
                    path,
                    Reader(),
                    per_channel=True,
                    op_types_to_quantize=chosen,
                    nodes_to_exclude=excluded,
                    calibration_cache_path=cache,
                    **types,
                )
        return onnx.load(path)


def nncf(model: Any, images: list[Tensor], as_default: bool = False) -> Any:
    """Quantise by NNCF for CPUs a model of ONNX or of OpenVINO.

    Args:
        model: The model.
        images: Inputs for the ranges of features.
        as_default: Quantise what `Reduction` does, with the extremes of all pictures for ranges, in place of
            what NNCF chooses, with the means of each picture's extremes.
    """
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    if isinstance(model, ModelProto):
        layers = [(node.name, node.op_type == "Conv") for node in model.graph.node]
    else:
        kinds = {op.get_friendly_name(): op.get_type_name() for op in model.get_ordered_ops()}
        layers = [(name, kind == "Convolution") for name, kind in kinds.items()]
    ends = [name for name, convolves in layers if convolves][:: sum(x for _, x in layers) - 1]
    kept = [*ends, *(name for name, convolves in layers if not convolves)]
    extremes = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
    )

    def read(image: Tensor) -> Any:
        pixels = image.numpy(force=True)
        return {model.graph.input[0].name: pixels} if isinstance(model, ModelProto) else pixels

    with quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(images, read),
            preset=nncf.QuantizationPreset.MIXED,  # features with a zero point, as `Reduction`'s
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=kept, validate=False) if as_default else None,
            advanced_parameters=extremes if as_default else None,
        )


def write(model: Any, images: list[Tensor], folder: Path) -> list[tuple[str, Path, Path]]:
    """Names, and the files for both runtimes; the first is in float32."""
    files, start = [("none", folder / "float.onnx", folder / "float.onnx")], folder / "start.onnx"
    export_onnx(model.network, files[0][1], images[0])
    export_onnx(model.network, start, images[0], reduction=Unreduced("int8", images))
    for name, quantise in trials(images, folder):
        path = folder / f"{len(files)}.onnx"
        onnx.save(quantise(onnx.load(start)), path)
        files.append((name, path, path))
    for name, quantise in nncf_trials(images) if importlib.util.find_spec("nncf") else ():
        path, own = folder / f"{len(files)}.onnx", folder / f"{len(files)}.xml"
        onnx.save(quantise(onnx.load(start)), path)
        openvino.save_model(quantise(openvino.Core().read_model(start)), own, compress_to_fp16=False)
        files.append((name, path, own))
    return files


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    model = open_torch(options)
    sources = model_inputs(model, options.pictures, options.count)
    images = model_inputs(model, options.calibration, options.calibrate)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), torch_threads(1):
        plain = outputs(model.network, sources)
        files = write(model, images, Path(folder))
        rows: list[dict[str, Any]] = [
            {"in 8 bits": name, "MB": path.stat().st_size / 1e6} for name, path, _ in files
        ]
        pictures = [torch.cat(sources[:4]), plain[:4]]
        for prefix, load, index in (("", load_onnx, 1), ("openvino_", load_openvino, 2)):
            timed, runs = [], []
            for row, paths in zip(rows, files, strict=True):
                try:
                    run = load(paths[index], threads=1)
                except UserError:
                    continue  # OpenVINO lacks some operators in 8 bits: the cells stay empty
                output = outputs(run, sources)
                row |= {prefix + key: figure for key, figure in from_float(output, plain).items()}
                pictures.append(output[:4])
                timed.append(row)
                runs.append(lambda run=run: run(sources[0]))
            add_times(timed, runs, options, prefix)
    if options.grid:
        draw(pictures, options.grid)
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_common_options(parser)
    options = parser.parse_args(arguments)
    rows = measure(options)
    report(options, rows, markdown(rows, "in 8 bits", {}, COLUMNS), ["nncf"])
    return rows


if __name__ == "__main__":
    main()
