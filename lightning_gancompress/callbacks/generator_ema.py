"""The callback that averages the weights of the trained generators over the steps."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_gancompress.errors import UserError
from lightning_gancompress.modules import GANModule
from lightning_gancompress.options import Decay, checked
from lightning_gancompress.training.averages import Averages


class GeneratorEMA(Callback):
    """Averages the weights of the generators over the steps, which evens out the swings of a GAN's training.

    In a compression it begins with the small networks, after the search; a teacher's training is averaged as
    well. Validation measures the averages, checkpoints and `generator.pth` hold them for all that read these,
    and after the training the networks have them; the training itself goes on with its own weights. A resumed
    run goes on with both. Generators that are not compressed are not averaged.

    Args:
        decay: Share of the average that stays in a batch, from 0 to 1: the average is over about 1 / (1 -
            decay) batches. After n batches it is at most (1 + n) / (10 + n).

    Raises:
        UserError: `decay` is out of range.
    """

    @checked
    def __init__(self, decay: Decay = 0.999) -> None:
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have checkpoints loaded and written with the averages.

        Raises:
            UserError: The module is none of this project.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, GANModule):
            raise UserError(
                f"trainer.callbacks: GeneratorEMA averages the generators of a TeacherModule or a "
                f"CompressionModule, not a {type(pl_module).__name__}: leave it out."
            )
        pl_module.averages = Averages(self.decay)
        self._phase: object = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average the weights after a step, in the fine-tuning and in a teacher's training."""
        averages = self._averages(pl_module)
        if averages is not None and isinstance(pl_module, GANModule) and pl_module.stepped:
            averages.update()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the averages."""
        averages = self._averages(pl_module)
        if averages is not None and trainer.state.fn == TrainerFn.FITTING:
            averages.apply()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the trained weights."""
        self._restore(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the trained weights back in their place."""
        self._restore(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the averages in the networks."""
        averages = self._averages(pl_module)
        if averages is not None:
            averages.apply()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the averaging."""
        if isinstance(pl_module, GANModule):
            pl_module.averages = None

    def _averages(self, pl_module: LightningModule) -> Averages | None:
        """The averages of the current phase; None in a search and outside of a fit."""
        if not isinstance(pl_module, GANModule) or pl_module.averages is None:
            return None
        if pl_module.phase.name == "search":
            return None
        if pl_module.phase is not self._phase:
            # the trained generator comes last
            networks = [list(pl_module.generators(role).values())[-1] for role in pl_module.task.compressed]
            pl_module.averages.watch(pl_module, networks)
            self._phase = pl_module.phase
        return pl_module.averages

    @staticmethod
    def _restore(pl_module: LightningModule) -> None:
        if isinstance(pl_module, GANModule) and pl_module.averages is not None:
            pl_module.averages.restore()
