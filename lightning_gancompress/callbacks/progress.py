"""The callback that prints progress in plain lines."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lightning_gancompress.options import Amount, checked
from lightning_gancompress.training.phase import SEARCH

VALIDATION = ("val/", f"{SEARCH}val/")


class ProgressLines(ProgressBar):
    """Prints progress in plain lines, for output that is no terminal: per epoch, and within long epochs.

    Args:
        seconds: Time between two lines within an epoch.
    """

    @checked
    def __init__(self, seconds: Amount = 30.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._began = self._spoke = 0.0
        self._validated = False  # in this epoch

    def disable(self) -> None:
        """Do nothing: Lightning calls it on ranks other than zero, which here print nothing anyway."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock."""
        super().setup(trainer, pl_module, stage)
        self._began = self._spoke = time.monotonic()  # a resumed epoch has no start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._began = self._spoke = time.monotonic()
        self._validated = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Print the position in a long epoch."""
        self._tick(trainer, f"epoch {trainer.current_epoch + 1}", args[2], trainer.num_training_batches)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Print the position in a long validation."""
        self._tick(trainer, "validation", args[2], sum(trainer.num_val_batches))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there are new figures."""
        self._validated = not trainer.sanity_checking

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Print the position in a long test."""
        self._tick(trainer, "test", args[2], sum(trainer.num_test_batches))

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Print the position in a long prediction."""
        self._tick(trainer, "prediction", args[2], sum(trainer.num_predict_batches))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's duration and the metrics of its validation, if it had one."""
        last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        metrics = trainer.callback_metrics if self._validated else {}  # they keep those of earlier epochs
        figures = [f"{k} {v:.4g}" for k, v in metrics.items() if k.startswith(VALIDATION)]
        epoch = f"epoch {trainer.current_epoch + 1}{last} in {time.monotonic() - self._began:.1f} s"
        self._print(trainer, ", ".join([epoch, *figures]))

    def _tick(self, trainer: Trainer, what: str, batch_idx: int, total: int | float) -> None:
        if time.monotonic() - self._spoke >= self.seconds:
            self._print(trainer, f"{what}: batch {batch_idx + 1} of {total}")

    def _print(self, trainer: Trainer, line: str) -> None:
        self._spoke = time.monotonic()
        if trainer.is_global_zero:
            print(line, flush=True)
