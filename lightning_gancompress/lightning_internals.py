"""What this project uses of Lightning and jsonargparse beyond their documented names.

Checked for Lightning 2.6 and jsonargparse 4.53: look here first when a newer one breaks something. No other
file touches their private names, which `tests/test_lightning_internals.py` holds.
"""

from __future__ import annotations

from subprocess import Popen
from typing import Any

import lightning.pytorch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy

# -- modules ---------------------------------------------------------------------------------------------


def made_from_config() -> bool:
    """Whether the module whose constructor runs is made from a parsed configuration.

    Only then can `save_hyperparameters` keep plain types; in Python it would pickle whole modules.
    """
    return _given_hyperparameters.get() is not None


def trainer_of(module: LightningModule) -> lightning.pytorch.Trainer | None:
    """The trainer that a module is attached to, or None: the documented `module.trainer` raises instead."""
    return module._trainer


# -- loops -----------------------------------------------------------------------------------------------


def set_max_epochs(trainer: lightning.pytorch.Trainer, max_epochs: int) -> None:
    """Set the length of a run after the trainer was made: `trainer.max_epochs` can only be read."""
    trainer.fit_loop.max_epochs = max_epochs


def fit_position(trainer: lightning.pytorch.Trainer) -> tuple[int, int]:
    """Return the epoch that the next iterator serves and how many of its batches a restored run has done.

    Lightning makes the first iterator of a run before it repairs its restored counters and before it calls
    `set_epoch`, so both numbers are read from the counters, by the rules of its loops.
    """
    fit = trainer.fit_loop
    epochs: Any = fit.epoch_progress.current
    batches: Any = fit.epoch_loop.batch_progress
    if not fit.restarting or epochs.started == epochs.processed:
        return epochs.processed, 0
    if batches.total.ready != batches.total.processed:
        # a run ended inside a step: its batch, and from then on every batch not completed, is done again
        return epochs.processed, batches.current.completed
    if batches.is_last_batch and batches.current.processed == batches.current.ready:
        return epochs.processed + 1, 0
    # not `completed`: in on_train_batch_end, where checkpoints are saved, it lags behind
    return epochs.processed, batches.current.processed


# -- strategies ------------------------------------------------------------------------------------------


def look_for_unused_parameters(trainer: lightning.pytorch.Trainer) -> None:
    """Make DDP accept a backward pass that doesn't reach all networks, unless the user has decided it.

    The strategy gets its options when it is made, by a name such as "ddp" or on its own choice.
    """
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)


def synchronises_batch_norms(trainer: lightning.pytorch.Trainer) -> bool:
    """Whether batch norms see the images of all ranks (`trainer.sync_batchnorm`), which no trainer tells."""
    strategy = trainer.strategy
    return isinstance(strategy, ParallelStrategy) and strategy._layer_sync is not None


def wrap_again(trainer: lightning.pytorch.Trainer, module: LightningModule) -> None:
    """Let the strategy wrap a module anew within a run, with new optimizers: it has other parameters."""
    trainer.strategy.model = module
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy.configure_ddp()
    trainer.strategy.setup_optimizers(trainer)


def child_processes(trainer: lightning.pytorch.Trainer) -> list[Popen[bytes]]:
    """The processes of the other ranks, where this one has started them as programs."""
    return list(getattr(trainer.strategy.launcher, "procs", []))


# -- checkpoints -----------------------------------------------------------------------------------------


class ResumableTrainer(lightning.pytorch.Trainer):
    """A trainer whose `ckpt_path` is known in the setup hooks: Lightning's sets it after them."""

    def _run(self, model: LightningModule, ckpt_path: Any = None, *args: Any, **kwargs: Any) -> Any:
        # not by the setter of `ckpt_path`, after which every later call would resume as well
        self._checkpoint_connector._ckpt_path = ckpt_path
        return super()._run(model, ckpt_path, *args, **kwargs)


def save_checkpoint(callback: ModelCheckpoint, trainer: lightning.pytorch.Trainer, path: str) -> None:
    """Save as a `ModelCheckpoint` does by itself: it remembers the file and tells the loggers."""
    callback._save_checkpoint(trainer, path)


# -- command line ----------------------------------------------------------------------------------------


class OpenCLI(LightningCLI):
    """LightningCLI, of which a derived class can say how a command is parsed, seeded and run."""

    def command_parser(self, trainer: type, command: str, **kwargs: Any) -> LightningArgumentParser:
        """Make the parser of a command, which takes the arguments of trainer, model, data and method."""
        return super()._prepare_subcommand_parser(trainer, command, **kwargs)

    def short_parser(self, trainer: type, command: str, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser of a method's arguments alone; `--flag` is `--flag=true`."""
        parser = self.init_parser(**kwargs)
        self._subcommand_method_arguments[command] = parser.add_method_arguments(trainer, command)
        for action in parser._actions:
            if getattr(action, "_typehint", None) is bool:
                action.nargs, action.const = "?", True
        return parser

    def parser_of(self, command: str) -> LightningArgumentParser:
        """The parser that was made for a command."""
        return self._subcommand_parsers[command]

    def arguments_of(self, command: str) -> dict[str, Any]:
        """The arguments of a command's method that were parsed."""
        config = self.config_init[command]
        return {name: config[name] for name in self._subcommand_method_arguments[command]}

    def seed(self) -> None:
        """Seed all random numbers."""
        super()._set_seed()

    def run_command(self, command: str) -> None:
        """Call a method of the trainer."""
        super()._run_subcommand(command)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> Any:
        return self.command_parser(klass, subcommand, **kwargs)

    def _set_seed(self) -> None:
        self.seed()

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_command(subcommand)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would let the checkpoint override what the user wrote."""
