"""Compression by one call, for notebooks and scripts."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torch.utils.data import Dataset

from lightning_gancompress.callbacks import CollaborativePruning, PruningPolicy
from lightning_gancompress.checkpoints import load_small
from lightning_gancompress.cli.explain import explain
from lightning_gancompress.cli.quieten import quieten
from lightning_gancompress.data import DatasetDataModule, FolderDataModule
from lightning_gancompress.data.options import Sides, both
from lightning_gancompress.errors import UserError
from lightning_gancompress.lightning_internals import Precision
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.modules.teacher_loader import Missing
from lightning_gancompress.networks import blank_image
from lightning_gancompress.options import Amount, Count, CountOrNone, Rate, Seed, checked
from lightning_gancompress.pruning import Budget
from lightning_gancompress.run_folder import CHECKPOINTS
from lightning_gancompress.tasks import Task
from lightning_gancompress.trainer import Trainer


@checked
def compress(
    generator: nn.Module | str | Path,
    discriminator: nn.Module | None = None,
    data: LightningDataModule | Dataset[Any] | str | Path | None = None,
    budget: Budget = 0.1,
    *,
    task: Task | None = None,
    policy: PruningPolicy | None = None,
    discriminator_budget: Budget = 0.5,
    ignored_layers: Sequence[str] = (),
    missing: Missing = "leave_out",
    search_epochs: Count | None = None,
    epochs: CountOrNone = 100,
    decay_epochs: CountOrNone = 100,
    lr: Rate = 2e-4,
    distill_weight: Amount = 0.0,
    size: Sides | None = None,
    batch_size: Count | None = None,
    search_batch_size: Count | None = None,
    folder: str | Path = "runs/compress",
    seed: Seed = 0,
    resume: bool = False,
    accelerator: str = "auto",
    devices: int | list[int] | str = 1,
    precision: Precision = "32-true",
    callbacks: Sequence[Callback] = (),
    logger: Logger | bool = True,
) -> nn.Module:
    """Compress a generator to a budget: search for its channels, then fine-tune the small network.

    The networks are not changed. The run's folder gets the same files as a run of the command line: the
    small network as `generator.pth` and `generator.json`, checkpoints, images and logs.

    Args:
        generator: A network with its weights, which translates images (B, C, H, W) in [-1, 1], or a file that
            `model.teacher` takes: a checkpoint of this project or an upstream `latest_net_G.pth`.
        discriminator: A network with its weights; for Pix2Pix it reads source and image concatenated along
            channels. None takes that of the generator's file. If there is none, the search compares densities
            by kernels, and the fine-tuning has no adversarial loss.
        data: A folder of source images, a data set whose items `DatasetDataModule` reads, or a data module.
            Without targets the small network is fine-tuned against the generator's own images.
        budget: MACs of the small network: a fraction of the generator's, or a number such as "2.4G".
        task: Networks and losses; None is Pix2Pix.
        policy: The pruning policy, which has its own length; None is `CollaborativePruning` for
            `search_epochs`.
        discriminator_budget: Likewise for the discriminator in the search; 1.0 keeps it whole.
        ignored_layers: Layers that are not pruned, or modules that hold them, by name or pattern
            (`encoder.*`); those of the discriminator with `discriminator.` before it.
        missing: Networks without weights, such as the discriminator: `leave_out` does without them, `train`
            makes new ones for the fine-tuning.
        search_epochs: Length of the search, 40 by default; 2000 steps or more are recommended.
        epochs: Fine-tuning epochs at the full learning rate.
        decay_epochs: Further epochs in which it falls linearly towards zero.
        lr: Adam's learning rate in fine-tuning.
        distill_weight: Weight of the L1 distance to the generator's images in fine-tuning, beside the task's
            losses.
        size: Size in pixels of the networks' input, for a folder of images: the side, or (height, width); 256
            by default.
        batch_size: Images per step in fine-tuning, 1 by default. A data module has its own.
        search_batch_size: Images per step in the search, 8 by default, likewise; a multiple of the
            neighbourhoods' members.
        folder: Folder of the run.
        seed: Seed of all random numbers.
        resume: Whether to resume from the run's last checkpoint, if there is one.
        accelerator: As of Lightning's trainer.
        devices: As of Lightning's trainer.
        precision: As of Lightning's trainer, or `auto`: bf16-mixed where the device computes in bfloat16
            natively, else 32-true.
        callbacks: Further callbacks.
        logger: True for CSV files in the run's folder, False for none, or a logger.

    Returns:
        The small generator, in eval mode, in single precision and on the CPU; for a task that compresses two,
        an `nn.ModuleDict` of both by role.

    Raises:
        UserError: An argument can't be used.
    """
    if policy is not None:
        _refuse(f"policy is a {type(policy).__name__}, which has its own length", search_epochs=search_epochs)
    with _user_errors(), _handlers_kept(), isolate_rng(), warnings.catch_warnings():
        quieten()
        seed_everything(seed, verbose=False)
        module = CompressionModule(
            teacher=_files(generator, discriminator),
            generator=generator if isinstance(generator, nn.Module) else None,
            discriminator=discriminator,
            own_weights=True,
            task=task,
            missing=missing,
            budget=budget,
            discriminator_budget=discriminator_budget,
            ignored_layers=list(ignored_layers),
            epochs=epochs,
            decay_epochs=decay_epochs,
            lr=lr,
            distill_weight=distill_weight,
        )
        trainer = Trainer(
            default_root_dir=folder,
            accelerator=accelerator,
            devices=devices,
            precision=precision,
            callbacks=[
                *callbacks,
                policy or CollaborativePruning(40 if search_epochs is None else search_epochs),
            ],
            logger=logger,
        )
        batches = {"batch_size": batch_size, "search_batch_size": search_batch_size}
        last = Path(trainer.default_root_dir, CHECKPOINTS, "last.ckpt")
        datamodule = _data(data, module, size, batches, seed)
        trainer.fit(module, datamodule, ckpt_path=last if resume and last.is_file() else None)
    if module.begun:
        small = {str(role): module.student[role].cpu().float().eval() for role in module.task.compressed}
    else:  # a notebook trains on several devices in processes of their own
        own = generator if isinstance(generator, nn.Module) else None
        files = {str(role): Path(trainer.default_root_dir, f"{role}.pth") for role in module.task.compressed}
        small = {role: load_small(file, architecture=own)[0] for role, file in files.items()}
    return nn.ModuleDict(small) if len(small) > 1 else small[module.task.compressed[0]]


def _files(generator: Any, discriminator: nn.Module | None) -> Any:
    """The value of `model.teacher`."""
    if isinstance(generator, nn.Module):
        return None
    if not isinstance(generator, (str, Path)):
        raise UserError(
            f"generator is a {type(generator).__name__}: give an nn.Module or the path of a file."
        )
    # a file beside the generator's must not replace the weights of a given discriminator
    return str(generator) if discriminator is None else {"generator": str(generator)}


def _data(
    data: Any, module: CompressionModule, size: Sides | None, batches: dict[str, int | None], seed: int
) -> LightningDataModule:
    """The data module for a folder, a data set or a data module."""
    what = f"data is a {type(data).__name__}, which has its own"
    if isinstance(data, LightningDataModule):
        _refuse(what, size=size, **batches)
        return data
    options: dict[str, Any] = {"seed": seed} | {
        name: value for name, value in batches.items() if value is not None
    }
    if isinstance(data, (str, Path)):
        size = 256 if size is None else size
        teacher, _ = module.phases.loader.load()[module.task.compressed[0]]
        channels = blank_image(teacher, size).shape[1]
        height, width = (round(side * 286 / 256) for side in both(size))  # upstream's ratio
        return FolderDataModule(
            str(data), load_size=(height, width), crop_size=size, in_channels=channels, **options
        )
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        _refuse(what, size=size)
        return DatasetDataModule(data, **options)
    raise UserError(
        f"data is a {type(data).__name__}: give a folder of images, a torch data set that can be indexed (a "
        "DataLoader has one as its dataset), or a data module."
    )


def _refuse(why: str, **arguments: Any) -> None:
    """Raise a UserError if one of these arguments was given, though another one makes it idle."""
    for name, value in arguments.items():
        if value is not None:
            raise UserError(f"{name} is {value}, but {why}: set it there, and leave {name} out.")


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Context that restores the handler of Ctrl-C, which Lightning does not."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # signal.signal works there only
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _user_errors() -> Iterator[None]:
    """Context that raises errors which the user can fix as `UserError`, and Ctrl-C as KeyboardInterrupt."""
    try:
        yield
    except SystemExit as stop:  # raised by Lightning after Ctrl-C; it would end a notebook's kernel
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except Exception as error:
        message = explain(error)
        if message is None or isinstance(error, UserError):
            raise
        raise UserError(message) from error
