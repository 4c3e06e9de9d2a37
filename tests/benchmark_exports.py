"""Size, latency and quality of a generator in each form that `export` writes, as a table in Markdown.

    python tests/benchmark_exports.py generator.pth --teacher teacher.ckpt --pictures test --calibration train
    python tests/benchmark_exports.py G.pth --class vintagify.generator:ResnetGenerator --size 256 ...

Times are of one image on one thread, of the processor unless `--wall`; the forms run in turn, and their
ratios to torch are medians over neighbouring calls. L1 is of pixels in [-1, 1], to the teacher and to the
network in torch; of the latter there are the worst picture and PSNR too. Coverage (1 is best) and ISE (0 is
best) are of the teacher's images in features of Inception, as in a test, if its weights are given.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_gancompress.data.pictures import to_uint8
from lightning_gancompress.density import density_coverage, neighbourhood_ise
from lightning_gancompress.export import Reduction, export_onnx, export_openvino, load_onnx, torch_threads
from lightning_gancompress.export.latency import compare_times, time_in_turn
from lightning_gancompress.export.openvino import load_openvino
from lightning_gancompress.metrics import InceptionFeatures
from lightning_gancompress.translation.inputs import model_inputs
from lightning_gancompress.translation.torch_model import TorchModel

NAMES = {
    "torch": "torch, float32",
    "compile": "`torch.compile`",
    "onnx": "ONNX",
    "onnx_fp16": "ONNX fp16",
    "onnx_int8": "ONNX int8",
    "openvino": "OpenVINO, as it chooses",
    "openvino_f32": "OpenVINO in float32",
    "openvino_fp16": "OpenVINO fp16",
    "openvino_int8": "OpenVINO int8",
}
COLUMNS = {  # key: heading and format
    "MB": ("file, MB", ".2f"),
    "ms": ("ms", ".3g"),
    "ratio": ("relative", ".2f"),
    "l1_teacher": ("L1 to teacher", ".4f"),
    "coverage": ("coverage", ".3f"),
    "ise": ("ISE", ".4f"),
    "l1_torch": ("L1 to torch", ".4f"),
    "worst": ("worst picture", ".4f"),
    "psnr": ("PSNR, dB", ".1f"),
}
Run = Callable[[Tensor], Tensor]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--teacher", type=Path, help="checkpoint; without it the model is its own teacher")
    parser.add_argument("--inception", help="torch-fidelity's weight file, for coverage and ISE")
    parser.add_argument("--forms", nargs="+", choices=[*NAMES], default=[*NAMES])
    return parser


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """The model, its pictures, and how it is timed."""
    parser.add_argument("model", type=Path)
    parser.add_argument("--class", dest="kind", help="module:Class of the model, where its file lacks it")
    parser.add_argument("--size", type=int, help="pixels per side; that of the training by default")
    parser.add_argument("--pictures", required=True, help="folder of sources to measure on")
    parser.add_argument("--calibration", required=True, help="folder of sources to calibrate int8 on")
    parser.add_argument("--count", type=int, default=48, help="pictures to measure on")
    parser.add_argument("--calibrate", type=int, default=48, help="pictures to calibrate on")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--wall", action="store_true", help="time by the wall clock, on a quiet machine")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--grid", type=Path, help="write the first pictures of all rows to this PNG file")


def open_torch(options: argparse.Namespace) -> TorchModel:
    if options.kind is None:
        model = TorchModel(options.model)
    else:
        module, _, name = options.kind.partition(":")
        model = TorchModel(options.model, architecture=getattr(importlib.import_module(module), name)())
    if options.size:
        model.fixed_size = (options.size, options.size)
    return model


def make(form: str, network: nn.Module, images: list[Tensor], folder: Path) -> tuple[Run, int]:
    """A form of a network, and its bytes."""
    sample = images[0]
    if form in ("torch", "compile"):
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        return torch.compile(network) if form == "compile" else network, file.getbuffer().nbytes
    runtime, _, precision = form.partition("_")
    reduction = None
    if precision in ("fp16", "int8"):
        reduction = Reduction(precision, images)  # type: ignore[arg-type]
    if runtime == "onnx":
        path = folder / f"{form}.onnx"
        export_onnx(network, path, sample, reduction=reduction)
        return load_onnx(path, threads=1), path.stat().st_size
    path = folder / f"{form}.xml"
    facts = export_openvino(network, path, sample, reduction=reduction)
    return load_openvino(path, threads=1, exact=precision == "f32"), facts["bytes"]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    model = open_torch(options)
    network, sources = model.network, model_inputs(model, options.pictures, options.count)
    images = model_inputs(model, options.calibration, options.calibrate)
    teacher: Run = TorchModel(options.teacher).network if options.teacher else network
    features = InceptionFeatures(768, options.inception) if options.inception else None
    rows, runs, pictures = [], [], {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), torch_threads(1):
        expected, plain = (outputs(run, sources) for run in (teacher, network))
        wanted = normalize(features(expected), dim=1) if features else None
        for form in options.forms:
            try:
                run, size = make(form, network, images, Path(folder))
                output = outputs(run, sources)
            except Exception as error:  # a compiler or a package that is missing
                print(f"{form}: {type(error).__name__}: {str(error)[:200]}")
                continue
            row = {"form": form, "MB": size / 1e6, "l1_teacher": distance(output, expected)}
            row |= from_float(output, plain)
            if wanted is not None:
                own = normalize(features(output), dim=1)
                row |= {"coverage": density_coverage(wanted, own)[1], "ise": neighbourhood_ise(wanted, own)}
            rows.append(row)
            runs.append(lambda run=run: run(sources[0]))
            pictures[form] = output[:4]
        add_times(rows, runs, options)
    if options.grid:
        draw([torch.cat(sources[:4]), expected[:4], *pictures.values()], options.grid)
    return rows


def outputs(run: Run, sources: Sequence[Tensor]) -> Tensor:
    return torch.cat([run(source).float() for source in sources])


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())


def from_float(output: Tensor, plain: Tensor) -> dict[str, float]:
    """How far images (N, C, H, W) are from those of the network in float32."""
    each = (output - plain).abs().mean((1, 2, 3))
    row = {"l1_torch": float(each.mean()), "worst": float(each.max())}
    if row["worst"] > 0:
        row["psnr"] = 10 * float(torch.log10(4 / (output - plain).square().mean()))
    return row


def add_times(
    rows: list[dict[str, Any]], runs: Sequence[Callable[[], Any]], options: argparse.Namespace, to: str = ""
) -> None:
    """Time all runs in turn, and write the times and their ratios to the first into the rows."""
    clock = time.perf_counter if options.wall else time.process_time
    times = time_in_turn(runs, repetitions=options.rounds, clock=clock)
    for row, seconds in zip(rows, times, strict=True):
        compared = compare_times(times[0], seconds)
        row |= {f"{to}ms": compared.b.median_ms, f"{to}ratio": 1 / compared.ratio}


def draw(columns: list[Tensor], path: Path) -> None:
    """Write a picture whose columns are batches of images."""
    grid = torch.cat([torch.cat([*column], 1) for column in columns], 2)
    Image.fromarray(np.ascontiguousarray(to_uint8(grid).permute(1, 2, 0).numpy())).save(path)


def markdown(
    rows: Sequence[dict[str, Any]], first: str, names: dict[str, str], columns: dict[str, tuple[str, str]]
) -> str:
    """A table of the columns that some row has."""
    used = {key: column for key, column in columns.items() if any(key in row for row in rows)}
    lines = [[first, *(heading for heading, _ in used.values())], ["---", *["---:"] * len(used)]]
    for row in rows:
        cells = [format(row[key], form) if key in row else "" for key, (_, form) in used.items()]
        lines.append([names.get(row[first], row[first]), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(
    options: argparse.Namespace, rows: list[dict[str, Any]], table: str, packages: Sequence[str] = ()
) -> None:
    """Print a table, and write the figures if that was asked for."""
    versions = []
    for package in ("torch", "onnxruntime", "openvino", *packages):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    clock = "wall clock" if options.wall else "processor time"
    print(f"{options.model.name}, {options.count} pictures at most, {clock}, {', '.join(versions)}\n")
    print(table)
    if options.json:
        facts = {key: str(value) for key, value in vars(options).items()}
        options.json.write_text(json.dumps({"options": facts, "rows": rows}, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    options = parser().parse_args(arguments)
    rows = measure(options)
    report(options, rows, markdown(rows, "form", NAMES, COLUMNS))
    return rows


if __name__ == "__main__":
    main()
