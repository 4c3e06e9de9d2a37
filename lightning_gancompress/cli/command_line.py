"""The command line: LightningCLI with shipped and recorded configurations, and further commands."""

from __future__ import annotations

import json
import sys
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_warn

from lightning_gancompress.callbacks.run_config import RunConfig
from lightning_gancompress.callbacks.wandb_run import finished, folder_of_sweep_run
from lightning_gancompress.cli.appended import append_once
from lightning_gancompress.cli.commands.compare import compare
from lightning_gancompress.cli.commands.data import data
from lightning_gancompress.cli.commands.demo import demo
from lightning_gancompress.cli.commands.export import export
from lightning_gancompress.cli.commands.predict import by_model_file, predict
from lightning_gancompress.cli.commands.profile import profile
from lightning_gancompress.cli.commands.push import push
from lightning_gancompress.cli.commands.report import report
from lightning_gancompress.cli.completion import COMPLETION, PrintCompletion
from lightning_gancompress.cli.configs import RUNS, Arguments, ConfigFile, expanded, recorded_config
from lightning_gancompress.cli.data_parser import DataSection, add_commands, with_folder
from lightning_gancompress.cli.data_parser import run as run_data
from lightning_gancompress.cli.flags import DEBUG, TRUST, Flag
from lightning_gancompress.cli.help_texts import DESCRIPTION, arrange_options
from lightning_gancompress.cli.other_ranks import killed_rank, lost_connection
from lightning_gancompress.cli.parser import Parser
from lightning_gancompress.cli.several_budgets import require_own_folders
from lightning_gancompress.data import load_all
from lightning_gancompress.errors import UserError
from lightning_gancompress.leaves import leaves
from lightning_gancompress.lightning_internals import BriefHelp, OpenCLI, child_processes, describe_commands
from lightning_gancompress.modules import GANModule, TeacherModule
from lightning_gancompress.shipped_configs import configs_folder, shipped
from lightning_gancompress.trainer import Trainer
from lightning_gancompress.version import __version__


class WithoutRun:
    """The form of a command that needs no run: no trainer, module and data."""

    predict = staticmethod(predict)


class Commands(Trainer):
    """The trainer with this project's commands as methods, since LightningCLI looks for all in one class."""

    export = staticmethod(export)
    profile = staticmethod(profile)
    compare = staticmethod(compare)
    report = staticmethod(report)
    demo = staticmethod(demo)
    push = staticmethod(push)
    data = staticmethod(data)


# defaults of Lightning's classes, such as Timer's interval, which PyYAML would not write
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, choice: dumper.represent_data(choice.value))

SHORT = ("export", "compare", "report", "push", "demo")  # without options of trainer, model and data
BY_MODEL_FILE = "Translate pictures by a model file alone; further below with the configuration of a run."


