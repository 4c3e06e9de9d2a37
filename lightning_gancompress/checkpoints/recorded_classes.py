"""Checks of recorded settings before a parser imports what they name.

The settings that a run records name each class in a table, `{"class_path": ..., "init_args": {...}}`; `trust`
says which. A text where a constructor takes an object or a function would be imported as well, or be read as
the name of a further configuration: there only plain words are accepted.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import inspect
import os
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lightning_gancompress.errors import UserError
from lightning_gancompress.schema import shown
from lightning_gancompress.trust import class_named_in_file, everything_is_trusted, names

REMEDY = "name it in a configuration of yours"
_PLAIN = {str, int, float, bool, type(None), list, dict, tuple, set, Any, Path, datetime.timedelta}
_CONTAINERS = {
    list,
    dict,
    tuple,
    set,
    Union,
    types.UnionType,
    collections.abc.Iterable,
    collections.abc.Mapping,
    collections.abc.Sequence,
}
_WORD = re.compile(r"[\w #%+-]*")


def require_known(value: Any, hint: Any, where: str) -> None:
    """Check that a recorded value names only what a file may name.

    Args:
        value: Plain types.
        hint: Type of the option, a base class or a union for instance.
        where: Name of the option, for the message.

    Raises:
        UserError: It names another class, or a text stands where a class may stand.
    """
    if everything_is_trusted():
        return
    if isinstance(value, Mapping):
        if "class_path" in value:
            _require_class(value, where)
            return
        fields = _fields(hint)
        for name, inner in value.items():
            require_known(inner, fields.get(name, hint), f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            require_known(inner, hint, where)
    elif isinstance(value, str) and not (_plain(hint) or names(value) or _is_word(value)):
        raise UserError(
            f"{where}: the file gives the text {shown(value)} where an object of a class may stand: if you "
            f"trust the file, {REMEDY}, or add --trust to the command."
        )


def _require_class(value: Mapping[str, Any], where: str) -> None:
    found = class_named_in_file(value["class_path"], where, REMEDY)
    hints = arguments_of(found)
    for key, given in value.items():
        if key in ("init_args", "dict_kwargs"):
            for name, inner in given.items() if isinstance(given, Mapping) else ():
                require_known(inner, hints.get(name, object), f"{where}.{name}")
        elif key != "class_path":
            raise UserError(
                f"{where}: the file has an entry {shown(key)} beside a class_path: it is damaged."
            )


def arguments_of(found: Any) -> dict[str, Any]:
    """Types of a constructor's arguments by name, also of those that it hands on to its base classes."""
    classes = reversed(found.__mro__) if isinstance(found, type) else [found]
    hints: dict[str, Any] = {}
    for cls in classes:
        if dataclasses.is_dataclass(cls):  # its constructor has the inherited fields, but not their names
            function: Any = cls
        else:
            function = inspect.unwrap(vars(cls).get("__init__", object)) if isinstance(cls, type) else cls
        try:
            # the constructor of a data class has annotations of its bases, from other files than its own
            hints |= get_type_hints(cls if dataclasses.is_dataclass(cls) else function)
        except (NameError, TypeError):  # a name that only type checkers import
            hints |= dict.fromkeys(getattr(function, "__annotations__", {}), object)
    return hints


def _is_word(text: str) -> bool:
    """Whether a text is neither an import path nor the name of a file."""
    return bool(_WORD.fullmatch(text)) and not os.path.exists(text)  # noqa: PTH110, Path fails on a long text


def _fields(hint: Any) -> dict[str, Any]:
    """Types of the fields of a data class among the types of a union."""
    kinds = [hint, *get_args(hint)]
    return {
        name: of
        for kind in kinds
        if dataclasses.is_dataclass(kind) and isinstance(kind, type)
        for name, of in get_type_hints(kind).items()
    }


def _plain(hint: Any) -> bool:
    """Whether a type has no classes whose objects a parser would make."""
    origin = get_origin(hint)
    if origin is Literal:
        return True
    if origin in _CONTAINERS:
        return all(_plain(inner) for inner in get_args(hint) if inner is not ...)
    return hint in _PLAIN
