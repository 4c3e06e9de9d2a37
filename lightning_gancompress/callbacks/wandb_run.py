"""Weights & Biases: where a run lies, which one it is, and its small networks. No other file knows of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger

from lightning_gancompress.files import replacing
from lightning_gancompress.lightning_internals import set_wandb_arguments, uploads_models
from lightning_gancompress.modules import CompressionModule

RUN = Path("wandb", "run_id")


def folder_of_sweep_run(folder: Path) -> Path:
    """The folder of a run: one within `folder` for each run that an agent of a sweep starts."""
    run = run_of_sweep()
    return folder if run is None or folder.name == run else folder / run


def run_of_sweep() -> str | None:
    """The number of the run that an agent of a sweep has started in this process; None without one."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


@contextmanager
def finished(loggers: Sequence[Logger]) -> Iterator[None]:
    """Context at whose end the runs of loggers are finished, so that the next one in this process is new."""
    failed = True
    try:
        yield
        failed = False
    finally:
        if any(isinstance(logger, WandbLogger) for logger in loggers):
            import wandb

            wandb.finish(exit_code=int(failed))


class WandbRun(Callback):
    """Keeps a run of W&B in the folder of the run that it shows, and goes on with it where that goes on.

    Its files, also offline, lie in `wandb` of that folder unless the logger names another. A run that is
    resumed, and its test, are the same run of W&B, whose number is kept there too. Small networks become
    artifacts where the logger's `log_model` is set.

    Args:
        logger: The logger.
        folder: The run's folder.
    """

    def __init__(self, logger: WandbLogger, folder: Path) -> None:
        self.logger, self.folder = logger, folder
        if logger.save_dir in (None, "."):
            set_wandb_arguments(logger, dir=str(folder))

    def go_on(self, ckpt_path: str | None) -> None:
        """Go on with the run that the folder's checkpoints are of; called before the logger begins."""
        # else W&B writes to the system's folder for temporary files
        self.folder.mkdir(parents=True, exist_ok=True)
        own = ckpt_path in ("best", "last") or (
            ckpt_path is not None and Path(ckpt_path).resolve().is_relative_to(self.folder.resolve())
        )
        file = self.folder / RUN
        if own and file.is_file() and self.logger.version is None and "WANDB_RUN_ID" not in os.environ:
            set_wandb_arguments(self.logger, id=file.read_text().strip())

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the number of the run."""
        if trainer.is_global_zero:
            with replacing(self.folder / RUN) as draft:
                draft.write_text(f"{self.logger.version}\n")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the small networks that have been written."""
        if not trainer.is_global_zero or not uploads_models(self.logger):
            return
        import wandb

        for role in pl_module.task.compressed if isinstance(pl_module, CompressionModule) else ():
            if files := sorted(self.folder.glob(f"{role}.*")):
                artifact: Any = wandb.Artifact(f"{role}-{self.logger.version}", type="small-model")
                for file in files:
                    artifact.add_file(str(file))
                self.logger.experiment.log_artifact(artifact)
