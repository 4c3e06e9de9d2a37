"""Lightning's trainer with the default callbacks of this project."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.plugins import TorchCheckpointIO

from lightning_gancompress.callbacks import (
    Evaluation,
    HtmlReport,
    ImageGrid,
    LastCheckpoint,
    PredictionWriter,
    ProgressLines,
    SmallModel,
)
from lightning_gancompress.checkpoint_io import AtomicCheckpointIO
from lightning_gancompress.files import require_writable
from lightning_gancompress.lightning_internals import ResumableTrainer, look_for_unused_parameters


class Trainer(ResumableTrainer):
    """Lightning's trainer, with all files of a run in one folder and runs that can be resumed.

    Unless `callbacks` has one of its kind, it adds `LastCheckpoint`, `ImageGrid`, `Evaluation`,
    `PredictionWriter`, `SmallModel` and `HtmlReport`, and without a terminal `ProgressLines`.
    Checkpoints are written atomically. DDP looks for unused parameters, since each backward pass of a GAN
    reaches one network only.

    Args:
        default_root_dir: Folder of the run: checkpoints, images, logs, predictions.
        logger: True or None for `CSVLogger` in `logs` of the run's folder, False for none.
        callbacks: Further callbacks, or others in place of those above.
        enable_checkpointing: Whether to add `LastCheckpoint`.
        enable_progress_bar: Whether to show progress.
        enable_model_summary: Whether to print Lightning's summary; `profile` prints more.
        max_epochs: Epoch at which to stop before the module's own schedule ends; -1 for the whole schedule.
        reload_dataloaders_every_n_epochs: 1, since search and fine-tuning have different batches.
        barebones: Lightning's switch for measuring its overhead; adds no callbacks.
    """

    def __init__(
        self,
        *,
        default_root_dir: str | Path | None = "runs/default",
        logger: Logger | Iterable[Logger] | bool | None = None,
        callbacks: list[Callback] | Callback | None = None,
        enable_checkpointing: bool | None = None,
        enable_progress_bar: bool | None = None,
        enable_model_summary: bool = False,
        max_epochs: int | None = -1,
        reload_dataloaders_every_n_epochs: int = 1,
        barebones: bool = False,
        **kwargs: Any,
    ) -> None:
        root = Path(default_root_dir or ".")
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        if not barebones:
            logger = CSVLogger(root, name="logs") if logger is None or logger is True else logger
            callbacks += missing_callbacks(callbacks, enable_checkpointing, enable_progress_bar)
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(root / "checkpoints")
        super().__init__(
            default_root_dir=root,
            logger=logger,
            callbacks=callbacks,
            enable_checkpointing=enable_checkpointing,
            enable_progress_bar=enable_progress_bar,
            enable_model_summary=enable_model_summary,
            max_epochs=max_epochs,
            reload_dataloaders_every_n_epochs=reload_dataloaders_every_n_epochs,
            barebones=barebones,
            **kwargs,
        )
        look_for_unused_parameters(self)
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = AtomicCheckpointIO()

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train a teacher, or search and fine-tune.

        Raises:
            UserError: The run's folder can't be written to.
        """
        if self.is_global_zero:
            require_writable(Path(self.default_root_dir), "trainer.default_root_dir")
        super().fit(*args, **kwargs)


def missing_callbacks(
    given: list[Callback], checkpointing: bool | None, progress_bar: bool | None
) -> list[Callback]:
    """The default callbacks for which the user has `given` none of the same kind."""
    defaults: list[Callback] = [ImageGrid(), Evaluation(), PredictionWriter(), SmallModel(), HtmlReport()]
    if checkpointing is not False and not any(keeps_last(callback) for callback in given):
        defaults.append(LastCheckpoint())
    if progress_bar is not False and not sys.stdout.isatty():
        defaults.append(ProgressLines())
    return [default for default in defaults if not any(isinstance(c, kind(default)) for c in given)]


def kind(callback: Callback) -> type[Callback]:
    """The class by which a default callback is replaced: any progress bar, else the same class."""
    return ProgressBar if isinstance(callback, ProgressBar) else type(callback)


def keeps_last(callback: Callback) -> bool:
    """Whether a callback saves `last.ckpt`."""
    return isinstance(callback, ModelCheckpoint) and bool(callback.save_last)
