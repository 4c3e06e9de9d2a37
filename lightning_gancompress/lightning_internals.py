"""Uses of private names of Lightning and jsonargparse.

Checked for Lightning 2.6 and jsonargparse 4.53; new releases may break them. No other file uses private names
of these libraries, which `tests/test_lightning_internals.py` checks.
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
    """Whether the module whose constructor runs is instantiated from a parsed configuration.

    Only then `save_hyperparameters` saves plain types; otherwise it would pickle whole modules.
    """
    return _given_hyperparameters.get() is not None


def trainer_of(module: LightningModule) -> lightning.pytorch.Trainer | None:
    """The trainer that a module is attached to, or None: the documented `module.trainer` raises instead."""
    return module._trainer


# -- loops -----------------------------------------------------------------------------------------------


def set_max_epochs(trainer: lightning.pytorch.Trainer, max_epochs: int) -> None:
    """Set the length of a run of an existing trainer: `trainer.max_epochs` is read-only."""
    trainer.fit_loop.max_epochs = max_epochs


def fit_position(trainer: lightning.pytorch.Trainer) -> tuple[int, int]:
    """Return the epoch of the next iterator, and how many of its batches a restored run has done.

    Lightning creates the first iterator of a run before it corrects its restored counters and before it calls
    `set_epoch`, so both numbers are computed from the counters, by the rules of its loops.
    """
    fit = trainer.fit_loop
    epochs: Any = fit.epoch_progress.current
    batches: Any = fit.epoch_loop.batch_progress
    if not fit.restarting or epochs.started == epochs.processed:
        return epochs.processed, 0
    if batches.total.ready != batches.total.processed:
        # the run ended within a step: all batches that are not completed are repeated
        return epochs.processed, batches.current.completed
    if batches.is_last_batch and batches.current.processed == batches.current.ready:
        return epochs.processed + 1, 0
    # not `completed`: in on_train_batch_end, where checkpoints are saved, it lags behind
    return epochs.processed, batches.current.processed


def overfits(trainer: lightning.pytorch.Trainer) -> bool:
    """Whether every epoch is to show the same few batches; the attribute is not declared."""
    batches: float = trainer.overfit_batches  # type: ignore[attr-defined]
    return batches > 0


# -- strategies ------------------------------------------------------------------------------------------


def look_for_unused_parameters(trainer: lightning.pytorch.Trainer) -> None:
    """Set DDP's `find_unused_parameters`, since a backward pass of a GAN does not reach all networks.

    A value that the user has set is kept. The options can't be passed where the strategy is chosen by name.
    """
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)


def synchronises_batch_norms(trainer: lightning.pytorch.Trainer) -> bool:
    """Whether batch norms are synchronised over ranks; a trainer does not expose its `sync_batchnorm`."""
    strategy = trainer.strategy
    return isinstance(strategy, ParallelStrategy) and strategy._layer_sync is not None


def wrap_again(trainer: lightning.pytorch.Trainer, module: LightningModule) -> None:
    """Have the strategy wrap a module again within a run, with new optimizers for its new parameters."""
    trainer.strategy.model = module
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy.configure_ddp()
    trainer.strategy.setup_optimizers(trainer)


def child_processes(trainer: lightning.pytorch.Trainer) -> list[Popen[bytes]]:
    """Processes of other ranks that this process has started."""
    return list(getattr(trainer.strategy.launcher, "procs", []))


# -- checkpoints -----------------------------------------------------------------------------------------


class ResumableTrainer(lightning.pytorch.Trainer):
    """A trainer whose `ckpt_path` is set in the setup hooks; Lightning's sets it after them."""

    def _run(self, model: LightningModule, ckpt_path: Any = None, *args: Any, **kwargs: Any) -> Any:
        # not by the setter of `ckpt_path`, after which every later call would resume as well
        self._checkpoint_connector._ckpt_path = ckpt_path
        return super()._run(model, ckpt_path, *args, **kwargs)


def save_checkpoint(callback: ModelCheckpoint, trainer: lightning.pytorch.Trainer, path: str) -> None:
    """Save a checkpoint as `ModelCheckpoint` does, which also records the file and notifies the loggers."""
    callback._save_checkpoint(trainer, path)


# -- command line ----------------------------------------------------------------------------------------


class OpenCLI(LightningCLI):
    """LightningCLI with public methods to override for parsing, seeding and running commands."""

    def command_parser(self, trainer: type, command: str, **kwargs: Any) -> LightningArgumentParser:
        """Make the parser of a command, which takes the arguments of trainer, model, data and method."""
        return super()._prepare_subcommand_parser(trainer, command, **kwargs)

    def short_parser(self, trainer: type, command: str, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser of a method's arguments alone, where `--flag` means `--flag=true`."""
        parser = self.init_parser(**kwargs)
        self._subcommand_method_arguments[command] = parser.add_method_arguments(trainer, command)
        for action in parser._actions:
            if getattr(action, "_typehint", None) is bool:
                action.nargs, action.const = "?", True
        return parser

    def parser_of(self, command: str) -> LightningArgumentParser:
        """The parser of a command."""
        return self._subcommand_parsers[command]

    def arguments_of(self, command: str) -> dict[str, Any]:
        """The parsed arguments of a command's method."""
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
        """Do nothing: Lightning would override the user's arguments by those of the checkpoint."""
