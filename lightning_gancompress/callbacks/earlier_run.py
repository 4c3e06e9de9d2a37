"""The callback that sets the results of an earlier run aside."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.run_folder import CHECKPOINTS, earlier_results, holds, set_aside


class EarlierRun(Callback):
    """Moves the results of an earlier run in the folder into `previous-<n>` before a new one begins.

    A run that is resumed by a checkpoint in its folder keeps its results.
    """

    def __init__(self) -> None:
        self._begun = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the files aside: only now it is sure that the run isn't refused."""
        if self._begun or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._begun = True  # a trainer that fits again goes on with its own run
        folder = Path(trainer.default_root_dir)
        if not holds(folder) or goes_on(trainer, folder):
            return
        logs = {Path(logger.log_dir).resolve() for logger in trainer.loggers if logger.log_dir}
        files = earlier_results(folder, without=logs)
        require_others(pl_module, files)
        if files:
            rank_zero_warn(
                f"The results of an earlier run in {folder} ({len(files)} files) were moved to "
                f"{set_aside(folder, files)}: give each run its own trainer.default_root_dir, or go on with "
                "that one by --ckpt_path."
            )


def goes_on(trainer: Trainer, folder: Path) -> bool:
    """Whether a run is resumed by one of its own checkpoints."""
    if any(folder.glob("hpc_ckpt_*.ckpt")):  # which Lightning takes by itself
        return True
    callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    own = {folder.resolve() / CHECKPOINTS, *(Path(str(c.dirpath)).resolve() for c in callbacks)}
    return trainer.ckpt_path is not None and Path(trainer.ckpt_path).resolve().parent in own


def require_others(module: LightningModule, files: Collection[Path]) -> None:
    """Raise a UserError if the files hold the teacher of this run."""
    named = module.phases.loader.files if isinstance(module, CompressionModule) else None
    teachers = named.values() if isinstance(named, Mapping) else [named] if named else []
    moved = {path.resolve() for path in files}
    for teacher in teachers:
        if user_path(teacher).resolve() in moved:
            raise UserError(
                f"model.teacher {teacher} lies where this run would write: choose another "
                "trainer.default_root_dir, or move the teacher."
            )
