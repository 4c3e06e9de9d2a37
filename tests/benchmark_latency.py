"""Latency of slim generators beside their teacher, against the ratio of their MACs.

    python tests/benchmark_latency.py --generator resnet --size 256 --json latency.json

The weights are random. A student has the widths that an agent would leave, by random scores, or the same
fraction of every layer, cut to the budget. Teacher and student run in turn; the speed-up is the median of the
ratios of neighbouring calls. Its share is speed-up / (MACs of teacher / MACs of student): 1 is ideal.
Where others use the same cores, `--clock process` counts this process's time, with one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.export import compare_latency, export_onnx, onnx_run, torch_run, torch_threads
from lightning_gancompress.export.latency import Run
from lightning_gancompress.networks import MobileResnetGenerator, ResnetGenerator, UnetGenerator, copy_network
from lightning_gancompress.pruning import ChannelGroups, MaskedCost, count_macs, find_groups, fit_budget, slim

RUNTIMES = ("torch", "channels_last", "onnx", "onnx_plain")
FIGURES = ["teacher_ms", "student_ms", "speedup", "macs_ratio", "share"]
COLUMNS = ["scores", "budget", "multiple", "runtime", "threads", *FIGURES]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--generator", choices=["unet", "resnet", "mobile"], default="unet")
    parser.add_argument("--size", type=int, default=256, help="pixels per side: a power of two")
    parser.add_argument("--ngf", type=int, default=64)
    parser.add_argument("--scores", nargs="+", choices=["random", "uniform"], default=["random", "uniform"])
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.1, 0.05])
    parser.add_argument("--multiples", nargs="+", type=int, default=[1, 8, 16], help="channel_multiple")
    parser.add_argument(
        "--runtimes",
        nargs="+",
        choices=RUNTIMES,
        default=["torch", "onnx"],
        help="torch, torch with channels last, ONNX Runtime, the same with the network's own layers",
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of torch")
    parser.add_argument("--clock", choices=["wall", "process"], default="wall")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", help="write the figures to this file too")
    return parser


def make_teacher(options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    if options.generator == "unet":
        return UnetGenerator(ngf=options.ngf, n_downs=options.size.bit_length() - 1)
    kind = ResnetGenerator if options.generator == "resnet" else MobileResnetGenerator
    return kind(ngf=options.ngf)


def make_scores(kind: str, groups: ChannelGroups) -> Tensor:
    if kind == "random":
        return torch.rand(groups.total, generator=torch.Generator().manual_seed(1))
    return torch.cat([1 - torch.arange(size) / size for size in groups.sizes])


def students(teacher: nn.Module, options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], nn.Module]]:
    sample = [torch.zeros(1, 3, options.size, options.size)]
    groups = find_groups(teacher, sample)
    cost = MaskedCost(teacher, groups, sample, "exact")
    for budget in options.budgets:
        for multiple in options.multiples:
            for kind in options.scores:
                scores = make_scores(kind, groups)
                mask = fit_budget(scores, groups, cost, int(budget * cost.full), channel_multiple=multiple)
                student = slim(teacher, groups, mask)
                facts = {"scores": kind, "budget": budget, "multiple": multiple}
                yield facts | {"macs_ratio": cost.full / count_macs(student, sample)}, student


def make_run(network: nn.Module, runtime: str, threads: int, options: argparse.Namespace, path: Path) -> Run:
    sample = torch.rand(1, 3, options.size, options.size) * 2 - 1
    if runtime.startswith("onnx"):
        if not path.exists():
            export_onnx(network, path, sample, optimize=runtime == "onnx")
        return onnx_run(path, sample, threads)
    network, sample = copy_network(network).to(options.device), sample.to(options.device)
    if runtime == "channels_last":
        network = network.to(memory_format=torch.channels_last)
        sample = sample.contiguous(memory_format=torch.channels_last)
    return torch_run(network, sample)


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    clock = time.process_time if options.clock == "process" else time.perf_counter
    teacher = make_teacher(options)
    with tempfile.TemporaryDirectory() as folder:
        for number, (facts, student) in enumerate(students(teacher, options)):
            for runtime in options.runtimes:
                for threads in options.threads:
                    with torch_threads(threads):
                        runs = [
                            make_run(
                                network, runtime, threads, options, Path(folder, f"{name}_{runtime}.onnx")
                            )
                            for network, name in ((teacher, "teacher"), (student, f"student_{number}"))
                        ]
                        pair = compare_latency(*runs, repetitions=options.rounds, clock=clock)
                    yield facts | {
                        "runtime": runtime,
                        "threads": threads,
                        "teacher_ms": pair.a.median_ms,
                        "student_ms": pair.b.median_ms,
                        "speedup": pair.ratio,
                        "share": pair.ratio / facts["macs_ratio"],
                    }


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    options = parser().parse_args(arguments)
    if options.clock == "process" and options.threads != [1]:
        parser().error("--clock process adds up the time of all threads: give --threads 1")
    rows = []
    print(" ".join(f"{name:>13}" for name in COLUMNS))
    for row in measure(options):
        cells = (row[name] for name in COLUMNS)
        print(" ".join(f"{x:13.2f}" if isinstance(x, float) else f"{x:>13}" for x in cells), flush=True)
        rows.append(row)
    if options.json:
        Path(options.json).write_text(json.dumps({"options": vars(options), "rows": rows}, indent=2) + "\n")
    return rows


if __name__ == "__main__":
    main()
