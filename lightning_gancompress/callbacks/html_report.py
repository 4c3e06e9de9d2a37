"""The callback that writes the HTML page of a compression."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_gancompress.evaluation.evaluable import output_folder
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.reporting.page import write_page


class HtmlReport(Callback):
    """Writes `<default_root_dir>/report.html` when a compression ends, and again after its test.

    One file without external links: headline figures, pictures, kept channels, curves, cost and quality,
    settings. An error while drawing becomes a warning and does not stop the run.
    """

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the page when all callbacks have written their files, in whatever order they are listed.

        After a test it shows the last checkpoint, no other.
        """
        if stage == "fit" or (stage == "test" and output_folder(trainer, "test").name == "test"):
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, CompressionModule) or not trainer.is_global_zero:
            return
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()
        owners = {"teacher": pl_module.teacher, "student": pl_module.student}
        networks = {
            f"{owner}.{role}": network for owner, group in owners.items() for role, network in group.items()
        }
        try:
            preprocessing = pl_module.preprocessing(pl_module.task.compressed[0])
            page = write_page(trainer.default_root_dir, networks, pl_module.phase.name, preprocessing)
        except Exception as error:  # a faulty page must not stop the run
            rank_zero_warn(f"The report could not be drawn ({type(error).__name__}: {error}).")
        else:
            rank_zero_info(f"Report: {page}")
