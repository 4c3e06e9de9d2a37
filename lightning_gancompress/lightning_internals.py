"""Uses of private names of Lightning, jsonargparse and torch.distributed.

Checked for Lightning 2.6 and jsonargparse 4.53; new releases may break them. No other file uses private names
of these libraries, which `tests/test_lightning_internals.py` checks.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from subprocess import Popen
from typing import Any, Literal

import jsonargparse
import lightning.pytorch
from jsonargparse._subcommands import ActionSubCommands
from jsonargparse._typehints import ActionTypeHint
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy
from torch import distributed
from torch.distributed import distributed_c10d

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.files import user_path

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


class BeforeValidation(ABC):
    """A callback with a hook between a batch and the validation after it.

    A checkpoint that is saved there goes on with the validation.
    """

    @abstractmethod
    def before_validation(self, trainer: lightning.pytorch.Trainer, pl_module: LightningModule) -> None:
        """Called within a run before each validation, while the module is as the batch has left it."""


class _EpochLoop(_TrainingEpochLoop):
    """Lightning's loop over batches, which a stop leaves as it is, so that a resumed run can go on there."""

    _validation_due = False  # whether the last batch is done, and the validation after it isn't

    @property
    def global_step(self) -> int:
        """In manual optimization batches: Lightning counts the steps of all optimizers."""
        module = self.trainer.lightning_module
        if module is None or module.automatic_optimization:
            return super().global_step
        batches: Any = self.batch_progress.total
        return int(batches.processed)

    @property
    def cut_short(self) -> bool:
        """Whether the run is to stop before the last batch of the epoch."""
        limited = 0 <= self.max_steps <= self.global_step
        stops = limited or (self.trainer.should_stop and self.trainer.fit_loop._can_stop_early)
        return stops and not self._num_ready_batches_reached()

    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self._validation_due:  # a restored run that was saved before a validation: it follows
            return
        super().advance(data_fetcher)
        if self._skip_next_val:  # a restored run that was saved after a validation: nothing was trained
            self._batches_that_stepped -= 1

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        if not self._validation_due and not self._skip_next_val and self._should_check_val_fx(data_fetcher):
            self._validation_due = True
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, BeforeValidation):
                    callback.before_validation(self.trainer, self.trainer.lightning_module)
        self._validation_due = False
        super().on_advance_end(data_fetcher)

    def on_save_checkpoint(self) -> dict[str, Any]:
        return {**super().on_save_checkpoint(), "validation_due": self._validation_due}

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        self._validation_due = state_dict.get("validation_due", False)

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        # Lightning validates whenever it stops; an uninterrupted run has no such validation
        stops, self.trainer.should_stop = self.trainer.should_stop, False
        try:
            return super()._should_check_val_fx(data_fetcher)
        finally:
            self.trainer.should_stop = stops


class _EpochsLoop(_FitLoop):
    """Lightning's loop over epochs, without the end of an epoch that a stop has cut short.

    Lightning would count it as done, and run the hooks of its end.
    """

    epoch_loop: _EpochLoop

    def reset(self) -> None:
        if not self._loaded_from_state_dict:  # a second fit begins anew the epoch in which the first stopped
            trackers: Any = self.epoch_progress.total, self.epoch_progress.current
            for tracker in trackers:
                tracker.ready = tracker.started = tracker.processed
        super().reset()

    def on_advance_end(self) -> None:
        if self.epoch_loop.cut_short:
            raise StopIteration  # which `run` catches
        super().on_advance_end()

    def _iteration_based_training(self) -> bool:
        return False  # else a resumed run with `max_steps` would repeat the end of a finished epoch


def replace_loops(trainer: lightning.pytorch.Trainer) -> None:
    """Replace the training loops of a new trainer by those whose runs can be resumed after any stop."""
    old = trainer.fit_loop
    trainer.fit_loop = _EpochsLoop(trainer, old.min_epochs, old.max_epochs)
    # for `fast_dev_run` Lightning limits epochs to some batches, and the steps of the run to as many
    max_steps = -1 if trainer.fast_dev_run else old.max_steps  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_loop = _EpochLoop(trainer, old.min_steps, max_steps)


