"""Speed and memory of search and fine-tuning beside teacher training, side by side in one run.

    python tests/benchmark.py --size 128 --ngf 64 --batch 4

Steps are timed in turn (teacher, search, fine-tune, teacher, ...), so that a ratio holds when the machine's
speed drifts; each figure is the median of the ratios within a round. Peak memory is that of a process of its
own per kind of step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from lightning_gancompress.callbacks import CollaborativePruning, UniformWidth
from lightning_gancompress.data import SyntheticFacades
from lightning_gancompress.export import compare_latency, export_onnx, onnx_run
from lightning_gancompress.modules import CompressionModule, GANModule, TeacherModule
from lightning_gancompress.networks import PatchDiscriminator, ResnetGenerator, UnetGenerator
from lightning_gancompress.pruning import count_macs

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "max_epochs": 1}
KINDS = ("teacher", "search", "finetune")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="pixels per side: a power of two")
    parser.add_argument("--ngf", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--generator", choices=["unet", "resnet"], default="unet")
    parser.add_argument("--budget", type=float, default=0.1)
    parser.add_argument("--discriminator-budget", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", help="write the figures to this file too")
    parser.add_argument("--memory-of", choices=KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_step(kind: str, options: argparse.Namespace, folder: Path) -> tuple[Callable[[], None], GANModule]:
    """One training step on a fixed batch, set up by a fit of a single batch."""
    data = SyntheticFacades(
        str(folder / "data"),
        16,
        2,
        2,
        options.size,
        batch_size=options.batch,
        search_batch_size=options.batch,
        num_workers=0,
    )
    trainer_args = QUIET | {
        "default_root_dir": folder,
        "accelerator": "gpu" if options.device == "cuda" else "cpu",
    }
    checkpoint = folder / "teacher.ckpt"
    if kind == "teacher" or not checkpoint.exists():
        module: GANModule = TeacherModule(generator(options), PatchDiscriminator(), epochs=1, decay_epochs=0)
        trainer = Trainer(
            limit_train_batches=1, limit_val_batches=0, enable_checkpointing=False, **trainer_args
        )
        trainer.fit(module, data)
        trainer.save_checkpoint(checkpoint)
    if kind != "teacher":
        # two epochs, of which one is run: the border is not crossed
        members = min(4, options.batch)  # a batch holds whole neighbourhoods
        search = CollaborativePruning(search_epochs=2, members=members)
        policy = search if kind == "search" else UniformWidth()
        module = CompressionModule(
            str(checkpoint),
            budget=options.budget,
            discriminator_budget=options.discriminator_budget,
            epochs=1,
            decay_epochs=0,
        )
        trainer = Trainer(
            callbacks=[policy],
            limit_train_batches=1,
            limit_val_batches=0,
            enable_checkpointing=False,
            **trainer_args,
        )
        trainer.fit(module, data)
    batch = trainer.strategy.batch_to_device(
        next(iter(data.train_dataloader())), trainer.strategy.root_device
    )
    module.log = module.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.phase.set_modes()
    hooks = trainer.callbacks if kind == "search" else []

    def step() -> None:
        for callback in hooks:
            callback.on_train_batch_start(trainer, module, batch, 0)
        module.training_step(batch, 0)
        for callback in hooks:
            callback.on_train_batch_end(trainer, module, None, batch, 0)
        if options.device == "cuda":
            torch.cuda.synchronize()

    step()  # fills the caches: the search has translated the batch once
    return step, module


def generator(options: argparse.Namespace) -> torch.nn.Module:
    if options.generator == "resnet":
        return ResnetGenerator(ngf=options.ngf)
    return UnetGenerator(ngf=options.ngf, n_downs=options.size.bit_length() - 1)


def seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak_memory(kind: str, options: argparse.Namespace) -> float:
    """Peak memory in MB of a fresh process that does three steps of a kind."""
    command = [sys.executable, __file__, "--memory-of", kind]
    for name in ("size", "ngf", "batch", "generator", "budget", "discriminator_budget", "threads", "device"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def print_memory(options: argparse.Namespace, folder: Path) -> None:
    if options.memory_of != "teacher":  # in a process of its own: its peak is not the search's
        command = [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); import benchmark as b, pathlib, "
            "json, argparse; b.make_step('teacher', argparse.Namespace(**json.loads(sys.argv[2])), "
            "pathlib.Path(sys.argv[3]))",
            str(Path(__file__).parent),
            json.dumps(vars(options)),
            str(folder),
        ]
        subprocess.run(command, check=True, capture_output=True)
    step, _ = make_step(options.memory_of, options, folder)
    for _ in range(3):
        step()
    if options.device == "cuda":
        print(torch.cuda.max_memory_allocated() / 1e6)
    else:
        # not ru_maxrss: a child inherits its parent's
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        print(int(status["VmHWM"].split()[0]) / 1e3)


def loading(folder: Path, options: argparse.Namespace, step_seconds: float) -> dict[str, float]:
    """Images per second of the loader (two workers) and of the fastest training step."""
    data = SyntheticFacades(
        str(folder / "load"), 256, 2, 2, options.size, batch_size=options.batch, num_workers=2
    )
    data.prepare_data()
    loader = data.train_dataloader()
    for _ in range(2):  # the first pass starts the workers
        start = time.perf_counter()
        images = sum(len(batch["index"]) for batch in loader)
        rate = images / (time.perf_counter() - start)
    return {"loader_images_per_second": rate, "step_images_per_second": options.batch / step_seconds}


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.memory_of:
            print_memory(options, folder)
            return
        steps = {kind: make_step(kind, options, folder) for kind in KINDS}
        rounds = [{kind: seconds(step) for kind, (step, _) in steps.items()} for _ in range(options.rounds)]
        figures = {f"{kind}_step_ms": 1e3 * statistics.median(r[kind] for r in rounds) for kind in KINDS}
        for kind in KINDS[1:]:
            figures[f"{kind}_over_teacher"] = statistics.median(r[kind] / r["teacher"] for r in rounds)
        figures |= loading(folder, options, figures["finetune_step_ms"] / 1e3)
        module = steps["finetune"][1]
        sample = torch.zeros(1, 3, options.size, options.size)
        runs, macs = {}, {}
        for role, network in module.generators("generator").items():
            export_onnx(network.cpu().eval(), folder / f"{role}.onnx", sample)
            runs[role] = onnx_run(folder / f"{role}.onnx", sample, options.threads)
            macs[role] = count_macs(network, [sample])
        pair = compare_latency(runs["teacher"], runs["student"], repetitions=3 * options.rounds)
        figures |= {
            "onnx_teacher_ms": pair.a.median_ms,
            "onnx_student_ms": pair.b.median_ms,
            "onnx_speedup": pair.ratio,
            "macs_ratio": macs["teacher"] / macs["student"],
            "onnx_speedup_over_macs_ratio": pair.ratio * macs["student"] / macs["teacher"],
        }
        for kind in KINDS:
            figures[f"{kind}_peak_mb"] = peak_memory(kind, options)
        figures["search_peak_over_teacher"] = figures["search_peak_mb"] / figures["teacher_peak_mb"]
    for name, value in figures.items():
        print(f"{name:32s} {value:10.3f}")
    if options.json:
        Path(options.json).write_text(json.dumps(vars(options) | figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
