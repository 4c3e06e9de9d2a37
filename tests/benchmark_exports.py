"""Size, latency and quality of a generator in each form that `export` writes, beside torch.

    python tests/benchmark_exports.py generator.pth --teacher teacher.ckpt --pictures test --calibration train
    python tests/benchmark_exports.py G.pth --class vintagify.generator:ResnetGenerator --size 256 ...

Latency is processor time of one image on one thread; the forms run in turn, and their ratios to torch are
medians over neighbouring calls. L1 is of pixels in [-1, 1], to the teacher and to the network in torch;
coverage is of the teacher's images, in features of Inception, if its weights are given.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lightning_gancompress.data.pictures import to_uint8
from lightning_gancompress.density import density_coverage
from lightning_gancompress.export import Reduction, export_onnx, export_openvino, load_onnx, torch_threads
from lightning_gancompress.export.latency import compare_times, time_in_turn
from lightning_gancompress.export.openvino import load_openvino
from lightning_gancompress.metrics import InceptionFeatures
from lightning_gancompress.translation.inputs import model_inputs
from lightning_gancompress.translation.torch_model import TorchModel

FORMS = ("torch", "compile", "onnx", "onnx_fp16", "onnx_int8", "openvino", "openvino_f32", "openvino_int8")
COLUMNS = ["form", "MB", "ms", "ratio", "l1_teacher", "l1_torch", "coverage"]
Run = Callable[[Tensor], Tensor]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--class", dest="kind", help="module:Class of the model, where its file lacks it")
    parser.add_argument("--teacher", type=Path, help="checkpoint; without it the model is its own teacher")
    parser.add_argument("--size", type=int, help="pixels per side; that of the training by default")
    parser.add_argument("--pictures", required=True, help="folder of sources to measure on")
    parser.add_argument("--calibration", required=True, help="folder of sources to calibrate int8 on")
    parser.add_argument("--count", type=int, default=48, help="pictures to measure on")
    parser.add_argument("--calibrate", type=int, default=48, help="pictures to calibrate on")
    parser.add_argument("--inception", help="torch-fidelity's weight file, for coverage")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--grid", type=Path, help="write the first pictures in all forms to this PNG file")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


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
        expected, plain = (torch.cat([run(source) for source in sources]) for run in (teacher, network))
        wanted = features(expected) if features else None
        for form in options.forms:
            try:
                run, size = make(form, network, images, Path(folder))
                output = torch.cat([run(source).float() for source in sources])
            except Exception as error:  # a compiler or a package that is missing
                print(f"{form}: {type(error).__name__}: {str(error)[:200]}")
                continue
            row = {"form": form, "MB": size / 1e6}
            row |= {"l1_teacher": distance(output, expected), "l1_torch": distance(output, plain)}
            row["coverage"] = density_coverage(wanted, features(output), 5)[1] if features else float("nan")
            rows.append(row)
            runs.append(lambda run=run: run(sources[0]))
            pictures[form] = output[:4]
        times = time_in_turn(runs, repetitions=options.rounds, clock=time.process_time)
    for row, seconds in zip(rows, times, strict=True):
        compared = compare_times(times[0], seconds)
        row |= {"ms": compared.b.median_ms, "ratio": 1 / compared.ratio}
    if options.grid:
        grid = torch.cat(
            [torch.cat([*i], 2) for i in (torch.cat(sources[:4]), expected[:4], *pictures.values())], 1
        )
        Image.fromarray(np.ascontiguousarray(to_uint8(grid).permute(1, 2, 0).numpy())).save(options.grid)
    return rows


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    options = parser().parse_args(arguments)
    rows = measure(options)
    print(" ".join(f"{name:>13}" for name in COLUMNS))
    for row in rows:
        cells = (row[name] for name in COLUMNS)
        print(" ".join(f"{x:13.4f}" if isinstance(x, float) else f"{x:>13}" for x in cells))
    if options.json:
        facts = {key: str(value) for key, value in vars(options).items()}
        options.json.write_text(json.dumps({"options": facts, "rows": rows}, indent=2) + "\n")
    return rows


if __name__ == "__main__":
    main()
