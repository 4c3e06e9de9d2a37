"""The parser of `gancompress data`, whose commands are check, pair and download."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from lightning_gancompress.cli.commands.data import check, download, pair
from lightning_gancompress.cli.configs import ConfigFile
from lightning_gancompress.cli.flags import DEBUG
from lightning_gancompress.cli.help_texts import arrange_options
from lightning_gancompress.data import PairedDataModule
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.kinds import kind_of
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.lightning_internals import options_of

COMMANDS: dict[str, Callable[..., None]] = {"check": check, "pair": pair, "download": download}
DETAILS = {
    "check": "\n\nDIR is read by the data module that fits what it holds, or by that of `--data=CLASS` or "
    "`--config`, of which the section `data` counts. Options of the data module are `--data.crop_size=128` "
    "and so on; `--data.help=PairedDataModule` lists them.",
}
Parsers = Callable[..., LightningArgumentParser]


class DataSection(ConfigFile):
    """The option `--config`, of which the section `data` counts."""

    @staticmethod
    def apply_config(parser: Any, cfg: Any, dest: str, value: str) -> None:
        """Apply the data section alone, since the parser has no options of others."""
        text = value if value.startswith("{") or "\n" in value else Path(value).read_text(encoding="utf-8")
        section = yaml.safe_load(text).get("data")
        if section is None:
            raise UserError("holds no section data: give the configuration of a training.")
        ConfigFile.apply_config(parser, cfg, dest, json.dumps({"data": section}))


def add_commands(parser: LightningArgumentParser, make: Parsers) -> None:
    """Add the commands to the parser of `data`."""
    commands = parser.add_subcommands()
    for name, function in COMMANDS.items():
        text, _, _ = str(function.__doc__).partition("\n\n    Args:")
        summary = text.partition("\n")[0]
        own = make(description=text + DETAILS.get(name, ""))
        if name == "check":
            own.add_argument(
                "folder", nargs="?", metavar="DIR", help="The folder; data.root where it is given."
            )
            own.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)
            own.add_function_arguments(function, skip={"data"})
        elif name == "download":
            own.add_argument("name", nargs="?", metavar="NAME", help="Name of the set; none lists them.")
            own.add_function_arguments(function, skip={"name"})
        else:
            own.add_function_arguments(function, as_positional=True)
            for option in options_of(own):
                option.metavar = option.metavar or (None if option.option_strings else option.dest.upper())
        arrange_options(own, f"data {name}")
        commands.add_subcommand(name, own, help=summary)


def with_folder(words: list[str]) -> list[str]:
    """The words of a command line in which the DIR of `data check` becomes an option of a data module."""
    if DEBUG in words:
        return [DEBUG, *with_folder([word for word in words if word != DEBUG])]
    if words[:2] != ["data", "check"] or {"-h", "--help"} & {*words}:
        return words
    rest = words[2:]
    folder = next((word for n, word in enumerate(rest) if _stands_alone(rest, n)), None)
    named = any(
        word in ("--data", "-c", "--config") or word.startswith(("--data=", "--config=")) for word in rest
    )
    if folder is None:
        return words
    if user_path(folder).is_file():
        raise UserError(f"{folder} is a file: give the folder of the data, or --config={folder}.")
    kind = [] if named else [f"--data={_kind(user_path(folder), rest).__name__}"]
    return [*words[:2], *kind, *rest, f"--data.root={folder}"]


def _kind(folder: Path, options: list[str]) -> type[ImageDataModule]:
    """The data module of a folder; options that only pairs have say that it holds these."""
    kind = kind_of(folder)
    given = set(re.findall(r"(?:^| )--data\.(\w+)", " ".join(options)))
    known, of_pairs = ({field.name for field in fields(each)} for each in (kind, PairedDataModule))
    return kind if given <= known or not given <= of_pairs else PairedDataModule


def _stands_alone(words: list[str], position: int) -> bool:
    """Whether a word is no option, nor the value of one."""
    if words[position].startswith("-"):
        return False
    before = words[position - 1] if position else ""
    return not before.startswith("-") or "=" in before


def run(config: Any) -> None:
    """Run the command that a parsed and instantiated configuration names."""
    name = config.subcommand
    arguments = {key: value for key, value in vars(config[name]).items() if key not in ("config", "folder")}
    if name == "check" and arguments["data"] is None:
        raise UserError("`data check` needs a folder: give DIR, or --config with a section data.")
    COMMANDS[name](**arguments)
