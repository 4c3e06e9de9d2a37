"""Pairs of two folders as files A | B side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightning_gancompress.data.datasets import read_pair, upright_size
from lightning_gancompress.data.listing import list_images
from lightning_gancompress.data.pairing import Side, pairs_in
from lightning_gancompress.data.reading import ImageError, read_header
from lightning_gancompress.data.synthetic import side_by_side
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import replacing

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]


def join_pairs(a: Path, b: Path, output: Path, suffixes: tuple[str, str], watch: Watch) -> tuple[int, int]:
    """Write each pair of the images in two folders as one PNG file; those that are there stay.

    Args:
        a: Folder of A.
        b: Folder of B.
        output: Folder to write to, with the folders within `a`.
        suffixes: What the names of A and of B end in.
        watch: Shows progress.

    Returns:
        Numbers of files that were written, and that were there.

    Raises:
        UserError: A folder is none, an image has no partner, two of a pair differ in size, an image can't be
            read, or `output` holds other files of these names. All but unreadable pixels is known before
            anything is written.
    """
    for folder in (a, b):
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: give two folders with images of the same names.")
        if output.resolve() == folder.resolve() or folder.resolve() in output.resolve().parents:
            raise UserError(
                f"output {output} lies in {folder}, whose images it would mix with: choose another."
            )
        if not list_images(folder):
            raise UserError(f"{folder} holds no images: give two folders with images of the same names.")
    if a.resolve() == b.resolve() and suffixes[0] == suffixes[1]:
        raise UserError(f"A and B are both {a}: set a_suffix and b_suffix, which tell them apart.")
    pairs = pairs_in((Side(a, suffixes[0]), Side(b, suffixes[1])))
    due: list[tuple[Path, Path, Path]] = []
    for one, other in watch(pairs, "headers", len(pairs)):
        width, height = upright_size(one)
        if upright_size(other) != (width, height):
            read_pair(one, other)  # raises
        target = output / one.relative_to(a).with_suffix(".png")
        if suffixes[0] and target.stem.endswith(suffixes[0]):
            target = target.with_stem(target.stem.removesuffix(suffixes[0]))
        if not target.exists():
            due.append((one, other, target))
        elif _size(target) != (2 * width, height):
            raise UserError(
                f"{target} exists, but is no pair of {width}x{height} pixels each: choose another output."
            )
    for one, other, target in watch(due, "pairs", len(due)):
        with replacing(target) as draft:
            side_by_side(*read_pair(one, other)).save(draft, "PNG")
    return len(due), len(pairs) - len(due)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return read_header(path).size
    except ImageError:
        return None
