"""Progress for logs."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar


class ProgressLines(ProgressBar):
    """Progress in plain lines, for output that is no terminal: per epoch, and now and then within a long one.

    Args:
        seconds: Time between two lines within an epoch.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._began = self._spoke = 0.0

    def disable(self) -> None:
        """Lightning silences ranks other than zero by itself; here each hook asks."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock."""
        super().setup(trainer, pl_module, stage)
        self._began = self._spoke = time.monotonic()  # a resumed epoch has no start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._began = self._spoke = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Report a long epoch."""
        self._tick(trainer, f"epoch {trainer.current_epoch + 1}", args[2], trainer.num_training_batches)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Report a long validation."""
        self._tick(trainer, "validation", args[2], sum(trainer.num_val_batches))

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Report a long test."""
        self._tick(trainer, "test", args[2], sum(trainer.num_test_batches))

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Report a long prediction."""
        self._tick(trainer, "prediction", args[2], sum(trainer.num_predict_batches))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch and what its validation found."""
        last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        found = [f"{k} {v:.4g}" for k, v in trainer.callback_metrics.items() if k.startswith("val/")]
        seconds = time.monotonic() - self._began
        self._say(trainer, ", ".join([f"epoch {trainer.current_epoch + 1}{last} in {seconds:.1f} s", *found]))

    def _tick(self, trainer: Trainer, what: str, batch_idx: int, total: int | float) -> None:
        if time.monotonic() - self._spoke >= self.seconds:
            self._say(trainer, f"{what}: batch {batch_idx + 1} of {total}")

    def _say(self, trainer: Trainer, line: str) -> None:
        self._spoke = time.monotonic()
        if trainer.is_global_zero:
            print(line, flush=True)
