"""The callback that saves the checkpoint of the best epoch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import tensor

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.data.contract import data_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.evaluable import Evaluable
from lightning_gancompress.evaluation.metrics import L1, TEACHER
from lightning_gancompress.files import user_path
from lightning_gancompress.lightning_internals import save_checkpoint
from lightning_gancompress.options import checked


class BestCheckpoint(ModelCheckpoint):
    """Saves `best.ckpt` beside `last.ckpt`: the epoch whose validation was the best so far.

    Epochs of a teacher's training and of the fine-tuning count, those of a search don't. Images of the test
    never choose: without a validation, without a figure to choose by, or where validation reads the test's
    images since there are no others, nothing is saved. The file is replaced atomically, and a run can be
    resumed from it.

    Args:
        monitor: Name of the figure to choose by. None is `val/l1`, the distance to the targets; without pairs
            `val/teacher_l1`, the student's distance to the teacher; for CycleGAN the mean over the compressed
            directions. A teacher without pairs has neither.
        mode: Whether the smallest (`min`) or the largest figure (`max`) is the best.
        dirpath: Folder of the file; None is `checkpoints` in the run's folder.
    """

    # a ModelCheckpoint, so that ckpt_path="best" finds the file
    NAME = "best"

    @checked
    def __init__(
        self, monitor: str | None = None, mode: Literal["min", "max"] = "min", dirpath: str | None = None
    ) -> None:
        super().__init__(
            dirpath=dirpath and str(user_path(dirpath)), monitor=monitor, mode=mode, save_top_k=0
        )
        self._chosen: dict[str, Any] = {}  # figure, its name and its epoch, of the best epoch
        self._due = False
        self._told = False

    def find(self) -> None:
        """Make a file of an earlier run the one that `ckpt_path="best"` means, until a fit begins."""
        self.best_model_path = str(self.path) if self.path.is_file() else ""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the best epoch of a resumed run, if its file is still there."""
        self._due = False
        if trainer.ckpt_path is None:
            self._chosen = {}
        if self._chosen and not trainer.strategy.broadcast(
            trainer.is_global_zero and self._file_is_of_the_best_epoch()
        ):
            rank_zero_warn(
                f"{self.path} is not of epoch {self._chosen['epoch']}, the best one of the resumed run: the "
                "best epoch is chosen among those that follow."
            )
            self._chosen = {}
        self._show()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare; after a validation within an epoch save at once, else when the epoch is over."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        name, figure = self._figure(trainer, pl_module)
        if figure is None or not math.isfinite(figure) or self._reads_the_test(trainer):
            return
        best = self._chosen.get("figure", math.inf if self.mode == "min" else -math.inf)
        better = figure < best if self.mode == "min" else figure > best
        if trainer.strategy.reduce_boolean_decision(better, all=True):
            self._chosen = {"name": name, "figure": figure, "epoch": trainer.current_epoch + 1}
            self._due = True
        if self._due and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save an epoch that was the best: the same state as in `last.ckpt`."""
        if self._due:
            self._save(trainer)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: only validations decide."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say which epoch was the best."""
        if self._chosen:
            rank_zero_info(
                f"Best epoch: {self._chosen['epoch']} ({self._chosen['name']} {self._chosen['figure']:.4g}): "
                f"{self.path}"
            )

    def state_dict(self) -> dict[str, Any]:
        """The best figure, its name and its epoch; the path follows from the run's folder."""
        return dict(self._chosen)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best figure of a resumed run."""
        self._chosen = dict(state_dict)

    @property
    def path(self) -> Path:
        """The file."""
        assert self.dirpath is not None
        return Path(self.dirpath, f"{self.NAME}{self.FILE_EXTENSION}")

    def _figure(self, trainer: Trainer, pl_module: LightningModule) -> tuple[str, float | None]:
        """Name and value of the figure to choose by; None if it isn't logged."""
        metrics = trainer.callback_metrics
        if self.monitor is not None:
            return self.monitor, float(metrics[self.monitor]) if self.monitor in metrics else None
        if isinstance(pl_module, Evaluable):
            for kind in (L1, TEACHER + L1):
                names = [f"val/{role.log_prefix}{kind}" for role in pl_module.task.compressed]
                if all(name in metrics for name in names):
                    label = names[0] if len(names) == 1 else f"mean of {' and '.join(names)}"
                    return label, sum(float(metrics[name]) for name in names) / len(names)
        return "", None

    def _reads_the_test(self, trainer: Trainer) -> bool:
        reads = data_of(trainer).validates_on_test
        if reads and not self._told:
            rank_zero_warn(
                "No best epoch is chosen, since validation reads the images of the test: set data.val_split "
                "to a folder of other images, or to train."
            )
            self._told = True
        return reads

    def _save(self, trainer: Trainer) -> None:
        self._due = False
        save_checkpoint(self, trainer, str(self.path))
        self._show()

    def _show(self) -> None:
        """Set what Lightning reads: the path of the best checkpoint and its score."""
        self.best_model_path = str(self.path) if self._chosen else ""
        self.best_model_score = tensor(self._chosen["figure"]) if self._chosen else None

    def _file_is_of_the_best_epoch(self) -> bool:
        try:
            recorded = read_torch(self.path)["callbacks"][self.state_key]
        except (UserError, KeyError, TypeError):  # none, damaged, or of other callbacks
            return False
        return bool(recorded == self._chosen)
