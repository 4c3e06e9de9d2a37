"""The callback that saves the checkpoint from which a run is resumed."""

from __future__ import annotations

import math
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_gancompress import slurm
from lightning_gancompress.callbacks.monitors import monitored
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import require_writable, user_path
from lightning_gancompress.lightning_internals import (
    BeforeValidation,
    batches_of_epoch_in_progress,
    requeue_signal,
    save_checkpoint,
)
from lightning_gancompress.options import Amount, checked
from lightning_gancompress.stop_signals import OTHERS, StopSignals

SHORT = 30.0  # seconds of a validation that no checkpoint needs to come before


class LastCheckpoint(ModelCheckpoint, BeforeValidation):
    """Saves `last.ckpt` after every epoch, at time intervals, and on Ctrl-C, SIGTERM, SIGHUP or SIGUSR1.

    The file is replaced atomically, and never by weights that aren't finite. The first Ctrl-C ends the run
    after the current batch (or a short validation) with a checkpoint from which it can be resumed exactly; a
    second one ends it at once without saving. In a job of Slurm SIGUSR1 then has the job started again,
    which goes on by itself.

    Args:
        dirpath: Folder of the file; None is `checkpoints` in the run's folder.
        minutes: Time between two saves within an epoch; 0 saves after every batch. A validation that takes
            long is preceded by a save, so that no more work is lost than of this time or of one validation.
    """

    # a ModelCheckpoint, so that ckpt_path="last" finds the file. Its schedule is replaced: in manual
    # optimization it has no time interval

    @checked
    def __init__(self, dirpath: str | None = None, minutes: Amount = 10.0) -> None:
        super().__init__(dirpath=dirpath and str(user_path(dirpath)), save_top_k=0, save_last=True)
        self.minutes = minutes
        self._saved_at = 0.0
        self._validating_since: float | None = None
        self._validation_took = math.inf  # seconds
        self._stop = StopSignals()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if a new run will replace the checkpoint of an earlier one, and handle signals."""
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._require_space(pl_module)
            # in the run's folder an earlier one is set aside; not so in a folder of the user's
            if self.path.exists() and trainer.ckpt_path is None:
                rank_zero_warn(
                    f"{self.path} of an earlier run will be replaced. To go on with that run instead, stop "
                    "now and add --ckpt_path last; to keep both, give each its own LastCheckpoint.dirpath."
                )
        # before the workers of the data loaders are forked: they inherit the handler
        requeues = requeue_signal(trainer)
        self._stop = StopSignals(speak=trainer.is_global_zero, requeue_signal=requeues)
        for signum in {signal.SIGINT, signal.SIGTERM, *OTHERS, requeues or signal.SIGINT}:
            self._stop.take_over(signum)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle SIGTERM again."""
        # in place of Lightning's handler, which broadcasts at once: ranks in another collective would hang
        self._stop.take_over(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; from now on signals wait for a checkpoint."""
        self._stop.take_over(signal.SIGTERM)
        self._stop.waits, self._saved_at = True, time.monotonic()
        self._validating_since, self._validation_took = None, math.inf

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
        self._save_if_due(trainer, pl_module)

    def before_validation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if so much would be lost in the validation, whose length is known from the one before."""
        # a run that goes on there has no figures of the training, which some callbacks may look at
        if not any(looks_at_training(callback) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            took = self._validation_took
            saved = self._save_if_due(trainer, pl_module, math.inf if took > SHORT else took)
            self._stop.waits = not saved  # else nothing is lost by stopping at once
        self._validating_since = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note how long it took; the epoch's end follows."""
        if self._validating_since is not None:
            self._stop.waits, self._validation_took = True, time.monotonic() - self._validating_since
            self._validating_since = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished epoch; the module's own hook has run before."""
        self._save(trainer, pl_module)
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch that a stop has cut short; a finished one is saved."""
        if batches_of_epoch_in_progress(trainer) is not None:
            self._save(trainer, pl_module)
        self._stop_if_asked(trainer)
        self._stop.waits = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once by SIGTERM, if this is no validation of a training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._end_by_sigterm()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once by SIGTERM: there is nothing to save."""
        self._end_by_sigterm()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once by SIGTERM: there is nothing to save."""
        self._end_by_sigterm()

    def _end_by_sigterm(self) -> None:
        # Lightning only notes it, and goes on to the end
        self._stop = StopSignals()
        self._stop.take_over(signal.SIGTERM)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers; within a batch there is no state to save."""
        self._stop.requeue_if_asked()  # another rank may have stopped first
        self._stop.give_back()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the signal handlers."""
        self._stop.give_back()

    def state_dict(self) -> dict[str, Any]:
        """The job of Slurm that saves the file, if any; its path follows from the run's folder."""
        job = slurm.job()
        return {} if job is None else {"job": list(job)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""

    @property
    def path(self) -> Path:
        """The file."""
        assert self.dirpath is not None
        return Path(self.dirpath, f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")

    def of_earlier_start(self) -> bool:
        """Whether an earlier start of this job of Slurm has saved the file."""
        job = slurm.job()
        if job is None or not self.path.is_file():
            return False
        try:
            saved = tuple(read_torch(self.path)["callbacks"][self.state_key]["job"])
        except (UserError, LookupError, TypeError):
            return False
        return saved[:1] == job[:1] and saved != job

    def _require_space(self, pl_module: LightningModule) -> None:
        """Check that a checkpoint can be written: it has at least the module's tensors."""
        require_writable(self.path.parent, "dirpath of LastCheckpoint")
        tensors = (*pl_module.parameters(), *pl_module.buffers())
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise UserError(
                f"A checkpoint has {needed / 1e6:.1f} MB or more, and the disk of {self.path.parent} has "
                f"{free / 1e6:.1f} MB left: free some space, or choose another trainer.default_root_dir."
            )

    def _save_if_due(self, trainer: Trainer, pl_module: LightningModule, ahead: float = 0.0) -> bool:
        """Save, and stop if that was asked, where more than the interval would be lost `ahead` seconds on."""
        lost = time.monotonic() - self._saved_at + ahead
        due = self._stop.received is not None or lost >= 60 * self.minutes
        if not trainer.strategy.reduce_boolean_decision(due, all=False):
            return False
        self._save(trainer, pl_module)
        self._stop_if_asked(trainer)
        return True

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        tensors = [t for t in (*pl_module.parameters(), *pl_module.buffers()) if t.is_floating_point()]
        if not bool(torch.stack([t.isfinite().all() for t in tensors]).all()):
            raise UserError(
                f"Weights became NaN or infinite in epoch {trainer.current_epoch}, so {self.path} was left "
                "as it was. Resume from it with a lower learning rate or precision 32-true."
            )
        save_checkpoint(self, trainer, str(self.path))
        self.last_model_path, self._saved_at = str(self.path), time.monotonic()

    def _stop_if_asked(self, trainer: Trainer) -> None:
        """Stop all ranks if one was asked to."""
        asked = torch.tensor(self._stop.received or 0, device=trainer.strategy.root_device)
        if signum := int(trainer.strategy.reduce(asked, reduce_op="max")):
            self._stop.end(signum)


def looks_at_training(callback: Callback) -> bool:
    """Whether a callback monitors a figure that training steps log."""
    return "val/" not in (monitored(callback) or "val/")
