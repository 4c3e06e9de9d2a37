"""Access of `Evaluation` and its measures to the module and its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_gancompress.data.contract import PlainData, data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.results import Tested
from lightning_gancompress.tasks import Task
from lightning_gancompress.tasks.role import Role
from lightning_gancompress.training.phase import Phase, PhaseName


@runtime_checkable
class Evaluable(Protocol):
    """A module that can be evaluated.

    Its validation and test steps return images `(B, C, H, W)` in [-1, 1] by role, then by `source`, `target`
    and name of the generator. It has an attribute `phase` as well, but not yet in `setup`.

    Attributes:
        task: Task of its batches.
    """

    task: Task

    def generators(self, role: Role) -> Mapping[str, nn.Module]:
        """Generators of a role by name; the trained one comes last."""


class Running(Protocol):
    """A module whose `setup` is over; `phase` is the current one."""

    phase: Phase


@runtime_checkable
class Trained(Protocol):
    """A module that knows how long it was trained.

    Attributes:
        trained_epochs: Finished epochs of its run; None if they are not known.
    """

    trained_epochs: int | None


def tested(trainer: Trainer, module: LightningModule) -> Tested:
    """Which weights an evaluation is of."""
    file = None if trainer.ckpt_path is None else Path(str(trainer.ckpt_path)).name
    return Tested(file, module.trained_epochs if isinstance(module, Trained) else None)


def output_folder(trainer: Trainer, name: str) -> Path:
    """The folder for what an evaluation writes: `test`, or `test_best` for `best.ckpt` of the run.

    So figures and pictures of several checkpoints of a run don't mix; the plain name is that of the last one.
    """
    root, path = Path(trainer.default_root_dir), trainer.ckpt_path
    if path is None or "://" in str(path) or Path(path).stem.startswith("last"):
        return root / name
    inside = Path(path).resolve().is_relative_to(root.resolve())
    return root / (f"{name}_{Path(path).stem}" if inside else name)


def evaluable(module: LightningModule) -> Evaluable:
    """Check that a module is an `Evaluable` and return it.

    Raises:
        UserError: It is none.
    """
    if not isinstance(module, Evaluable):
        raise UserError(
            f"{type(module).__name__} cannot be evaluated: a module needs task, phase and generators(role), "
            "as TeacherModule and CompressionModule have them."
        )
    return module


def phase_of(module: LightningModule) -> PhaseName:
    """Name of the module's current phase."""
    return cast(Running, evaluable(module)).phase.name


def training_batches(trainer: Trainer) -> Iterator[Mapping[str, Any]]:
    """Batches of all training images in order, without augmentation.

    Raises:
        UserError: The data module has no such loader.
    """
    data = data_of(trainer)
    if isinstance(data, PlainData):
        raise data.refusal("has no training images for fid_reals: train+test", "set fid_reals to test, or ")
    return data.plain_train_loader()


def images_of_test(trainer: Trainer) -> list[int] | None:
    """Number of images of each test loader, at most, on all ranks; None if it is not known."""
    loaders = _test_loaders(trainer)
    if loaders is None:
        return None
    world = trainer.world_size
    return [
        min(len(loader.dataset), batches * (loader.batch_size or 1) * world)  # type: ignore[arg-type]
        for loader, batches in zip(loaders, map(int, trainer.num_test_batches), strict=True)
    ]


def images_of_whole_test(trainer: Trainer) -> list[int] | None:
    """Number of images of each test loader; None if a test skips some, or the number is not known."""
    loaders = _test_loaders(trainer)
    if loaders is None or list(trainer.num_test_batches) != [len(loader) for loader in loaders]:
        return None
    return [len(loader.dataset) for loader in loaders]  # type: ignore[arg-type]


def _test_loaders(trainer: Trainer) -> list[DataLoader[Any]] | None:
    """The test loaders; None unless all know how many images they have."""
    loaders = trainer.test_dataloaders
    loaders = list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]
    known = all(isinstance(loader, DataLoader) and isinstance(loader.dataset, Sized) for loader in loaders)
    return loaders if known else None
