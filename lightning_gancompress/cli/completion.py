"""Completion of commands, options and values by the shell."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from lightning_gancompress.checkpoints.recorded_classes import arguments_of
from lightning_gancompress.lightning_internals import commands_of, options_of, type_of
from lightning_gancompress.packages import require

COMPLETION = "--print_completion"


class PrintCompletion(argparse.Action):
    """The option `--print_completion`: prints a script for a shell, and ends."""

    def __init__(self, option_strings: list[str], dest: str, **kwargs: Any) -> None:
        nowhere = argparse.SUPPRESS
        text = "Print a script that completes commands, options and values; needs the extra `completion`."
        super().__init__(option_strings, nowhere, default=nowhere, choices=["bash", "zsh"], help=text)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Print the script.

        Raises:
            UserError: shtab isn't installed.
        """
        require(COMPLETION, "shtab")
        import shtab

        print(shtab.complete(outline(commands_of(parser), shtab.FILE), shell=values))
        parser.exit()


def outline(commands: Mapping[str, Any], file: Any) -> argparse.ArgumentParser:
    """A plain parser of commands with the words that their options take, and `file` where that is a path.

    It has the options of the classes that model, data and callbacks can be; jsonargparse's own goes down into
    all classes that these take, for many minutes.
    """
    program = argparse.ArgumentParser("gancompress")
    program.add_argument(COMPLETION, choices=["bash", "zsh"])
    _add_commands(program, commands, file)
    return program


def _add_commands(program: argparse.ArgumentParser, commands: Mapping[str, Any], file: Any) -> None:
    """Add commands and those within them."""
    subparsers = program.add_subparsers() if commands else None
    for name, command in commands.items():
        assert subparsers is not None
        summary = str(command.description).partition("\n")[0]
        parser = subparsers.add_parser(name, add_help=False, help=summary)
        _add_commands(parser, commands_of(command), file)
        for option in options_of(command):
            if option.help != argparse.SUPPRESS:
                hint = type_of(option)
                _add(parser, option.option_strings, hint, option.choices, file, option.nargs)
                for cls in classes_of(hint):
                    for argument, kind in arguments_of(cls).items():
                        _add(parser, [f"{option.option_strings[0]}.{argument}"], kind, None, file)


def _add(
    parser: argparse.ArgumentParser, strings: Any, hint: Any, choices: Any, file: Any, nargs: Any = None
) -> None:
    """Add an option, unless another class has one of that name."""
    known = {string for option in options_of(parser) for string in option.option_strings}
    strings = [string for string in strings if string not in known and "return" not in string]
    if not strings:
        return
    action = "store_true" if nargs == 0 else "store"
    option = parser.add_argument(*strings, action=action)
    option.choices = choices or words_of(hint) or None
    if not option.choices and nargs != 0:
        option.complete = file  # type: ignore[attr-defined]


def words_of(hint: Any) -> list[str]:
    """The words that an option of a type takes, as far as they are known."""
    if hint is bool:
        return ["true", "false"]
    if get_origin(hint) is Literal:
        return [str(word) for word in get_args(hint)]
    names = [cls.__name__ for cls in classes_of(hint)]
    parts = [] if isinstance(hint, type) else get_args(hint)
    return list(dict.fromkeys([*names, *(word for part in parts for word in words_of(part))]))


def classes_of(hint: Any) -> list[type]:
    """The classes of this project that an option of a type can name."""
    waiting, found = [hint], dict[type, None]()
    while waiting:
        kind = waiting.pop(0)
        if not isinstance(kind, type) or get_origin(kind) is not None:
            waiting += get_args(kind)
        elif kind.__module__.startswith(("lightning", "torch")):
            waiting += kind.__subclasses__()
            if kind.__module__.startswith("lightning_gancompress.") and not kind.__name__.startswith("_"):
                found[kind] = None
    return list(found)
