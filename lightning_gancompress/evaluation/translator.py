"""What `Evaluation` and its measures need of a module and of its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_gancompress.data.contract import PlainData, data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks import Task
from lightning_gancompress.tasks.role import Role
from lightning_gancompress.training.phase import Phase, PhaseName


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


def phase_of(module: LightningModule) -> PhaseName:
    """Name of the phase that the module is in."""
    return translator(module).phase.name


def training_batches(trainer: Trainer) -> Iterator[Mapping[str, Any]]:
    """All training images in order, as evaluation sees them.

    Raises:
        UserError: The data module has no loader for that.
    """
    data = data_of(trainer)
    if isinstance(data, PlainData):
        raise data.refusal("has no training images for fid_reals: train+test", "set fid_reals to test, or ")
    return data.plain_train_loader()


def images_of_whole_test(trainer: Trainer) -> list[int] | None:
    """Number of images of each loader of a test; None where some are left out or nobody knows."""
    loaders = trainer.test_dataloaders
    loaders = loaders if isinstance(loaders, (list, tuple)) else [loaders]
    if not all(isinstance(loader, DataLoader) and isinstance(loader.dataset, Sized) for loader in loaders):
        return None
    whole = list(trainer.num_test_batches) == [len(loader) for loader in loaders]
    return [len(loader.dataset) for loader in loaders] if whole else None


def cache_folder(trainer: Trainer, chosen: str | None) -> Path:
    """Where things are kept for other tests: the folder that was chosen, or one in the run's."""
    return Path(chosen or Path(trainer.default_root_dir) / "cache")
