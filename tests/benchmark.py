"""Images per second of training, beside upstream's plain loop in single precision.

    python tests/benchmark.py --size 128 --ngf 64 --batch 4 --json after.json

What is measured and the plain loop take turns, so that a ratio holds when the machine's speed drifts; figures
are medians of the ratios of a turn's seconds per image, with their quartiles. Teacher, search and fine-tuning
are fits of this project's trainer, on images in memory. A search runs from its first step to its last, and
its figure is the mean over them. `--clock process` is for a machine that others use as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from lightning_gancompress.callbacks import CollaborativePruning, UniformWidth
from lightning_gancompress.data import DatasetDataModule, SyntheticFacades
from lightning_gancompress.finetune import Distillation
from lightning_gancompress.modules import CompressionModule, TeacherModule
from lightning_gancompress.networks import PatchDiscriminator, ResnetGenerator, UnetGenerator
from lightning_gancompress.search.phase import SearchPhase
from lightning_gancompress.trainer import Trainer

PLAIN = ["bf16", "bf16+channels_last", "bf16+fused", "bf16+channels_last+fused"]  # "+compile" takes minutes
# a search that cuts on its way; fine-tuning as the shipped configurations have it
FITS = ("teacher", "search", "cut_search", "finetune", "distilled")
MEMBERS = 4  # images of a neighbourhood


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="pixels per side: a power of two from 32")
    parser.add_argument("--ngf", type=int, default=64)
    parser.add_argument("--ndf", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--generator", choices=["unet", "resnet"], default="unet")
    parser.add_argument("--budget", type=float, default=0.1)
    parser.add_argument("--discriminator-budget", type=float, default=0.5)
    parser.add_argument("--plain", nargs="*", default=PLAIN, help="variants of the plain loop, beside fp32")
    parser.add_argument("--fits", nargs="*", choices=FITS, default=FITS)
    parser.add_argument("--precision", nargs="+", default=["32-true", "auto"], help="of the fits")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--search-steps", type=int, default=60, help="length of the whole search")
    parser.add_argument("--steps", type=int, default=1, help="per turn: more on a GPU, which works ahead")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "process"], default="wall")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--json", help="write the figures to this file too")
    parser.add_argument("--memory-of", choices=FITS, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def networks(options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    unet = options.generator == "unet"
    generator = (
        UnetGenerator(ngf=options.ngf, n_downs=options.size.bit_length() - 1)
        if unet
        else ResnetGenerator(ngf=options.ngf)
    )
    return generator, PatchDiscriminator(ndf=options.ndf)


class Images(Dataset[dict[str, Any]]):
    """Pairs of noise in memory."""

    def __init__(self, count: int, size: int) -> None:
        self.pairs = torch.rand(count, 2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, n: int) -> dict[str, Any]:
        return {"source": self.pairs[n, 0], "target": self.pairs[n, 1]}


class Clock:
    """Seconds so far, once the device has done what it was given."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.cuda = options.device == "cuda"
        self.count = time.process_time if options.clock == "process" else time.perf_counter

    def __call__(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return self.count()


# -- what takes turns ----------------------------------------------------------------------------------


class PlainLoop:
    """Upstream's `optimize_parameters` of pix2pix, with nothing around it.

    Args:
        variant: `fp32`, or some of bf16, channels_last, fused and compile, joined by `+`.
        options: Sizes and device.
    """

    def __init__(self, variant: str, options: argparse.Namespace) -> None:
        self.clock, self.steps, self.images = Clock(options), options.steps, options.steps * options.batch
        traits = variant.split("+")
        self.autocast = torch.autocast(options.device, torch.bfloat16, enabled="bf16" in traits)
        layout = torch.channels_last if "channels_last" in traits else torch.contiguous_format
        self.networks = [n.to(options.device, memory_format=layout) for n in networks(options)]
        pairs = Images(options.batch, options.size).pairs.to(options.device)
        self.source, self.target = (x.contiguous(memory_format=layout) for x in pairs.unbind(1))
        adam = {"lr": 2e-4, "betas": (0.5, 0.999)} | ({"fused": True} if "fused" in traits else {})
        self.optimizers = [torch.optim.Adam(n.parameters(), **adam) for n in self.networks]
        if "compile" in traits:
            for network in self.networks:
                network.compile()

    def step(self) -> None:
        generator, discriminator = self.networks
        of_generator, of_discriminator = self.optimizers
        with self.autocast:
            image = generator(self.source)
            discriminator.requires_grad_(True)
            fake, real = self.judge(image.detach()), self.judge(self.target)
            loss = 0.5 * (cross_entropy(fake, False) + cross_entropy(real, True))
        of_discriminator.zero_grad()
        loss.backward()
        of_discriminator.step()
        discriminator.requires_grad_(False)
        with self.autocast:
            loss = cross_entropy(self.judge(image), True) + 100 * F.l1_loss(image, self.target)
        of_generator.zero_grad()
        loss.backward()
        of_generator.step()

    def judge(self, image: Tensor) -> Tensor:
        logits: Tensor = self.networks[1](torch.cat([self.source, image], 1))
        return logits

    def turn(self) -> float:
        """Seconds per image of a few steps."""
        began = self.clock()
        for _ in range(self.steps):
            self.step()
        return (self.clock() - began) / self.images

    def close(self) -> None:
        """Do nothing."""


def cross_entropy(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


class Stopped(Exception):
    """Ends a fit."""


class Fit(Callback):
    """A fit of this project's trainer in a thread of its own, which trains when it is its turn.

    A turn goes from the start of one step to the start of another, with all that Lightning does between them.

    Args:
        kind: One of `FITS`.
        precision: Of the trainer.
        options: Sizes and device.
        folder: Of the run.
    """

    def __init__(self, kind: str, precision: str, options: argparse.Namespace, folder: Path) -> None:
        self.kind, self.clock, self.steps = kind, Clock(options), options.steps
        self.searches = kind.endswith("search")
        self.batch = max(options.batch, MEMBERS) if self.searches else options.batch
        self.images = options.steps * self.batch
        self._mine, self._yours = threading.Semaphore(0), threading.Semaphore(0)
        self._stop, self._error, self._seconds = False, None, 0.0
        self.module, callbacks = made(kind, options, folder)
        trainer = Trainer(
            default_root_dir=folder / f"{kind}-{precision}",
            accelerator="gpu" if options.device == "cuda" else "cpu",
            devices=1,
            precision=precision,
            callbacks=[self, *callbacks],
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        images = Images(10 * self.batch, options.size)  # ten steps an epoch
        data = DatasetDataModule(images, images, batch_size=self.batch, search_batch_size=self.batch)
        self._thread = threading.Thread(target=self._fit, args=(trainer, data), daemon=True)
        self._thread.start()
        self._wait()

    def _fit(self, trainer: Trainer, data: DatasetDataModule) -> None:
        try:
            trainer.fit(self.module, data)
        except Stopped:
            pass
        except BaseException as error:
            self._error = error
        self._yours.release()

    def _wait(self) -> None:
        self._yours.acquire()
        if self._error is not None:
            raise self._error

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.steps:
            return
        if trainer.global_step:
            self._seconds = self.clock() - self._began
        self._yours.release()
        self._mine.acquire()
        if self._stop:
            raise Stopped
        self._began = self.clock()

    def turn(self) -> float:
        """Seconds per image of a few steps."""
        self._mine.release()
        self._wait()
        return self._seconds / self.images

    def kept(self) -> float:
        """Share of the generator's MACs that the last mask of a search keeps."""
        assert isinstance(self.module.phase, SearchPhase)
        return self.module.phase.sides["generator"].kept_macs()

    def close(self) -> None:
        """End the fit."""
        self._stop = True
        self._mine.release()
        self._thread.join()


def made(kind: str, options: argparse.Namespace, folder: Path) -> tuple[Any, list[Callback]]:
    """The module and the policy of a fit."""
    generator, discriminator = networks(options)
    if kind == "teacher":
        return TeacherModule(generator, discriminator, epochs=10**6), []
    module = CompressionModule(
        generator=generator,
        discriminator=discriminator,
        own_weights=True,
        budget=options.budget,
        discriminator_budget=options.discriminator_budget,
        epochs=10**6,
        distillation=Distillation(output=50.0, critic=10.0, features=1.0) if kind == "distilled" else None,
    )
    if not kind.endswith("search"):
        return module, [UniformWidth()]
    # a search of 2000 steps in short: the agents learn as much faster, so that they follow the budget
    epochs = -(-(options.search_steps + 2) // 10)
    rate = min(0.1, 1e-3 * 2000 / options.search_steps)
    cache = str(folder / "neighbours")
    slack = 0.1 if kind == "cut_search" else 1.0
    return module, [CollaborativePruning(epochs, lr=rate, members=MEMBERS, slack=slack, cache_dir=cache)]


# -- measurements --------------------------------------------------------------------------------------


def measured(other: PlainLoop | Fit, plain: PlainLoop, rounds: int) -> dict[str, Any]:
    """Figures of what takes turns with the plain loop."""
    searches = isinstance(other, Fit) and other.searches
    if not searches:
        other.turn()  # fills the caches
    turns = [(other.turn(), plain.turn()) for _ in range(rounds)]
    ratios = [mine / its for mine, its in turns]
    low, middle, high = statistics.quantiles(ratios, n=4)
    if searches:  # it changes as it goes: over all of its steps
        middle = statistics.fmean(mine for mine, _ in turns) / statistics.fmean(its for _, its in turns)
    average = statistics.fmean if searches else statistics.median
    return {
        "images_per_second": 1 / average(mine for mine, _ in turns),
        "over_plain": middle,
        "quartiles": [low, high],
    }


def matmul_peak(dtype: torch.dtype, options: argparse.Namespace) -> float:
    """Multiplications and additions per second of a large matrix product: the best of five."""
    clock, size = Clock(options), 2048 if options.device == "cpu" else 8192
    size = min(size, 32 * options.size)
    a = torch.rand(size, size, device=options.device).to(dtype)
    a @ a
    seconds = []
    for _ in range(5):
        began = clock()
        a @ a
        seconds.append(clock() - began)
    return 2 * size**3 / min(seconds)


def loading(options: argparse.Namespace, folder: Path) -> float:
    """Images per second of the loader alone: PNG files, two workers, in time of the wall."""
    data = SyntheticFacades(
        str(folder / "load"), 32 * options.batch, 1, 1, options.size, batch_size=options.batch, num_workers=2
    )
    data.prepare_data()
    loader = data.train_dataloader()
    for _ in range(2):  # the first pass starts the workers
        began = time.perf_counter()
        images = sum(len(batch["index"]) for batch in loader)
        rate = images / (time.perf_counter() - began)
    return rate


def peak_memory(kind: str, words: list[str]) -> dict[str, float]:
    """Peak memory in MB of a process of its own: until the first step, and of the steps after it.

    Of all its steps these are the second half.
    """
    command = [sys.executable, __file__, *words, "--memory-of", kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    start, steps = map(float, done.stdout.splitlines()[-1].split())
    return {"start": start, "steps": steps}


def print_memory(options: argparse.Namespace, folder: Path) -> None:
    fit = Fit(options.memory_of, options.precision[-1], options, folder)
    start = memory(options)
    turns = options.search_steps if fit.searches else 6
    for _ in range(turns // 2):
        fit.turn()
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present from here on
    for _ in range(turns // 2):
        fit.turn()
    fit.close()
    print(start, memory(options))


def memory(options: argparse.Namespace) -> float:
    """Peak memory in MB so far."""
    if options.device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    # not ru_maxrss: a child inherits its parent's
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1e3


def rows(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and figures of all that takes turns with the plain loop."""
    plain = PlainLoop("fp32", options)
    with FlopCounterMode(display=False) as counter:
        plain.step()
    flops = counter.get_total_flops() / options.batch
    peaks = {half: matmul_peak(half, options) for half in (torch.float32, torch.bfloat16)}
    makers: dict[str, Callable[[], PlainLoop | Fit]] = {
        f"plain, {variant}": lambda variant=variant: PlainLoop(variant, options)  # type: ignore[misc]
        for variant in ["fp32", *options.plain]
    }
    makers |= {
        f"{kind}, {precision}": lambda k=kind, p=precision: Fit(k, p, options, folder)  # type: ignore[misc]
        for kind in options.fits
        for precision in options.precision
    }
    for name, make in makers.items():
        other = make()
        rounds = options.search_steps if isinstance(other, Fit) and other.searches else options.rounds
        row = measured(other, plain, rounds)
        if name.startswith(("plain", "teacher")):
            half = torch.float32 if name.endswith(("fp32", "32-true")) else torch.bfloat16
            row["share_of_matmul_peak"] = flops * row["images_per_second"] / peaks[half]
        if isinstance(other, Fit) and other.searches:
            row["share_of_macs_at_the_end"] = other.kept()
        other.close()
        yield name, row


def main(words: list[str] | None = None) -> None:
    options = arguments(words)
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.memory_of:
            print_memory(options, folder)
            return
        figures: dict[str, Any] = {}
        for name, row in rows(options, folder):
            figures[name] = row
            low, high = row["quartiles"]
            shares = [f"{key.replace('_', ' ')} {row[key]:.2f}" for key in row if key.startswith("share")]
            rest = ", ".join(shares)
            rate = f"{row['images_per_second']:9.2f} images/s"
            print(f"{name:34s} {rate}  {row['over_plain']:6.3f} [{low:.3f}, {high:.3f}]  {rest}", flush=True)
        figures["loading"] = {"images_per_second": loading(options, folder)}
        print(f"{'loading alone':34s} {figures['loading']['images_per_second']:9.2f} images/s")
        if options.memory:
            given = sys.argv[1:] if words is None else words
            peaks = {kind: peak_memory(kind, given) for kind in options.fits}
            figures["peak_mb"] = peaks
            for kind, peak in peaks.items():
                ratio = peak["steps"] / peaks[options.fits[0]]["steps"]
                print(
                    f"{kind:34s} {peak['start']:9.0f} MB to start, {peak['steps']:.0f} to train, {ratio:.2f}"
                )
    if options.json:
        Path(options.json).write_text(json.dumps(vars(options) | {"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
