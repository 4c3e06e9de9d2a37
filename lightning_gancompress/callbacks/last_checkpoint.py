"""The callback that saves the checkpoint from which a run is resumed."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_gancompress.callbacks.stop_signals import StopSignals
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import require_writable, user_path
from lightning_gancompress.lightning_internals import batches_of_epoch_in_progress, save_checkpoint
from lightning_gancompress.options import Amount, checked


class LastCheckpoint(ModelCheckpoint):
    """Saves `last.ckpt` after every epoch, at time intervals, and on Ctrl-C or SIGTERM.

    The file is replaced atomically, and never by weights that aren't finite. The first Ctrl-C ends the run
    after the current batch (or the epoch-end validation) with a checkpoint from which it can be resumed
    exactly; a second one ends it at once without saving.

    Args:
        dirpath: Folder of the file; None is `checkpoints` in the run's folder.
        minutes: Time between two saves within an epoch; 0 saves after every batch.
    """

    # a ModelCheckpoint, so that ckpt_path="last" finds the file. Its schedule is replaced: in manual
    # optimization it has no time interval

    @checked
    def __init__(self, dirpath: str | None = None, minutes: Amount = 10.0) -> None:
        super().__init__(dirpath=dirpath and str(user_path(dirpath)), save_top_k=0, save_last=True)
        self.minutes = minutes
        self._saved_at = 0.0
        self._stop = StopSignals()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if a new run will replace the checkpoint of an earlier one, and handle Ctrl-C."""
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._require_space(pl_module)
            # in the run's folder an earlier one is set aside; not so in a folder of the user's
            if self._path.exists() and trainer.ckpt_path is None:
                rank_zero_warn(
                    f"{self._path} of an earlier run will be replaced. To go on with that run instead, stop "
                    "now and add --ckpt_path last; to keep both, give each its own LastCheckpoint.dirpath."
                )
        # before the workers of the data loaders are forked: they inherit the handler
        self._stop = StopSignals(speak=trainer.is_global_zero)
        self._stop.take_over(signal.SIGINT)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and handle SIGTERM."""
        self._stop.waits, self._saved_at = True, time.monotonic()
        # replaces Lightning's handler, which broadcasts at once: ranks in another collective would hang
        self._stop.take_over(signal.SIGTERM)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if the interval has passed or a signal was received."""
        # after the last batch the hooks of the epoch's end are still due: a resumed run would skip them
        if trainer.is_last_batch:
            return
        # ranks agree every ten batches only, since each time they synchronise with their devices
        if trainer.world_size > 1 and self.minutes and batch_idx % 10:
            return
        due = self._stop.received is not None or time.monotonic() - self._saved_at >= 60 * self.minutes
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            self._save(trainer, pl_module)
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished epoch; the module's own hook has run before."""
        self._save(trainer, pl_module)
        self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: the epoch's end follows."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch that a stop has cut short; a finished one is saved."""
        if batches_of_epoch_in_progress(trainer) is not None:
            self._save(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers; within a batch there is no state to save."""
        self._stop.give_back()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the signal handlers."""
        self._stop.give_back()

    def state_dict(self) -> dict[str, Any]:
        """Empty: the path of the only file follows from the run's folder."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""

    @property
    def _path(self) -> Path:
        assert self.dirpath is not None
        return Path(self.dirpath, f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")

    def _require_space(self, pl_module: LightningModule) -> None:
        """Check that a checkpoint can be written: it has at least the module's tensors."""
        require_writable(self._path.parent, "dirpath of LastCheckpoint")
        tensors = (*pl_module.parameters(), *pl_module.buffers())
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        free = shutil.disk_usage(self._path.parent).free
        if free < needed:
            raise UserError(
                f"A checkpoint has {needed / 1e6:.1f} MB or more, and the disk of {self._path.parent} has "
                f"{free / 1e6:.1f} MB left: free some space, or choose another trainer.default_root_dir."
            )

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        tensors = [t for t in (*pl_module.parameters(), *pl_module.buffers()) if t.is_floating_point()]
        if not bool(torch.stack([t.isfinite().all() for t in tensors]).all()):
            raise UserError(
                f"Weights became NaN or infinite in epoch {trainer.current_epoch}, so {self._path} was left "
                "as it was. Resume from it with a lower learning rate or precision 32-true."
            )
        save_checkpoint(self, trainer, str(self._path))
        self.last_model_path, self._saved_at = str(self._path), time.monotonic()

    def _stop_if_asked(self, trainer: Trainer) -> None:
        agree = trainer.strategy.reduce_boolean_decision
        if agree(self._stop.received is not None, all=False):
            terminated = agree(self._stop.received == signal.SIGTERM, all=False)
            raise SIGTERMException if terminated else KeyboardInterrupt
