"""Messages of one sentence for errors that a user can fix."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

import jsonargparse
import lightning
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from lightning_gancompress.errors import UserError

_DISK = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}

# what these raise themselves is about the options and callbacks that they were given
_LIBRARIES = tuple(str(Path(str(library.__file__)).parent) for library in (lightning, jsonargparse))
_RAISED = (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException)

_NOISE = (
    "Does not validate",
    "Subtypes",
    "Errors",
    "Given value",
    "Problem with",
    "Expected a <class 'NoneType'>",
    "Not a valid subclass",
    "Subclass types expect",
    "a class path (",
    "a dict with",
)
# what jsonargparse says of a file that is not there: it takes the name for a class's
_NO_CLASS = ("No module named ", "Unexpected import path format: ")
_UNREADABLE = re.compile(r"'[\w-]+' codec can't decode [^;]*")
UNKNOWN_CLASS = "dot import path string: "  # in jsonargparse's messages, before the word
_WORDS = {
    "typing.": "",
    'in "<unicode string>", ': "",
    UNKNOWN_CLASS: "a known class, an import path (package.Class) or a YAML file, not ",
    "Given value: ": "given ",
    ". Got value:": "; given",
}


def explain(error: BaseException) -> str | None:
    """The message of an error that the user can fix; None for any other."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError) or "errors.UserError: " in str(cause):
            # an error of another process is text below a traceback
            return str(cause).rpartition("UserError: ")[2].strip()
        if isinstance(cause, OSError) and cause.errno in _DISK:
            return f"{cause.filename or 'The output'}: {cause.strerror}. Mend that, or choose another place."
        cause = cause.__cause__ or cause.__context__
    if not isinstance(error, _RAISED):
        return None
    raised_in = traceback.extract_tb(error.__traceback__)[-1:]
    if raised_in and raised_in[0].filename.startswith(_LIBRARIES):
        return condense(str(error))
    return str(error) if isinstance(error, MisconfigurationException) else None


def condense(message: str) -> str:
    """Shorten a nested message of jsonargparse to key, error and given value."""
    classes = re.findall(r"given class_path '[\w.]*?(\w+)'", message)
    where = ".".join(re.findall(r'Parser key "([^"]+)"', message)) or "".join(classes[-1:])
    lines = [re.sub(r'^(- )?(Parser key "[^"]+":\s*)?', "", line.strip()) for line in message.splitlines()]
    given = [line for line in lines if line.startswith("Given value:") and not re.search(r"[{(]", line)]
    lines = [line for line in lines if line and not line.startswith(_NOISE)]
    if any(UNKNOWN_CLASS in line for line in lines):  # names what is given, maybe a file
        lines, given = [line for line in lines if not line.startswith("Expected a path but ")], []
    named = re.search(r"Given value: (\S+\.(?:ya?ml|json))$", message, re.MULTILINE)
    if named and any(line.startswith(_NO_CLASS) for line in lines):
        lines, given = [f"There is no file {named[1]}: write its path from this folder, or whole"], []
    expected = dict.fromkeys(
        choice
        for line in lines
        if line.startswith("Expected a ")
        for choice in _choices(line.removeprefix("Expected a "))
    )
    lines = [line for line in lines if not line.startswith("Expected a ")]
    if expected and not lines:
        lines.append(f"expected {listed(expected, 'or')}")
    text = "; ".join(dict.fromkeys(lines + given))
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    text = _UNREADABLE.sub("the file that is named there is no text: give a YAML file", text)
    for old, new in _WORDS.items():
        text = text.replace(old, new)
    text = (f"{where}: " if where else "") + text[:1].lower() + text[1:]
    return re.sub("; given$", "; given nothing", text.rstrip(".")) + "."


def _choices(expected: str) -> list[str]:
    """What one of the types in a message allows: of `Literal['a', 3]` its choices."""
    literal = re.fullmatch(r"(?:typing\.)?Literal\[(.*?)\](.*)", expected)
    if literal is None:
        return [expected]
    *choices, last = (choice.strip("'") for choice in literal[1].split(", "))
    return [*choices, last + literal[2]]


def listed(items: Iterable[str], word: str) -> str:
    """Items in a sentence: `a, b or c`, where the word is `or`."""
    *most, last = items
    return f"{', '.join(most)} {word} {last}" if most else last
