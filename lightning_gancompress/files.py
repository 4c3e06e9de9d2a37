"""Atomic writing of files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lightning_gancompress.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is renamed to `path` at the end, or removed after an error.

    Missing folders are created.

    Raises:
        UserError: The disk is full, or the folder can't be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")  # writers go by the suffix
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        msg = (
            f"{path} can't be written: {error.strerror or error}. Free some space, mend the permissions, "
            "or choose another folder."
        )
        raise UserError(msg) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


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
