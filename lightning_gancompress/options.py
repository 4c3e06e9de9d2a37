"""What values options take: declared in their types, and required where they are passed, also from Python.

An option's type is a name such as `Rate`: a plain type with a rule. The command line shows and parses the
plain type; `checked` and `check_fields` require the rule as well.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, Protocol, TypeVar, Union, get_args, get_origin
from typing import get_type_hints as read_hints

from lightning_gancompress.errors import UserError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Rule(Protocol):
    """What a value must be beside its type; its text follows that of the type: `a number above 0`."""

    def accepts(self, value: Any) -> bool:
        """Whether a value of the type is allowed."""


class Kind:
    """Base of rules whose text says the whole of what a value must be, without the words of the type."""


@dataclass(frozen=True)
class Range:
    """Requires a number in a range; NaN and infinity are in none.

    Attributes:
        least: Lower end.
        most: Upper end.
        above: Whether the lower end is excluded.
        below: Whether the upper end is excluded.
    """

    least: float
    most: float
    above: bool = False
    below: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether a number is in the range."""
        low = value > self.least if self.above else value >= self.least
        return bool(low and (value < self.most if self.below else value <= self.most))

    def __str__(self) -> str:
        if not self.above and not self.below:
            return f"from {self.least} to {self.most:,}"
        low = f"above {self.least}" if self.above else f"of at least {self.least}"
        return f"{low} and {'below' if self.below else 'at most'} {self.most:,}"


@dataclass(frozen=True)
class Items:
    """Requires a number of items.

    Attributes:
        least: Least number.
        most: Greatest number; None for any.
    """

    least: int = 1
    most: int | None = None

    def accepts(self, value: Any) -> bool:
        """Whether a list has so many items."""
        return self.least <= len(value) and (self.most is None or len(value) <= self.most)

    def __str__(self) -> str:
        return f"({'' if self.least == self.most else 'at least '}{self.least} of them)"


Count = Annotated[int, Range(1, 10**9)]  # of what there must be one
CountOrNone = Annotated[int, Range(0, 10**9)]  # of what there may be none
Workers = Annotated[int, Range(0, 1024)]  # processes beside the main one
TrialCount = Annotated[int, Range(1, 8)]  # of a bisection: n of them choose among 2^(n - 1)
Threads = Annotated[int, Range(1, 1024)]
PortOrAny = Annotated[int, Range(0, 2**16 - 1)]  # of TCP; 0 for any that is free
Seed = Annotated[int, Range(0, 2**32 - 1)]
Pixels = Annotated[int, Range(1, 2**16)]
Channels = Annotated[int, Range(1, 2**16)]
Width = Annotated[int, Range(1, 2**10)]  # of a network's first layer: the deepest has some eight times more
Rate = Annotated[float, Range(0, 1, above=True)]
Decay = Annotated[float, Range(0, 1, above=True, below=True)]
Share = Annotated[float, Range(0, 1, below=True)]
Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, 10**6, above=True)]
Amount = Annotated[float, Range(0, 10**6)]  # a weight or a limit; 0 is none


# -- checks ----------------------------------------------------------------------------------------------


def checked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a function or a constructor, whose arguments must then be what their annotations say.

    Raises:
        UserError: An argument is not, when it is called; the message names it, its value and the remedy.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            given = {}  # Python's own error follows
        check(function, given)
        return function(*args, **kwargs)

    return call


def check(function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Require of arguments by name that they are what a function's annotations say.

    Raises:
        UserError: One is not.
    """
    owner = function.__qualname__.removesuffix(".__init__")
    _require(owner, arguments, function)


def check_fields(options: Any) -> None:
    """Require of the fields of a dataclass that they are what its annotations say.

    Raises:
        UserError: One is not.
    """
    given = {field.name: getattr(options, field.name) for field in fields(options) if field.init}
    _require(type(options).__name__, given, type(options))


def _require(owner: str, arguments: Mapping[str, Any], annotated: Any) -> None:
    hints = _hints(annotated)
    for name, value in arguments.items():
        if name in hints and not fits(value, hints[name]):
            raise UserError(f"{name} of {owner} is {_shown(value)}: give {words(hints[name])}.")


@functools.cache
def _hints(annotated: Any) -> dict[str, Any]:
    # not as they are imported: annotations may name what is defined later
    return read_hints(annotated, include_extras=True)


def _shown(value: Any) -> str:
    if isinstance(value, (str, Real, list, tuple, dict, type(None))):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}..."
    return f"a {type(value).__name__}"


# -- types -----------------------------------------------------------------------------------------------

PLAIN: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, Integral) and not isinstance(value, bool)),
    float: ("a number", lambda value: _is_finite(value)),
    str: ("a text", lambda value: isinstance(value, (str, os.PathLike)) and str(value).strip() != ""),
    Path: ("a path", lambda value: isinstance(value, os.PathLike)),
    type(None): ("nothing", lambda value: value is None),
}


def _is_finite(value: Any) -> bool:
    # compared, since math.isfinite fails on integers beyond all floats
    number: Any = value
    return isinstance(value, Real) and not isinstance(value, bool) and bool(abs(number) < math.inf)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says; True for annotations whose meaning is not known here."""
    kind, parts = get_origin(hint), get_args(hint)
    if hint in PLAIN:
        return PLAIN[hint][1](value)
    if kind is Annotated:
        return fits(value, parts[0]) and all(rule.accepts(value) for rule in parts[1:])
    if kind in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if kind is Literal:
        return any(isinstance(value, type(choice)) and value == choice for choice in parts)
    if kind is tuple and Ellipsis not in parts:
        return _is_list(value) and len(value) == len(parts) and all(map(fits, value, parts))
    if kind in (list, tuple, Sequence):
        return _is_list(value) and all(fits(item, parts[0]) for item in value)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping) and all(
            fits(key, parts[0]) and fits(item, parts[1]) for key, item in value.items()
        )
    # of other classes: users may pass what only behaves like one, but a number or a text does not
    known = isinstance(kind or hint, type) and hint is not Any
    return not known or not isinstance(value, (str, Real, type(None)))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def words(hint: Any, told: Collection[Any] = ()) -> str:
    """An annotation in words, as the end of the sentence `give ...`; those `told` aren't repeated."""
    kind, parts = get_origin(hint), get_args(hint)
    if hint in PLAIN:
        return PLAIN[hint][0]
    if kind is Annotated:
        rules = [str(rule) for rule in parts[1:]]
        named = any(isinstance(rule, Kind) for rule in parts[1:])
        return " ".join(rules if named else [words(parts[0], told), *rules])
    if kind in (Union, types.UnionType):
        return " or ".join(words(part, parts) for part in parts if part is not type(None)) + (
            ", or leave it out" if type(None) in parts else ""
        )
    if kind is Literal:
        return " or ".join(map(str, parts))
    if kind is tuple and Ellipsis not in parts:
        return f"a list of {len(parts)}{' such' if parts[0] in told else f', each {words(parts[0])}'}"
    if kind in (list, tuple, Sequence):
        return f"a list{' of such' if parts[0] in told else f', each item {words(parts[0])}'}"
    if kind in (dict, Mapping):
        return f"a mapping, each value {words(parts[1])}"
    return f"a {getattr(hint, '__name__', hint)}"
