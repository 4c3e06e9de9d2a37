"""The file a run goes on from."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import replacing
from lightning_gancompress.lightning_internals import save_checkpoint


class LastCheckpoint(ModelCheckpoint):
    """Keep `last.ckpt`: after every epoch, every so many minutes, and on Ctrl-C or SIGTERM.

    It is always whole, and never replaced by weights that aren't finite. The first Ctrl-C ends the run after
    the batch at hand (or the epoch-end validation) with a checkpoint that resumes exactly; a second one ends
    it at once, with the file as it was.

    Args:
        dirpath: Folder of the file; `checkpoints` in the run's folder unless given.
        minutes: Time between two saves within an epoch; 0 saves after every batch.
    """

    # a ModelCheckpoint, so that ckpt_path="last" finds the file. Its own schedule is replaced: in manual
    # optimization it has no time interval and counts the steps of all optimizers

    def __init__(self, dirpath: str | None = None, minutes: float = 10.0) -> None:
        super().__init__(dirpath=dirpath, save_top_k=0, save_last=True)
        self.minutes = minutes
        self._saved_at = 0.0
        self._training = False
        self._signal: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say whose checkpoint a new run will replace, and take over Ctrl-C."""
        if trainer.is_global_zero:
            for stale in self._path.parent.glob(f".{self._path.stem}.*"):
                stale.unlink()  # of a process that was killed while it wrote
            if self._path.exists() and trainer.ckpt_path is None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                rank_zero_warn(
                    f"{self._path} of an earlier run will be replaced. To go on with that run instead, stop "
                    "now and add --ckpt_path last; to keep both, give each its own trainer.default_root_dir."
                )
        # before the workers of the data loaders are forked: they inherit the handler
        self._take_over(signal.SIGINT, trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and take over SIGTERM."""
        self._training, self._saved_at = True, time.monotonic()
        # Lightning's handler, set just before, broadcasts from within: ranks in another collective hang
        self._take_over(signal.SIGTERM, trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time or the run is to stop."""
        # after the last batch the hooks of the epoch's end are still due: a resume from here would skip them
        if trainer.is_last_batch:
            return
        # ranks agree now and then only: each time they wait for their devices
        if trainer.world_size > 1 and self.minutes and batch_idx % 10:
            return
        due = self._signal is not None or time.monotonic() - self._saved_at >= 60 * self.minutes
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            self._save(trainer, pl_module)
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished epoch; the module's own hook has run before."""
        self._save(trainer, pl_module)
        self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the epoch's end follows."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the last epoch is saved."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back; there is nothing to save in the midst of a batch."""
        self._give_back()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._give_back()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: there is only one file, and it is where this run puts it."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore nothing."""

    @property
    def _path(self) -> Path:
        assert self.dirpath is not None
        return Path(self.dirpath, f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")

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
        if agree(self._signal is not None, all=False):
            terminated = agree(self._signal == signal.SIGTERM, all=False)
            raise SIGTERMException if terminated else KeyboardInterrupt

    def _take_over(self, signum: signal.Signals, trainer: Trainer) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only there can signals be handled
        process, speak = os.getpid(), trainer.is_global_zero
        self._previous[signum] = signal.getsignal(signum)

        def stop(received: int, _: FrameType | None) -> None:
            if os.getpid() != process:
                return  # a forked worker: its parent decides
            if received == signal.SIGINT:
                signal.signal(received, signal.default_int_handler)
                if not self._training:
                    raise KeyboardInterrupt
            self._signal = received
            if speak:  # without Python's buffers, which a handler may find locked
                os.write(
                    2, b"\nStopping after this batch, with a checkpoint. Ctrl-C (again) stops at once.\n"
                )

        signal.signal(signum, stop)

    def _give_back(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous, self._signal, self._training = {}, None, False


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are replaced whole or not at all, and read without running code from them."""

    # Lightning writes to the system's temporary folder and moves: across file systems that is a copy

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a file beside `path` and let it take its place; remote places are left to Lightning.

        Raises:
            UserError: There is no space or no permission.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with replacing(path) as draft, draft.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # how torch reports a full disk
                    raise error.__context__ from None
                raise

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read tensors and plain types.

        Raises:
            UserError: The file is missing, damaged, or holds other objects.
        """
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        checkpoint: dict[str, Any] = read_torch(Path(path))
        return checkpoint
