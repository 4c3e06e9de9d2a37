"""What a mistyped option or class of the command line was probably meant to be."""

from __future__ import annotations

import re
import sys
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from lightning_gancompress.checkpoints.recorded_classes import arguments_of
from lightning_gancompress.cli.completion import classes_of
from lightning_gancompress.cli.explain import UNKNOWN_CLASS
from lightning_gancompress.errors import did_you_mean
from lightning_gancompress.lightning_internals import options_of

_UNKNOWN_OPTIONS = "unrecognized arguments: "
_UNKNOWN_ARGUMENT = re.compile(r"given class_path '([\w.]+)':\s+Option '(\w+)' is not accepted")
_BASE = re.compile(r"<class '([\w.]+)'>")


def suggestion(parser: LightningArgumentParser, message: str) -> str:
    """` Did you mean X?` for jsonargparse's message about an unknown word; empty where none is close.

    Args:
        parser: The parser of the command.
        message: The message, which names classes by import paths; only those that are imported are read.
    """
    if message.startswith(_UNKNOWN_OPTIONS):
        return _option(parser, message.removeprefix(_UNKNOWN_OPTIONS).split()[0])
    for path, word in _UNKNOWN_ARGUMENT.findall(message):
        if found := did_you_mean(word, set(arguments_of(_imported(path))) - {"return"}):
            return found
    before, _, after = message.partition(UNKNOWN_CLASS)
    if not after:
        return ""
    bases = [_imported(path) for path in _BASE.findall(before.rpartition("Subtypes: ")[2])]
    return did_you_mean(after.split()[0], {cls.__name__ for base in bases for cls in classes_of(base)})


def _option(parser: LightningArgumentParser, word: str) -> str:
    """The option closest to a word such as `--ckpt_pth=x`, or to the first part of `--modl.lr`."""
    known = {string for option in options_of(parser) for string in option.option_strings}
    word = word.partition("=")[0]
    first, dot, rest = word.partition(".")
    whole = did_you_mean(word, known)
    return whole or (did_you_mean(first, known, dot + rest) if dot else "")


def _imported(path: str) -> Any:
    """The class of an import path; None if its module isn't imported."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)
