"""The page that a person looks at after a compression."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.reporting.page import write_page


class HtmlReport(Callback):
    """Write `<default_root_dir>/report.html` when a compression ends, and again after its test.

    One file without links to anything outside: headline numbers, pictures, kept channels, curves, cost and
    quality, settings. A page that can't be drawn is told and harms no run.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the small model is saved."""
        self._write(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After pictures and figures are written."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, CompressionModule) or not trainer.is_global_zero:
            return
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()
        parts = {"teacher": pl_module.teacher, "student": pl_module.student}
        networks = {
            f"{part}.{role}": network for part, group in parts.items() for role, network in group.items()
        }
        try:
            preprocessing = pl_module.preprocessing(pl_module.task.compressed[0])
            page = write_page(trainer.default_root_dir, networks, pl_module.phase.name, preprocessing)
        except Exception as error:  # a run is worth more than its page
            rank_zero_warn(f"The report could not be drawn ({type(error).__name__}: {error}).")
        else:
            rank_zero_info(f"Report: {page}")
