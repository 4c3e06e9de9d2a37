"""The callback that tells loggers which channels a search has kept."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_gancompress.loggers import log_table
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.reporting.page.channels import kept


class FoundChannels(Callback):
    """Gives loggers the architecture when the fine-tuning begins: `channels/generator` and so on.

    A table per network that was cut, with a row per layer: its output channels in student and teacher.
    """

    def __init__(self) -> None:
        self._told = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier fit, and tell what a policy without a search has kept."""
        self._told = False
        self._tell(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what the search has kept."""
        self._tell(trainer, pl_module)

    def _tell(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._told or not isinstance(pl_module, CompressionModule) or pl_module.phase.name != "finetune":
            return
        self._told = True
        if not trainer.is_global_zero:
            return
        for role, student in pl_module.student.items():
            layers = kept(pl_module.teacher[role], student) if role in pl_module.teacher else ()
            if any(layer.after < layer.before for layer in layers):
                rows = [(layer.name, layer.after, layer.before) for layer in layers]
                log_table(trainer, f"channels/{role}", ("layer", "student", "teacher"), rows)
