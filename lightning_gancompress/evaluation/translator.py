"""What `Evaluation` and its measures need of a module and of its data module, in one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks import Task
from lightning_gancompress.tasks.role import Role
from lightning_gancompress.training.phase import Phase


@runtime_checkable
class Translator(Protocol):
    """A module whose validation and test steps return images: role -> `source`, `target`, generators' names.

    Attributes:
        task: Reads its batches.
        phase: That it is in.
    """

    task: Task
    phase: Phase

    def generators(self, role: Role) -> Mapping[str, nn.Module]:
        """The generators of a role by name, the trained one last."""


def translator(module: LightningModule) -> Translator:
    """The module as a `Translator`.

    Raises:
        UserError: It is none.
    """
    if not isinstance(module, Translator):
        raise UserError(
            f"{type(module).__name__} cannot be evaluated: a module needs task, phase and generators(role), "
            "as TeacherModule and CompressionModule have them."
        )
    return module


def phase_of(module: LightningModule) -> str:
    """Name of the phase that the module is in."""
    return translator(module).phase.name


# -- data: the only place of this room that looks into a data module ---------------------------------------


def data_of(trainer: Trainer) -> Any:
    """The data module of a run, or None."""
    return getattr(trainer, "datamodule", None)


def fingerprints(trainer: Trainer, splits: list[str]) -> list[str] | None:
    """Digests of the images of splits; None where the data module gives none."""
    data = data_of(trainer)
    return [data.fingerprint(split) for split in splits] if hasattr(data, "fingerprint") else None


def training_batches(trainer: Trainer) -> Iterator[Mapping[str, Any]]:
    """All training images in order, as evaluation sees them.

    Raises:
        UserError: The data module has no loader for that.
    """
    data = data_of(trainer)
    if not hasattr(data, "plain_train_loader"):
        raise UserError(
            f"fid_reals: train+test needs the training images, and {type(data).__name__} has no "
            "plain_train_loader(): give it one, or set fid_reals to test."
        )
    yield from data.plain_train_loader()


def training_pairs(trainer: Trainer, role: Role) -> tuple[Any, int, str]:
    """Augmented training images of a generator, the workers to load them with, and their digest.

    Raises:
        UserError: There is no data module that has them.
    """
    data = data_of(trainer)
    if data is None or not hasattr(data, "datasets"):
        raise UserError(
            "SegmentationScore has no network, and no data module whose training pairs could teach one: "
            "set network and weights."
        )
    return data.datasets("train", augment=True)[role], data.num_workers, data.fingerprint("train")


def test_images(trainer: Trainer) -> list[int] | None:
    """Number of images of each loader of a test; None where some are left out or nobody knows."""
    loaders = trainer.test_dataloaders
    loaders = loaders if isinstance(loaders, (list, tuple)) else [loaders]
    complete = all(isinstance(loader, Sized) for loader in loaders) and list(trainer.num_test_batches) == [
        len(loader) for loader in loaders
    ]
    sized = all(isinstance(loader.dataset, Sized) for loader in loaders)
    return [len(loader.dataset) for loader in loaders] if complete and sized else None


def cache_folder(trainer: Trainer, chosen: str | None) -> Path:
    """Where things are kept for other tests: the folder that was chosen, or one in the run's."""
    return Path(chosen or Path(trainer.default_root_dir) / "cache")
