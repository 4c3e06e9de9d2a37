"""Callbacks that show progress: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from torch import Tensor

from lightning_gancompress.options import Amount, Count, checked
from lightning_gancompress.search.phase import SearchPhase
from lightning_gancompress.tasks import Side
from lightning_gancompress.training.phase import SEARCH, Bordered, Phased

VALIDATION = ("val/", f"{SEARCH}val/")
PHASES = {"teacher": "teacher", "search": "search", "finetune": "fine-tuning"}


class Pace:
    """Images per second in the epoch so far, and the time until the phase ends at that pace."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin an epoch."""
        self.began = time.monotonic()
        self.images = self.batches = 0

    def add(self, trainer: Trainer, batch: Any) -> None:
        """Count the images of a batch, on all ranks."""
        source = batch.get("source") if isinstance(batch, Mapping) else batch
        self.images += trainer.world_size * len(source) if isinstance(source, Tensor) else 0
        self.batches += 1

    @property
    def seconds(self) -> float:
        """Seconds since the epoch began."""
        return max(time.monotonic() - self.began, 1e-9)

    def left(self, trainer: Trainer, ends: int, batches_done: int) -> float:
        """Seconds until the epoch at which the phase `ends`, after so many batches of the present one."""
        batches = (ends - trainer.current_epoch) * float(trainer.num_training_batches) - batches_done
        return max(batches, 0) * self.seconds / max(self.batches, 1)

    def figures(self, trainer: Trainer, module: LightningModule, batches_done: int) -> dict[str, str]:
        """What there is to tell, by its name."""
        told = {"images/s": f"{self.images / self.seconds:.3g}"} if self.images else {}
        if isinstance(module, Phased):
            ends = end_of_phase(trainer, module)
            if self.batches and ends > 0:
                told["left"] = clock(self.left(trainer, ends, batches_done))
            macs = trainer.callback_metrics.get(f"cost/{Side.GENERATOR}_macs")
            if isinstance(module.phase, SearchPhase) and macs is not None:
                side = module.phase.sides[Side.GENERATOR]
                told["MACs"] = f"{float(macs):.1%} to {float(side.budget) / side.cost.full:.1%}"
        return told


def end_of_phase(trainer: Trainer, module: Phased) -> int:
    """The epoch of the run at which the present phase ends, at the latest; -1 for no end."""
    last = -1 if trainer.max_epochs is None else trainer.max_epochs
    if module.phase.name == "search" and isinstance(module, Bordered):
        return module.border if last < 0 else min(module.border, last)
    return last


def clock(seconds: float) -> str:
    """A duration as `0:07`, `12:30` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def place_in_run(trainer: Trainer, module: LightningModule) -> str:
    """The epoch, from 1, of all, and the phase."""
    last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
    phase = f" ({PHASES[module.phase.name]})" if isinstance(module, Phased) else ""
    return f"epoch {trainer.current_epoch + 1}{last}{phase}"


class ProgressBars(TQDMProgressBar):
    """Lightning's bars with the phase, images per second, the time that the phase still takes, and the MACs.

    Args:
        refresh_rate: Batches between two updates of a bar.
        leave: Whether the bar of each epoch stays on the screen.
    """

    @checked
    def __init__(self, refresh_rate: Count = 1, leave: bool = False) -> None:
        super().__init__(refresh_rate, leave=leave)
        self._pace = Pace()
        self._done = 0

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Name epoch and phase."""
        super().on_train_epoch_start(trainer, *args)
        self._pace.begin()
        self._done = 0
        self.train_progress_bar.set_description(place_in_run(trainer, trainer.lightning_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Count the images."""
        self._pace.add(trainer, args[1])
        self._done = args[2] + 1
        super().on_train_batch_end(trainer, pl_module, *args)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {**self._pace.figures(trainer, pl_module, self._done), **metrics}


class ProgressLines(ProgressBar):
    """Prints progress in plain lines, for output that is no terminal: per epoch, and within long epochs.

    They tell the phase, images per second, the time that the phase still takes, and in a search the MACs.

    Args:
        seconds: Time between two lines within an epoch.
    """

    @checked
    def __init__(self, seconds: Amount = 30.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._spoke = 0.0
        self._pace = Pace()
        self._validated = False  # in this epoch

    def disable(self) -> None:
        """Do nothing: Lightning calls it on ranks other than zero, which here print nothing anyway."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock."""
        super().setup(trainer, pl_module, stage)
        self._spoke = time.monotonic()
        self._pace.begin()  # a resumed epoch has no start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._spoke = time.monotonic()
        self._pace.begin()
        self._validated = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Print the position in a long epoch."""
        self._pace.add(trainer, args[1])
        self._tick(
            trainer, f"epoch {trainer.current_epoch + 1}", args[2], trainer.num_training_batches, pl_module
        )

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
        metrics = trainer.callback_metrics if self._validated else {}  # they keep those of earlier epochs
        figures = [f"{k} {v:.4g}" for k, v in metrics.items() if k.startswith(VALIDATION)]
        epoch = f"{place_in_run(trainer, pl_module)} in {self._pace.seconds:.1f} s"
        pace = self._told(trainer, pl_module, int(trainer.num_training_batches))
        self._print(trainer, ", ".join([epoch, *pace, *figures]))

    def _told(self, trainer: Trainer, pl_module: LightningModule, batches_done: int) -> list[str]:
        words = {"images/s": "{} images/s", "left": "{} left", "MACs": "MACs {}"}
        figures = self._pace.figures(trainer, pl_module, batches_done)
        return [words[name].format(value) for name, value in figures.items()]

    def _tick(
        self,
        trainer: Trainer,
        what: str,
        batch_idx: int,
        total: int | float,
        training: LightningModule | None = None,
    ) -> None:
        if time.monotonic() - self._spoke >= self.seconds:
            pace = self._told(trainer, training, batch_idx + 1) if training is not None else []
            self._print(trainer, ", ".join([f"{what}: batch {batch_idx + 1} of {total}", *pace]))

    def _print(self, trainer: Trainer, line: str) -> None:
        self._spoke = time.monotonic()
        if trainer.is_global_zero:
            print(line, flush=True)
