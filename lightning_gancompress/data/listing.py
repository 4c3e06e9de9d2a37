"""Listing of the image files in folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from lightning_gancompress.data.reading import endings
from lightning_gancompress.errors import UserError

Item = TypeVar("Item")

_HIDDEN = {"__MACOSX", "@eaDir"}  # of archives from a Mac, and of Synology's file servers


def list_images(folder: Path) -> list[Path]:
    """Image files below a folder, sorted; without hidden files and folders.

    Links are followed, and each real folder is visited once.

    Raises:
        UserError: A folder can't be listed.
    """
    known = endings()
    return sorted(path for path in _files(folder) if path.suffix.lower() in known)


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spaced."""
    return [items[i] for i in sorted({round(i * (len(items) - 1) / max(1, count - 1)) for i in range(count)})]


def has_images(folder: Path) -> bool:
    """Whether `list_images` finds any."""
    known = endings()
    return any(path.suffix.lower() in known for path in _files(folder))


def skipped(folder: Path) -> Counter[str]:
    """Files below a folder that `list_images` leaves out, counted by ending; without hidden ones."""
    found = Counter(path.suffix.lower() for path in _files(folder))
    return Counter({ending: count for ending, count in found.items() if ending not in endings()})


def describe_folder(folder: Path) -> str:
    """The content of a folder as text for an error message."""
    if not folder.is_dir():
        return f"{folder} is not a folder"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{folder} holds {', '.join(names[:8]) + more if names else 'nothing'}"


def _files(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    starts = [folder]
    for start in starts:  # links wait, so that what they point to keeps its own path
        for parent, folders, names in os.walk(start, onerror=_refuse):
            if (real := os.path.realpath(parent)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not _is_hidden(name))
            starts += [path for name in folders if (path := Path(parent, name)).is_symlink()]
            yield from (Path(parent, name) for name in names if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _HIDDEN


def _refuse(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise UserError(f"{error.filename} can't be listed ({error.strerror}): mend its permissions.")
