"""Folder layouts of images, as in pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from lightning_gancompress.data.halves import SAMPLE, judge_halves
from lightning_gancompress.data.listing import evenly, has_images, list_images
from lightning_gancompress.data.reading import read_header
from lightning_gancompress.errors import UserError

Layout = Literal["auto", "side_by_side", "folders"]
Folders = tuple[Path, Path]  # of A and of B; one and the same holds A | B side by side


def domain_folders(root: Path, split: str) -> list[Folders]:
    """Candidate folders of the two domains of a split."""
    return [
        (root / split / "A", root / split / "B"),
        (root / f"{split}A", root / f"{split}B"),
        (root / f"{split}_A", root / f"{split}_B"),
        (root / "A" / split, root / "B" / split),
    ]


def domain_layouts(split: str) -> str:
    """The candidate folders of `domain_folders` as text for an error message."""
    return (
        f"{split}A and {split}B, {split}_A and {split}_B, {split}/A and {split}/B, or A/{split} and B/{split}"
    )


def find_domains(root: Path, split: str) -> Folders | None:
    """Find the folders of A and B of a split; None if there are no images in any.

    Raises:
        UserError: More than one layout holds images.
    """
    return _the_only(root, split, domain_folders(root, split))


def find_pairs(root: Path, split: str, layout: Layout = "auto") -> Folders | None:
    """Find the folders of the pairs of a split; None if there is no such split.

    Raises:
        UserError: More than one layout holds images.
    """
    within, *beside = domain_folders(root, split)
    flat = (root / split, root / split)
    if layout == "side_by_side":
        return flat if has_images(flat[0]) else None
    if layout == "auto" and not any(map(has_images, within)):
        return _the_only(root, split, [flat, *beside])
    return _the_only(root, split, [within, *beside])


def _the_only(root: Path, split: str, candidates: Iterable[Folders]) -> Folders | None:
    some = [both for both in candidates if any(map(has_images, both))]
    whole = {tuple(map(os.path.realpath, both)): both for both in some if all(map(has_images, both))}
    if len(whole) > 1:
        names = " and ".join(describe(root, both) for both in whole.values())
        flat = any(a == b for a, b in whole.values())
        remedy = "set data.layout to folders or side_by_side" if flat else "rename or remove one of them"
        raise UserError(f"{root} holds {split} images in more than one layout, {names}: {remedy}.")
    return next(iter(whole.values()), some[0] if some else None)


def describe(root: Path, folders: Folders) -> str:
    """The folders of A and B as text."""
    a, b = (os.path.relpath(folder, root) for folder in folders)
    return f"{a} (A | B side by side)" if a == b else f"{a} + {b}"


def pairs_in(folders: Folders) -> list[tuple[Path, Path]]:
    """The pairs of files in the folders of A and B.

    Raises:
        UserError: The images of two folders can't be paired by name.
    """
    a, b = folders
    return [(file, file) for file in list_images(a)] if a == b else pair_by_name(a, b)


def pair_by_name(a: Path, b: Path) -> list[tuple[Path, Path]]:
    """Pair the images of two folders by their relative paths without suffixes.

    Raises:
        UserError: An image has no partner, or two images of a folder differ in their suffix only.
    """
    named_a, named_b = by_name(a), by_name(b)
    if alone := sorted(named_a.keys() ^ named_b.keys()):
        folder, other = (a, b) if alone[0] in named_a else (b, a)
        raise UserError(
            f"{len(alone)} images of {a} and {b} have no partner of the same name, the first is {alone[0]} "
            f"of {folder}: add it to {other}, remove it, or use UnpairedDataModule if these are no pairs."
        )
    return [(file, named_b[name]) for name, file in named_a.items()]


def by_name(folder: Path) -> dict[str, Path]:
    """Images of a folder by their relative path without suffix."""
    named: dict[str, Path] = {}
    for file in list_images(folder):
        if (other := named.setdefault(str(file.relative_to(folder).with_suffix("")), file)) != file:
            raise UserError(f"Images {other} and {file} differ in their ending only: rename or remove one.")
    return named


# -- is a folder of images really one of pairs side by side? ------------------------------------------------


def require_side_by_side(root: Path, splits: Sequence[str]) -> None:
    """Refuse folders of single pictures, which would be cut in half as pairs A | B.

    Args:
        root: Folder of the splits.
        splits: Names of all splits, which are judged together.

    Raises:
        UserError: They don't look like pairs, or are too small to tell and others of their names lie beside.
    """
    pictures = {split: list_images(root / split) for split in splits}
    everything = [path for paths in pictures.values() for path in paths]
    verdict = judge_halves(everything)
    if verdict == "pairs":
        return
    split = next(split for split in splits if pictures[split])
    namesake = _namesake(root, split, splits)
    sizes = Counter(read_header(path).size for path in evenly(everything, SAMPLE))
    width, height = sizes.most_common(1)[0][0]
    if verdict == "unclear" and namesake is None and width == 2 * height:
        return
    why = "are too small to tell" if verdict == "unclear" else "show no border in their middle"
    first, second, beside = "its images of A", "those of B", ""
    if namesake is not None:
        first, second = (str(path.relative_to(root)) for path in namesake)
        beside = f", and {second} holds files of the same names"
    raise UserError(
        f"{root / split} may hold single pictures, not pairs A | B side by side: those of {width}x{height} "
        f"{why}{beside}. Move {first} to {split}A and {second} to {split}B, use FolderDataModule or "
        "UnpairedDataModule without pairs, or set data.layout to side_by_side if each picture is a pair."
    )


def _namesake(root: Path, split: str, splits: Sequence[str]) -> Folders | None:
    """Two folders that may be A and B: with images of the same names, within a split or beside it."""
    within = _subfolders(root / split)
    beside = [folder for folder in _subfolders(root) if folder.name not in splits]
    candidates = [(a, b) for a in within for b in within if a < b]
    candidates += [(root / split, folder) for folder in beside]
    return next((both for both in candidates if _share_names(*both)), None)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _share_names(a: Path, b: Path) -> bool:
    """Whether at least half of the images of `a` have a namesake in `b`."""
    one, other = ({path.relative_to(folder).stem for path in list_images(folder)} for folder in (a, b))
    return bool(one) and 2 * len(one & other) >= len(one)
