"""Paths as users write them, and atomic writing of files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lightning_gancompress.errors import UserError

_LONGEST = 255  # bytes of a file's name, on all usual file systems
_DRAFT = re.compile(r"\.draft-(?P<place>\w+)-(?P<pid>\d+)-\w+(\.\w+)?")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+")  # a Path has one slash; Windows' drives have one letter
_DAY = 24 * 60 * 60.0
_swept: set[Path] = set()  # folders in which this process has looked for drafts


def user_path(path: str | Path) -> Path:
    """A path that a user has written, with `~` and environment variables replaced.

    Raises:
        UserError: A variable is not set, or the text is no path.
    """
    if "\0" in str(path):
        raise UserError(f"{str(path)!r} is no path: it holds a zero byte.")
    if os.path.lexists(path):  # a name may hold such characters
        return Path(path)
    text = expanded_path(path)
    if address := _ADDRESS.match(text):
        raise UserError(
            f"{address[1]}://{text[address.end() :]} is an address: give a file or folder of this machine."
        )
    return Path(text)


def expanded_path(path: str | Path) -> str:
    """A text with `~` and environment variables replaced.

    Raises:
        UserError: A variable is not set.
    """
    expanded = os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 - `~name` may be no user's
    if unset := re.search(r"\$(\w+|\{\w+\})", expanded):
        raise UserError(
            f"{path}: the environment variable {unset[1].strip('{}')} is not set: set it, or write it out."
        )
    return expanded


def fitting(stem: str, ending: str) -> str:
    """The file name `stem` + `ending`; a stem too long for file systems is cut, and gets a digest."""
    if len(os.fsencode(stem + ending)) <= _LONGEST:
        return stem + ending
    ending = f"-{hashlib.sha256(os.fsencode(stem)).hexdigest()[:12]}{ending}"
    while len(os.fsencode(stem + ending)) > _LONGEST:
        stem = stem[:-1]
    return stem + ending


# -- drafts ----------------------------------------------------------------------------------------------


def draft_of(path: Path) -> Path:
    """The name under which this process writes what will be `path`; drafts of dead processes are removed."""
    if path.parent not in _swept:
        _swept.add(path.parent)
        sweep(path.parent)
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    suffix = path.suffix if re.fullmatch(r"\.\w{1,12}", path.suffix) else ""  # writers go by the suffix
    return path.with_name(f".draft-{place_of_process()}-{os.getpid()}-{digest}{suffix}")


def sweep(folder: Path) -> None:
    """Remove the drafts in a folder that processes have left which were killed while writing."""
    with suppress(OSError):
        for draft in [path for path in folder.iterdir() if path.name.startswith(".draft-")]:
            found = _DRAFT.fullmatch(draft.name)
            if found and _abandoned(draft, found["place"], int(found["pid"])):
                discard(draft)


def discard(draft: Path) -> None:
    """Remove a draft: a file, or a folder of such."""
    with suppress(OSError):
        if draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Whether a process of this host runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _abandoned(draft: Path, place: str, pid: int) -> bool:
    if place == place_of_process():
        return os.name == "posix" and not alive(pid)
    # the processes of another host, or container, can't be seen: nobody writes a file for a day
    return time.time() - draft.stat().st_mtime > _DAY


def place_of_process() -> str:
    """What tells apart two processes of one number: their host and, in containers, their numbering."""
    numbering = Path("/proc/self/ns/pid")
    words = f"{socket.gethostname()} {numbering.readlink() if numbering.is_symlink() else ''}"
    return hashlib.sha256(words.encode()).hexdigest()[:8]


# -- writing ---------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is renamed to `path` at the end, or removed after an error.

    Missing folders are created.

    Raises:
        UserError: The disk is full, or the folder can't be written to.
    """
    path = Path(path)
    draft = draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(path)
    except OSError as error:
        msg = (
            f"{path} can't be written: {error.strerror or error}. Free some space, mend the permissions, "
            "or choose another folder."
        )
        raise UserError(msg) from error
    finally:
        discard(draft)


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write several files atomically: all drafts are written before the first is renamed.

    Raises:
        UserError: A file can't be written; then no existing file has changed.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(replacing(path)).write_bytes(content)


def require_writable(folder: Path, option: str) -> None:
    """Require that files can be written to a folder, which is created if it is missing.

    For what is written after long work: called before it.

    Args:
        folder: The folder.
        option: Option that chooses another, for the message.

    Raises:
        UserError: The folder can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"The folder {folder} can't be written to ({error.strerror}): mend that, or choose another with "
            f"{option}."
        ) from error
