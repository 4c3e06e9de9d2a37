"""Which classes a file may name. What comes out of a file is data; what the user names is code.

A file may name the classes of this package, a few of Lightning's, and those that the user has named: in the
command, in a configuration, or as an object in Python. Nothing else that it names is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from lightning_gancompress.errors import UserError

PACKAGE = __name__.partition(".")[0]
# they log, stop early or show progress, told by numbers and texts; other loggers take an address
LIGHTNING = frozenset(
    f"lightning.pytorch.{room}.{name}"
    for room, names in {
        "loggers": ("CSVLogger", "TensorBoardLogger", "WandbLogger"),
        "callbacks": (
            "DeviceStatsMonitor",
            "EarlyStopping",
            "EMAWeightAveraging",
            "GradientAccumulationScheduler",
            "LearningRateMonitor",
            "ModelCheckpoint",
            "ModelSummary",
            "RichModelSummary",
            "RichProgressBar",
            "StochasticWeightAveraging",
            "Timer",
            "TQDMProgressBar",
        ),
    }.items()
    for name in names
)


@dataclass(frozen=True)
class Named:
    """What the user's command names.

    Attributes:
        texts: Texts of the command and its configurations that name no file; import paths among them.
        everything: Whether the user trusts the file (`--trust`), so that it may name any class.
    """

    texts: frozenset[str] = frozenset()
    everything: bool = False


NOTHING = Named()
_named: ContextVar[Named] = ContextVar("named", default=NOTHING)
_passed: dict[str, type] = {}  # classes of the objects that were passed in Python


@contextmanager
def trusting(named: Named) -> Iterator[None]:
    """Context in which files may also name what the user has `named`."""
    token = _named.set(named)
    try:
        yield
    finally:
        _named.reset(token)


def everything_is_trusted() -> bool:
    """Whether the user has said `--trust`."""
    return _named.get().everything


def names(text: str) -> bool:
    """Whether the user's own command or configuration has this text."""
    return text in _named.get().texts


def remember(path: str, passed: type) -> None:
    """Let files name the class of an object that was passed in Python, by the import path `path`."""
    _passed[path] = passed


def class_named_in_file(path: Any, what: str, remedy: str) -> Any:
    """The class, or function, at an import path that a file names.

    Args:
        path: The import path.
        what: Where the file names it, for the message.
        remedy: How to allow another class, beside `--trust`; begins with a verb.

    Raises:
        UserError: The file may not name it, or it can't be imported.
    """
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")):
        raise UserError(f"{what}: {str(path)[:80]!r} is no import path of a class: the file is damaged.")
    if path in _passed:
        return _passed[path]
    ours = path.startswith(f"{PACKAGE}.")
    if not (ours or path in LIGHTNING or names(path) or everything_is_trusted()):
        raise _refusal(path, what, remedy)
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{what}: the class {path!r} can't be imported ({error}): install its package or put its folder "
            "on PYTHONPATH."
        ) from error
    if ours and not (isinstance(found, type) and found.__module__.startswith(f"{PACKAGE}.")):
        raise _refusal(path, what, remedy)  # what a module of this package has imported from elsewhere
    return found


def _refusal(path: str, what: str, remedy: str) -> UserError:
    return UserError(
        f"{what}: the file wants the class {path}, which is neither of this package nor named by you: if you "
        f"trust the file, {remedy}, or add --trust to the command."
    )
