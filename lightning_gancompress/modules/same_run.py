"""What a resumed run can't change: entries of a checkpoint's header, and their comparison with options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_gancompress.checkpoints.header import Header, refuse_late
from lightning_gancompress.data.contract import data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.lightning_internals import batches_of_epoch_in_progress, epochs_in
from lightning_gancompress.modules.base import GANModule

# options of the data: those that no run can change, and those that no compression can
FIXED = ("direction", "in_channels", "out_channels")
FIXED_OF_COMPRESSION = (*FIXED, "preprocess", "load_size", "crop_size")


def facts(module: GANModule) -> dict[str, Any]:
    """The entries of a header that are the same for all modules."""
    in_progress = module.fitting and batches_of_epoch_in_progress(module.trainer) is not None
    return {
        "preprocessing": module.preprocessing(module.task.compressed[0]),
        "compressed": module.task.compressed,
        "versions": module.versions(),
        "seed": module.seed,
        "images": module.images,
        "epoch": counting(module) if in_progress else {},
    }


def counting(module: GANModule) -> dict[str, Any]:
    """Options on which it depends which images an epoch has shown after some batches."""
    data, limit = data_of(module.trainer), module.trainer.limit_train_batches  # type: ignore[attr-defined]
    searching = module.phase.name == "search"
    name, size = (
        ("search_batch_size", data.search_batch_size) if searching else ("batch_size", data.batch_size)
    )
    return {
        f"data.{name}": size,
        "trainer.devices": module.trainer.world_size,
        "trainer.limit_train_batches": limit,
    }


def require_same_run(module: GANModule, header: Header, checkpoint: dict[str, Any], path: Path) -> None:
    """Check that a resumed run changes no option that can't act any more; it takes over the run's seed.

    Args:
        module: The module, whose options have not changed its networks yet.
        header: Header of the checkpoint.
        checkpoint: Content of the checkpoint.
        path: Path of the checkpoint, for messages.

    Raises:
        UserError: An option has changed, or the run is shorter than what is done.
    """
    was, now = header.preprocessing, dict(data_of(module.trainer).preprocessing)
    names = FIXED if header.kind == "teacher" else FIXED_OF_COMPRESSION
    changes = [(f"data.{name}", was[name], now[name]) for name in names if name in was and name in now]
    if header.seed is not None:
        if "PL_GLOBAL_SEED" not in os.environ:  # nobody has asked for another one
            module.seed = header.seed
        changes.append(("seed_everything", header.seed, module.seed))
    refuse_late(changes, path)
    if header.images and module.images and header.images != module.images:
        if header.phase == "search":
            raise UserError(
                f"data.root: the training images are not those that {path} began to search with: go on with "
                "those until the search is over, or begin anew."
            )
        rank_zero_warn(f"data.root: {path} was trained with other images; the new ones act from here on.")
    begun, _ = epochs_in(checkpoint)
    if begun > module.total_epochs:
        raise UserError(
            f"model.epochs: a run of {module.total_epochs} epochs comes too late, {path} has begun its epoch "
            f"{begun}: raise model.epochs or model.decay_epochs, or begin anew."
        )


def warn_of_counting(module: GANModule, header: Header) -> None:
    """Warn that the rest of an epoch in progress will repeat images or leave some out."""
    for name, now in counting(module).items():
        was = header.epoch.get(name, now)
        if was != now:
            rank_zero_warn(
                f"{name} was {was} when this epoch began and is now {now}: the rest of the epoch repeats or "
                "leaves out some images."
            )
