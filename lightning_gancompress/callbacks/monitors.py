"""The callback that shows monitors the figures of their phase only."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_gancompress.errors import UserError
from lightning_gancompress.training.phase import SEARCH, Bordered, Phase

OF_SEARCH = (SEARCH, "cost/", "mask/")  # prefixes of the figures that only a search logs


class Monitors(Callback):
    """Lets `ModelCheckpoint` and `EarlyStopping` act only in the phase that their figure belongs to.

    In a compression, those that monitor `search/...`, `cost/...` or `mask/...` act in the search, all others
    in the fine-tuning, from its first validation on: until then they are not in `trainer.callbacks`. Figures
    of the search are forgotten at the border.
    """

    def __init__(self) -> None:
        self._callbacks: list[Callback] | None = None
        self._phase: Phase | None = None
        self._checked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let those act that monitor the phase in which the run begins or is resumed.

        Raises:
            UserError: A figure of the validation is monitored, and there is no validation.
        """
        self._callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self._checked, self._phase = False, None
        if trainer.limit_val_batches == 0:  # type: ignore[attr-defined]
            for callback in self._callbacks:
                if str(monitored(callback)).removeprefix(SEARCH).startswith("val/"):
                    raise UserError(
                        f"trainer.limit_val_batches: 0 leaves out the validation, which logs what "
                        f"{named(callback)}: raise it, or leave that callback out."
                    )
        self._begin(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let others act after the border."""
        self._begin(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look once whether the validation has logged what is monitored, also by those that act later.

        Raises:
            UserError: It has not.
        """
        if self._callbacks is None or trainer.sanity_checking or self._checked:
            return
        self._checked = True
        logged = set(trainer.callback_metrics)
        logged |= {name.removeprefix(SEARCH) for name in logged if name.startswith(f"{SEARCH}val/")}
        known = sorted(name for name in logged if name.startswith("val/"))
        for callback in self._callbacks:
            monitor = monitored(callback)
            if monitor is not None and monitor.startswith("val/") and monitor not in logged:
                raise UserError(
                    f"trainer.callbacks: {named(callback)}, which the validation does not log: choose one of "
                    f"{', '.join(known) or 'the figures that you log yourself'}."
                )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let none act at the border: the figures are of the search, the networks are small already."""
        # the module, whose hook follows, crosses the border, then the hooks of monitors follow
        if not isinstance(pl_module, Bordered) or pl_module.phase.name != "search":
            return
        if trainer.current_epoch + 1 >= pl_module.border:
            self._let_act(trainer, [])

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let all act again, also on the exception."""
        acting = trainer.callbacks  # type: ignore[attr-defined]
        self._end(trainer)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if callback not in acting:
                callback.on_exception(trainer, pl_module, exception)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let all act again."""
        self._end(trainer)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        phase = pl_module.phase if isinstance(pl_module, Bordered) else None
        if self._phase is not phase:
            trainer.callback_metrics.clear()
        self._phase = phase
        if phase is not None and self._callbacks is not None:
            searching = phase.name == "search"
            self._let_act(trainer, [c for c in self._callbacks if of_search(monitored(c)) == searching])

    def _let_act(self, trainer: Trainer, monitors: list[Callback]) -> None:
        assert self._callbacks is not None
        acting: list[Any] = [c for c in self._callbacks if monitored(c) is None or c in monitors]
        trainer.callbacks = acting  # type: ignore[attr-defined]

    def _end(self, trainer: Trainer) -> None:
        if self._callbacks is not None:
            trainer.callbacks = self._callbacks  # type: ignore[attr-defined]
            self._callbacks = None


def monitored(callback: Callback) -> str | None:
    """The name of the figure by which a callback saves or stops; None for callbacks that monitor none."""
    return callback.monitor if isinstance(callback, (ModelCheckpoint, EarlyStopping)) else None


def of_search(monitor: str | None) -> bool:
    """Whether a figure is one of the search."""
    return monitor is not None and monitor.startswith(OF_SEARCH)


def named(callback: Callback) -> str:
    """What a callback monitors, as the beginning of a sentence."""
    return f"{type(callback).__name__} monitors {monitored(callback)}"