def batches_of_epoch_in_progress(trainer: lightning.pytorch.Trainer) -> int | None:
    """Finished batches of the epoch in progress; None between two epochs."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress
    if epochs.started == epochs.processed or batches.is_last_batch:
        return None
    return int(batches.current.processed)


def epochs_in(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """Epochs that the run of a checkpoint has begun, and those that it has done."""
    loops = checkpoint.get("loops") or {}
    epochs = loops.get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    return epochs.get("started", 0), epochs.get("processed", 0)


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


def print_figures_once(trainer: lightning.pytorch.Trainer) -> None:
    """Print the table of a validation or test once, not once for each of its loaders.

    Lightning repeats figures that are logged at the end of an epoch in the column of every loader.
    """
    for loop in (trainer.validate_loop, trainer.test_loop):
        # no closure, since a strategy that spawns processes pickles the trainer
        loop._print_results = partial(_print_once, loop._print_results)  # type: ignore[method-assign]


def _print_once(table: Callable[..., None], results: list[dict[str, Any]], stage: str) -> None:
    table(results[:1] if all(result == results[0] for result in results) else results, stage)


def overfits(trainer: lightning.pytorch.Trainer) -> bool:
    """Whether every epoch is to show the same few batches; the attribute is not declared."""
    batches: float = trainer.overfit_batches  # type: ignore[attr-defined]
    return batches > 0


def lacks_end_of_epoch(checkpoint: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint was saved after the last batch of an epoch, before the hooks of its end.

    A resumed run goes on with the next epoch and leaves them out.
    """
    try:
        loop = checkpoint["loops"]["fit_loop"]
        if loop["epoch_loop.state_dict"].get("validation_due"):
            return False
        epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
        return bool(epochs["processed"] < epochs["started"] and batches["is_last_batch"])
    except (KeyError, TypeError):
        return False


# -- precision -------------------------------------------------------------------------------------------

Precision = Literal["auto"] | _PRECISION_INPUT  # what `trainer.precision` takes


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


def requeue_signal(trainer: lightning.pytorch.Trainer) -> int | None:
    """The signal after which a job of Slurm is to be started again; None if it isn't to be."""
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    return environment.requeue_signal


def child_processes(trainer: lightning.pytorch.Trainer) -> list[Popen[bytes]]:
    """Processes of other ranks that this process has started."""
    return list(getattr(trainer.strategy.launcher, "procs", []))


def store_of_ranks() -> distributed_c10d.Store | None:
    """The table of keys and values that all processes of a run share; None where they are not connected."""
    if not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed_c10d._get_default_store()


def close_connections() -> None:
    """End the exchange with other processes at once, so that those that wait for it get an error."""
    distributed_c10d._abort_process_group()


# -- checkpoints -----------------------------------------------------------------------------------------


class ResumableTrainer(lightning.pytorch.Trainer):
    """A trainer whose runs can be resumed after any stop, and whose setup hooks know its `ckpt_path`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        replace_loops(self)

    def _run(self, model: LightningModule, ckpt_path: Any = None, *args: Any, **kwargs: Any) -> Any:
        if ckpt_path is not None:
            ckpt_path = str(user_path(ckpt_path)) if "://" not in str(ckpt_path) else ckpt_path
        ckpt_path = self.going_on_from(ckpt_path)
        # not by the setter of `ckpt_path`, after which every later call would resume as well
        connector = self._checkpoint_connector
        connector._ckpt_path = ckpt_path
        self.before_loggers(ckpt_path)
        for name in ("restore_callbacks", "restore_training_state"):
            setattr(connector, name, _restoring(getattr(type(connector), name), connector, ckpt_path))
        return super()._run(model, ckpt_path, *args, **kwargs)

    def going_on_from(self, ckpt_path: str | None) -> str | None:
        """The checkpoint of a run that was asked to go on from `ckpt_path`."""
        return ckpt_path

    def before_loggers(self, ckpt_path: str | None) -> None:
        """Called when `ckpt_path` is known and before loggers begin; does nothing."""


def _restoring(restore: Callable[[Any], None], connector: Any, path: Any) -> Callable[[], None]:
    """A step of Lightning's restoring whose errors, of whatever is missing in a file, are one sentence."""

    def restored() -> None:
        try:
            restore(connector)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"ckpt_path: the state of the run in {path} can't be restored ({type(error).__name__}: "
                f"{first_line(error)}): give the settings that it was made with, or an earlier checkpoint."
            ) from error

    return restored


def save_checkpoint(callback: ModelCheckpoint, trainer: lightning.pytorch.Trainer, path: str) -> None:
    """Save a checkpoint as `ModelCheckpoint` does, which also records the file and notifies the loggers."""
    callback._save_checkpoint(trainer, path)