class GanCompressCLI(OpenCLI):
    """LightningCLI for this project's modules, with commands of its own beside Lightning's.

    Settings are taken from the user's arguments, then from the checkpoint in `--ckpt_path`, then from the
    shipped `defaults.yaml`, then from the code.
    """

    def __init__(self, args: ArgsType = None) -> None:
        load_all()
        defaults = [str(path) for path in [configs_folder() / "defaults.yaml"] if path.is_file()]
        words = sys.argv[1:] if args is None else args
        words = [word for word in words if word != DEBUG] if isinstance(words, list) else []
        self._named = {*words[:1]} & {*self.subcommands()}
        # `predict --model FILE --input PICTURES` is a command of its own
        self._without_run = words[:1] == ["predict"] and by_model_file(words[1:])
        self._runs = [name for name in RUNS if not (self._without_run and name == "predict")]
        super().__init__(
            GANModule,
            LightningDataModule,
            save_config_callback=RunConfig,
            trainer_class=Commands,
            seed_everything_default=0,
            parser_kwargs={
                "prog": "gancompress",
                "description": DESCRIPTION,
                "version": __version__,
                "compare": {"description": str(compare.__doc__).partition("Args:")[0]},
                **{name: {"default_config_files": defaults} for name in (*self._runs, "profile")},
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=args,
            auto_configure_optimizers=False,
        )

    # -- arguments -------------------------------------------------------------------------------------

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """All commands, with the arguments that are not command line options."""
        own = {"profile": {"model", "datamodule"}, "compare": {"rehearse"}}
        plain: dict[str, set[str]] = {name: set() for name in (*SHORT, "data")}
        return {**LightningCLI.subcommands(), **plain, **own}

    def init_parser(self, config: type[ConfigFile] = ConfigFile, **kwargs: Any) -> LightningArgumentParser:
        """A parser that finds shipped configurations and raises errors as `UserError`."""
        parser = Parser(**kwargs, allow_abbrev=True, formatter_class=BriefHelp)
        parser.add_argument(
            "-c",
            "--config",
            action=config,
            help="YAML file, here or shipped; later ones add to earlier ones.",
        )
        parser.add_argument(DEBUG, action=Flag, help="Show where an error comes from, with its traceback.")
        return parser

    def setup_parser(self, *args: Any) -> None:
        """Make the parser, whose help lists the commands first."""
        super().setup_parser(*args)
        self.parser.add_argument(COMPLETION, action=PrintCompletion)
        describe_commands(self.parser)

    def command_parser(self, trainer: type, command: str, **kwargs: Any) -> LightningArgumentParser:
        """The parser of a command; without options of trainer, model and data where it needs none.

        It has no options at all if the first argument names another command, since making them takes time.
        """
        if self._named and command not in self._named:
            return self.init_parser(**kwargs)
        if command == "data":
            return self.init_parser(**kwargs)
        if command in SHORT:
            return with_help(self.short_parser(trainer, command, **kwargs), command)
        if command != "predict":
            return with_help(super().command_parser(trainer, command, **kwargs), command)
        without_run = self.short_parser(WithoutRun, command, skip=set(), description=BY_MODEL_FILE)
        if self._without_run:
            return with_help(without_run, command)
        parser = with_help(super().command_parser(trainer, command, **kwargs), command)
        parser.set_defaults({"return_predictions": False})  # they are written to files
        assert isinstance(parser, Parser)
        parser.other_form = with_help(without_run, command)
        return parser

    def add_inner_commands(self) -> None:
        """Add the commands of `data`."""
        if not self._named or "data" in self._named:
            add_commands(self.parser_of("data"), partial(self.init_parser, config=DataSection))
            describe_commands(self.parser_of("data"))

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add trainer, model and data; the latter two are optional, since a checkpoint may provide them."""
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.add_lightning_class_args(GANModule, "model", subclass_mode=True, required=False)
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse arguments on top of the settings in the given checkpoint."""
        if args is not None and not isinstance(args, list):
            self.config = parser.parse_object(args)
            return
        args = sys.argv[1:] if args is None else args
        args = with_folder(args)
        arguments = Arguments(args)
        recorded = recorded_config(arguments)
        self.config = parser.parse_args(arguments.with_config(recorded))
        if recorded:
            append_once(self.config[self.config.subcommand], recorded, arguments.appended)
        if "model" in recorded:
            self._warn_of_differences(recorded["model"])

    def _warn_of_differences(self, recorded: dict[str, Any]) -> None:
        """Warn about options of the model that differ from those in the checkpoint."""
        config = self.config[self.config.subcommand]
        dumped = self.parser_of(self.config.subcommand).dump(config, "json", skip_unset=False)
        was, now = dict(leaves({"model": recorded})), dict(leaves({"model": json.loads(dumped)["model"]}))
        key = "model.class_path"
        if was[key] != now[key]:
            raise UserError(
                f"{config.ckpt_path} is a checkpoint of {was[key]}, but the configuration asks for {now[key]}"
                ": give the configuration it was trained with, or none."
            )
        for name in sorted(was.keys() & now.keys()):
            if was[name] != now[name]:
                rank_zero_warn(
                    f"{name} was {was[name]} in {config.ckpt_path} and is now {now[name]}, as --config or an "
                    "option says."
                )

    def seed(self) -> None:
        """Seed the commands that train or evaluate; the others use no random numbers."""
        if self.config.subcommand in self._runs:
            super().seed()

    # -- running ---------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Check that model, data and weights are given."""
        config = self.config[self.subcommand]
        if "trainer" in config:  # the classes of others don't do it themselves
            config.trainer = expanded(config.trainer)
            root = Path(config.trainer.default_root_dir or ".")
            config.trainer.default_root_dir = str(folder_of_sweep_run(root))
        if self.subcommand == "profile":
            config.trainer.callbacks = config.trainer.logger = None
            if config.ckpt_path:
                config.model = config.data = None
        if self.subcommand not in self._runs:
            return
        missing = [part for part in ("model", "data") if config[part] is None]
        if missing:
            raise UserError(
                f"`{self.subcommand}` needs {' and '.join(missing)}: give --config with a file of yours or "
                f"one of the shipped ones: {', '.join(shipped())}."
            )
        if self.subcommand != "fit" or config.ckpt_path == "best":
            self._require_weights(config)

    def _require_weights(self, config: Any) -> None:
        """Raise a UserError where Lightning would evaluate random weights."""
        folder = Path(config.trainer.default_root_dir or ".", "checkpoints")
        last = folder / "last.ckpt"
        if config.ckpt_path is None and config.model.class_path.endswith(TeacherModule.__name__):
            raise UserError(f"`{self.subcommand}` needs a trained teacher: give --ckpt_path, such as {last}.")
        if config.ckpt_path in ("best", "last"):
            file = folder / f"{config.ckpt_path}.ckpt"
            if not file.is_file():
                raise UserError(
                    f"There is no {file}: give the file to --ckpt_path, or set trainer.default_root_dir."
                )

    def instantiate_classes(self) -> None:
        """Instantiate model, data and trainer, as far as the command needs them."""
        if self.subcommand in self._runs:
            super().instantiate_classes()
        else:
            self.config_init = self.parser.instantiate_classes(self.config)

    def run_command(self, command: str) -> None:
        """Run a command."""
        if command == "data":
            run_data(self.config_init[command])
            return
        if command not in self._runs:
            config, arguments = self.config_init[command], self.arguments_of(command)
            if command == "profile":
                arguments |= {"model": config.model, "datamodule": config.data}
            elif command == "compare":
                arguments["rehearse"] = Rehearsal
            getattr(WithoutRun if self._without_run else Commands, command)(**arguments)
            return
        if command == "fit":
            require_own_folders(self.trainer, self.model)
        try:
            with finished(self.trainer.loggers):
                super().run_command(command)
        except Exception as error:
            self._end_other_ranks(error)
            raise

    def _end_other_ranks(self, error: Exception) -> None:
        """End the processes of other ranks, which may wait for this one in a collective.

        Raises:
            UserError: One of them was killed, so that it could not say so itself.
        """
        children = child_processes(self.trainer)
        killed = killed_rank(children) if children and lost_connection(error) else None
        for child in children:
            child.kill()
        if killed is not None:
            raise UserError(killed) from None


class Rehearsal(GanCompressCLI):
    """Reads the options of a command and makes what they name, but trains and tests nothing."""

    def seed(self) -> None:
        """Do nothing."""

    def before_instantiate_classes(self) -> None:
        """Do nothing: weights may be those of a run that is still to come."""

    def instantiate_classes(self) -> None:
        """Make model, data and callbacks, but no trainer."""
        self.config_init = self.parser.instantiate_classes(self.config)

    def run_command(self, command: str) -> None:
        """Do nothing."""


def with_help(parser: LightningArgumentParser, command: str) -> LightningArgumentParser:
    """The parser of a command with the flag that `named_by` looks for, and its help in order."""
    text = "Trust the checkpoint: let it name any class, whose code then runs."
    parser.add_argument(TRUST, action=Flag, help=text)
    arrange_options(parser, command)
    return parser
