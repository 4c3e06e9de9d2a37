"""What a resumed run can't change: entries of a checkpoint's header, and their comparison with options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_gancompress.checkpoints.header import Header, refuse_late
from lightning_gancompress.data.contract import data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.lightning_internals import batches_of_epoch_in_progress, epochs_in, trainer_of
from lightning_gancompress.modules.base import GANModule

# options of the data: what a source is; those that no run can change; and those that no compression can
MEANING = ("direction", "labels", "target_labels")
FIXED = (*MEANING, "in_channels", "out_channels")
FIXED_OF_COMPRESSION = (*FIXED, "preprocess", "load_size", "crop_size")


def facts(module: GANModule) -> dict[str, Any]:
    """The entries of a header that are the same for all modules."""
    in_progress = module.fitting and batches_of_epoch_in_progress(module.trainer) is not None
    return {
        "preprocessing": module.preprocessing(module.task.compressed[0]),
        "compressed": module.task.compressed,
        "versions": module.versions(),
        "seed": module.seed,
        "data_seed": None if (seed := data_of(module.trainer).seed) is None else int(seed),
        "images": module.images,
        "epoch": counting(module) if in_progress else {},
        "precision": module.trainer.precision,
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
    """Check that a resumed run changes no option that can't act any more; it takes over the run's seeds.

    Args:
        module: The module, whose options have not changed its networks yet.
        header: Header of the checkpoint.
        checkpoint: Content of the checkpoint.
        path: Path of the checkpoint, for messages.

    Raises:
        UserError: An option has changed, or the run is shorter than what is done.
    """
    data = data_of(module.trainer)
    was, now = header.preprocessing, dict(data.preprocessing)
    names = FIXED if header.kind == "teacher" else FIXED_OF_COMPRESSION
    changes = differences(names, was, now)
    if header.seed is not None:
        if "PL_GLOBAL_SEED" not in os.environ:  # nobody has asked for another one
            module.seed = header.seed
        changes.append(("seed_everything", header.seed, module.seed))
    refuse_late(changes, path)
    if header.precision and header.precision != module.trainer.precision:
        rank_zero_warn(
            f"trainer.precision was {header.precision} in {path} and is now {module.trainer.precision}: the "
            "run goes on, with other rounding."
        )
    data.follow(header.data_seed or 0)  # releases that did not record it had 0 unless it was given
    if header.data_seed not in (None, data.seed):
        rank_zero_warn(
            f"data.seed was {header.data_seed} in {path} and is now {data.seed}: the images come in another "
            "order from here on."
        )
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


def warn_of_other_inputs(was: Mapping[str, Any], module: GANModule, path: Path) -> None:
    """Warn if the data of a run read sources, or label maps, in another way than networks have learned.

    Args:
        was: Preprocessing with which the networks were trained; empty if nobody recorded it.
        module: The module, whose trainer has the data.
        path: The file of the networks, for the message.
    """
    for option, learned, now in differences(MEANING, was, data_of(trainer_of(module)).preprocessing):
        if learned != now:
            rank_zero_warn(
                f"{option} is {now}, and the networks of {path} were trained with {learned}: give that, "
                "unless your images come in another form."
            )


def differences(
    names: Iterable[str], was: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Options of the data with their values in two records of preprocessing that both tell them."""
    told = was.keys() & now.keys()
    if "preprocess" in told:  # of image files, which are label maps only if that is recorded
        told |= {"labels", "target_labels"}
    return [(f"data.{name}", was.get(name), now.get(name)) for name in names if name in told]


def warn_of_counting(module: GANModule, header: Header) -> None:
    """Warn that the rest of an epoch in progress will repeat images or leave some out."""
    for name, now in counting(module).items():
        was = header.epoch.get(name, now)
        if was != now:
            rank_zero_warn(
                f"{name} was {was} when this epoch began and is now {now}: the rest of the epoch repeats or "
                "leaves out some images."
            )