def content_of_checkpoint(trainer: lightning.pytorch.Trainer) -> dict[str, Any]:
    """What a checkpoint would hold now; called on all ranks."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


# -- loggers ---------------------------------------------------------------------------------------------


def set_wandb_arguments(logger: WandbLogger, **arguments: str) -> None:
    """Set arguments of `wandb.init`, such as `dir` and `id`, of a logger that has not begun."""
    settings: dict[str, Any] = logger._wandb_init
    settings.update(arguments)
    logger._save_dir, logger._id = settings["dir"], settings["id"]
    if settings.get("anonymous") is None:
        settings.pop("anonymous", None)  # of which newer releases of W&B warn


def uploads_models(logger: WandbLogger) -> bool:
    """Whether a logger was asked to make checkpoints artifacts."""
    return bool(logger._log_model)


# -- command line ----------------------------------------------------------------------------------------


def with_flags(parser: LightningArgumentParser) -> LightningArgumentParser:
    """A parser in which `--flag` means `--flag=true`, for the options of the command's method."""
    for action in parser._actions:
        if getattr(action, "_typehint", None) is bool and "." not in action.dest:
            action.nargs, action.const = "?", True
    return parser


class OpenCLI(LightningCLI):
    """LightningCLI with public methods to override for parsing, seeding and running commands."""

    def command_parser(self, trainer: type, command: str, **kwargs: Any) -> LightningArgumentParser:
        """Make the parser of a command, which takes the arguments of trainer, model, data and method."""
        return with_flags(super()._prepare_subcommand_parser(trainer, command, **kwargs))

    def short_parser(
        self, owner: type, command: str, skip: set[str] | None = None, **kwargs: Any
    ) -> LightningArgumentParser:
        """Make a parser of a method's arguments alone."""
        parser = self.init_parser(**kwargs)
        skip = self.subcommands()[command] if skip is None else skip
        self._subcommand_method_arguments[command] = parser.add_method_arguments(owner, command, skip=skip)
        return with_flags(parser)

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

    def add_inner_commands(self) -> None:
        """Add commands within commands; called when all parsers of the outer ones are there."""

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        self.add_inner_commands()

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> Any:
        return self.command_parser(klass, subcommand, **kwargs)

    def _set_seed(self) -> None:
        self.seed()

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_command(subcommand)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would override the user's arguments by those of the checkpoint."""


class BriefHelp(jsonargparse.DefaultHelpFormatter):
    """Help texts that list the commands without a heading, and known classes by their short names."""

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, ActionSubCommands):
            return "".join(map(self._format_action, self._iter_indented_subactions(action)))
        return super()._format_action(action)

    def _get_help_string(self, action: argparse.Action) -> str:
        text, found, classes = super()._get_help_string(action).partition(", known subclasses: ")
        return f"{text}, one of {short_names(classes.rstrip(')').split(', '))})" if found else text


def short_names(classes: list[str]) -> str:
    """The names of this project's public classes among others, or of all if there are none."""
    own = [name for name in classes if name.startswith("lightning_gancompress.")]
    names = [name.rpartition(".")[2] for name in own or classes]
    more = " and Lightning's" if 0 < len(own) < len(classes) else ""
    return ", ".join(dict.fromkeys(names)) + more


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """All options of a parser."""
    return list(parser._actions)


def type_of(option: argparse.Action) -> Any:
    """The type of an option; None if it has none."""
    return option._typehint if isinstance(option, ActionTypeHint) else option.type


def commands_of(parser: LightningArgumentParser) -> dict[str, LightningArgumentParser]:
    """The parsers of the commands of a parser, if it has any."""
    commands = parser._subcommands_action
    return dict(commands._name_parser_map) if commands is not None else {}


def arrange_help(parser: LightningArgumentParser, sections: Mapping[str, list[argparse.Action]]) -> None:
    """Show options in these sections, by title, and no others."""
    groups = [parser.add_argument_group(title) for title in sections]
    for group, options in zip(groups, sections.values(), strict=True):
        group._group_actions[:] = options
    parser._action_groups = groups


def describe_commands(parser: LightningArgumentParser) -> None:
    """List the commands first."""
    commands = next(group for group in parser._action_groups if group.title == "subcommands")
    commands.title, commands.description = "commands", None
    parser._action_groups = [commands, *(group for group in parser._action_groups if group is not commands)]
