"""Speed of loading with and without the cache of decoded images, alone and beside a small training step.

    python tests/benchmark_loading.py FOLDER --size 128

FOLDER holds images in a layout of PairedDataModule or UnpairedDataModule. Both ways are timed in turn, epoch
by epoch, after one that fills the cache.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from lightning_gancompress.data import ImageDataModule, PairedDataModule, UnpairedDataModule
from lightning_gancompress.modules import TeacherModule
from lightning_gancompress.networks import PatchDiscriminator, UnetGenerator
from lightning_gancompress.tasks import CycleGAN, Pix2Pix

WAYS = {"off": 0.0, "on": None}  # data.cache_gb


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=128, help="pixels per side: a power of two")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--images", type=int, default=200, help="per domain")
    parser.add_argument("--ngf", type=int, default=16, help="width of the networks of the training step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25, help="training steps")
    return parser.parse_args()


def data(options: argparse.Namespace, way: str, workers: int, images: int) -> ImageDataModule:
    """The images, resized to 286/256 of the size and cropped, as in pytorch-CycleGAN-and-pix2pix."""
    paired = (Path(options.folder) / "train").is_dir()
    return (PairedDataModule if paired else UnpairedDataModule)(
        options.folder,
        load_size=options.size * 286 // 256,
        crop_size=options.size,
        batch_size=options.batch,
        num_workers=workers,
        max_train=images,
        cache_gb=WAYS[way],
    )


def epoch(loader: Any, number: int, clock: Callable[[], float]) -> float:
    """Samples per second of an epoch."""
    loader.sampler.set_epoch(number)
    start, samples = clock(), 0
    for batch in loader:
        samples += len(next(iter(batch.values())))
    return samples / (clock() - start)


def alone(options: argparse.Namespace, workers: int) -> None:
    """Print the speed of the loader; without workers in processor time, which other programs don't change."""
    loaders = {way: data(options, way, workers, options.images).train_dataloader() for way in WAYS}
    clock = time.perf_counter if workers else time.process_time
    first = {way: epoch(loader, 0, clock) for way, loader in loaders.items()}
    rounds = [
        {way: epoch(loader, number, clock) for way, loader in loaders.items()}
        for number in range(1, options.rounds + 1)
    ]
    speeds = {way: statistics.median(r[way] for r in rounds) for way in WAYS}
    ratios = sorted(r["on"] / r["off"] for r in rounds)
    print(
        f"{workers} workers: {speeds['off']:6.0f} samples/s without, {speeds['on']:6.0f} with the cache, "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
        f"in the first epoch {first['on'] / first['off']:.2f}"
    )


class Clock(Callback):
    """Notes the processor time of loading and of training, of each batch."""

    def __init__(self) -> None:
        self.loading: list[float] = []
        self.training: list[float] = []
        self._since = 0.0

    def on_train_epoch_start(self, *args: Any) -> None:
        self._since = time.process_time()

    def on_train_batch_start(self, *args: Any) -> None:
        now = time.process_time()
        self.loading.append(now - self._since)
        self._since = now

    def on_train_batch_end(self, *args: Any) -> None:
        now = time.process_time()
        self.training.append(now - self._since)
        self._since = now


def beside_training(options: argparse.Namespace, folder: str) -> None:
    """Print which share of a training epoch loading is without workers, in processor time."""
    for way in WAYS:
        images, clock = data(options, way, 0, options.steps * options.batch), Clock()
        generator = UnetGenerator(ngf=options.ngf, n_downs=options.size.bit_length() - 1)
        task = Pix2Pix() if isinstance(images, PairedDataModule) else CycleGAN()
        channels = 6 if isinstance(images, PairedDataModule) else 3
        critic = PatchDiscriminator(in_channels=channels, ndf=options.ngf)
        module = TeacherModule(generator, critic, task=task, epochs=2, decay_epochs=0)
        trainer = Trainer(
            accelerator="cpu",
            callbacks=[clock],
            default_root_dir=f"{folder}/{way}",
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            limit_val_batches=0,
            logger=False,
        )
        trainer.fit(module, images)
        last = slice(1 - options.steps, None)  # of the second epoch, without what comes before its first
        load, step = (statistics.median(times[last]) for times in (clock.loading, clock.training))
        print(
            f"cache {way:3s}: loading {1e3 * load:6.2f} ms, step {1e3 * step:7.2f} ms, "
            f"share {load / (load + step):.3f}"
        )


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for workers in (0, 2):
        alone(options, workers)
    with tempfile.TemporaryDirectory() as folder:
        beside_training(options, folder)


if __name__ == "__main__":
    main()
