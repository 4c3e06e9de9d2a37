"""Checks of what a file holds, in plain types; they raise ValueError, and the reader names the file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
LARGEST = 1e100  # of finite numbers; their squares and products are finite too


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: The file can't be read.
        ValueError: It is no JSON, or nested deeper than Python can follow.
    """
    return parse_json(path.read_bytes())


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text; raises ValueError if it is none, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def whole(value: object, where: str, least: int, most: int) -> int:
    """Return an integer; raise ValueError unless it is one in [`least`, `most`]."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{where} is {shown(value)}, not a whole number from {least} to {most}")
    return value


def texts(value: object, where: str) -> list[str]:
    """Return a list of texts; raise ValueError unless it is one."""
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{where} is {shown(value)}, not a list of texts")
    return list(value)


def shown(value: object) -> str:
    """A value for a message, cut after 60 characters."""
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def build(cls: type[T], data: object, where: str) -> T:
    """Build a dataclass of plain values from a mapping; unknown entries are left out.

    Raises:
        ValueError: A value is missing or of another type.
    """
    hints, entries = get_type_hints(cls), dict(items(data, where))
    known = {f.name: entries[f.name] for f in fields(cls) if f.name in entries}  # type: ignore[arg-type]
    for name, value in known.items():
        typed(value, hints[name], f"{where}.{name}")
    try:
        return cls(**known)
    except TypeError as error:
        raise ValueError(f"{where} is not complete") from error


def items(data: object, where: str) -> Iterator[tuple[str, Any]]:
    """The entries of a mapping from strings; raises ValueError if `data` is none."""
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise ValueError(f"{where} is not a table of names and values")
    yield from data.items()


def typed(value: Any, kind: Any, where: str) -> Any:
    """Return `value`; raise ValueError unless it has a type like `float | None` or `Literal["lower"]`."""
    if not fits(value, kind):
        raise ValueError(f"{where} is {shown(value)}, not {getattr(kind, '__name__', kind)}")
    return value


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of a type; an integer is a float as well, and a bool is neither."""
    if get_origin(kind) in (Union, UnionType):
        return any(fits(value, one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (int, float):
        return is_number(value) and isinstance(value, (int, kind))
    return isinstance(value, kind)


def is_number(value: object) -> bool:
    """Whether a value is an int or a float, but no bool, and not larger than figures are."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) < LARGEST or (isinstance(value, float) and not math.isfinite(value))
