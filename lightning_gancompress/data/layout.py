"""Folder layouts of images: those of pytorch-CycleGAN-and-pix2pix, and others whose names tell."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Literal

from lightning_gancompress.data.halves import SAMPLE, Verdict
from lightning_gancompress.data.listing import evenly, has_images, list_images
from lightning_gancompress.data.pairing import Side, Sides, share_names
from lightning_gancompress.data.reading import ImageError, endings, read_header
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path

Layout = Literal["auto", "side_by_side", "folders"]
Folders = tuple[Path, Path]  # of A and of B; one and the same holds A | B side by side

UNDIVIDED = ""  # in place of the name of a split: folders that are not divided into splits
# names of folders that say which one is A and which B, in any case
WORDS_A = {"image", "images", "img", "imgs", "photo", "photos", "source", "sources", "input", "inputs"}
WORDS_B = {"label", "labels", "mask", "masks", "annotation", "annotations", "target", "targets", "output"}
WORDS_B |= {"outputs", "segmentation", "segmentations"}
SPLIT_WORDS = ("train", "val", "test", "eval", "dev")  # with which names of splits begin
OWN_FOLDERS = "set data.source_folder and data.target_folder to the two that are meant"


@dataclass(frozen=True)
class Naming:
    """How a user's folders and files of A and B are called.

    Attributes:
        folders: Folders below that of the data: within each split, around the splits, with `{split}` in place
            of its name, or without splits; None for those of the known layouts.
        suffixes: What the names of the files end in.
    """

    folders: tuple[str, str] | None = None
    suffixes: tuple[str, str] = ("", "")

    def sides(self, folders: Folders | None) -> Sides | None:
        """A and B in their folders."""
        return folders and (Side(folders[0], self.suffixes[0]), Side(folders[1], self.suffixes[1]))


def own_folders(source: str | None, target: str | None) -> tuple[str, str] | None:
    """The folders of sources and targets that a user has named; None for those of the known layouts.

    Raises:
        UserError: Only one is named.
    """
    if source is None and target is None:
        return None
    if source is None or target is None:
        given, missing = ("source", "target") if target is None else ("target", "source")
        raise UserError(
            f"data.{given}_folder is {source or target}, but data.{missing}_folder is not given: set both."
        )
    return source, target


def domain_folders(root: Path, split: str, names: tuple[str, str] | None = None) -> list[Folders]:
    """Candidate folders of the two domains of a split: those of the known layouts, or of a user's names."""
    if names is None:
        return [
            (root / split / "A", root / split / "B"),
            (root / f"{split}A", root / f"{split}B"),
            (root / f"{split}_A", root / f"{split}_B"),
            (root / "A" / split, root / "B" / split),
        ]
    if any("{split}" in name for name in names):
        a, b = (user_path(root / name.replace("{split}", split)) for name in names)
        return [(a, b)] if split != UNDIVIDED else []
    a, b = (user_path(root / name) for name in names)
    return [(root / split / names[0], root / split / names[1]), (a / split, b / split)]


def domain_layouts(split: str, names: tuple[str, str] | None = None) -> str:
    """The candidate folders of `domain_folders` as text for an error message."""
    if names is not None:
        a, b = names
        return f"{a} and {b} within {split}, or {split} within these"
    return (
        f"{split}A and {split}B, {split}_A and {split}_B, {split}/A and {split}/B, or A/{split} and B/{split}"
    )


def find_domains(root: Path, split: str, names: tuple[str, str] | None = None) -> Folders | None:
    """Find the folders of A and B of a split; None if there are no images in any.

    Raises:
        UserError: More than one layout holds images.
    """
    return _the_only(root, split, domain_folders(root, split, names))


def find_pairs(root: Path, split: str, layout: Layout = "auto", naming: Naming | None = None) -> Sides | None:
    """Find A and B of the pairs of a split; None if there is no such split.

    Raises:
        UserError: More than one layout holds images.
    """
    naming = naming or Naming()
    if naming.folders is not None:
        return naming.sides(find_domains(root, split, naming.folders))
    folder = root / split
    flat = [(folder, folder)] if _has_own_images(folder, split) else []
    if layout == "side_by_side":
        return naming.sides(flat[0] if flat else None)
    (a, b), *beside = domain_folders(root, split)
    inside = [(a, b), *_by_words({path.name: path for path in _subfolders(folder)})]
    if layout == "auto" and not any(map(has_images, chain(*inside))):
        beside = flat + beside
    if split != UNDIVIDED:
        around = {path.name: path for path in _subfolders(root)}
        beside += _by_words({name: path / split for name, path in around.items()})
        prefix = f"{split}_"
        joined = {name: path for name, path in around.items() if name.startswith(prefix)}
        beside += _by_words({name.removeprefix(prefix): path for name, path in joined.items()})
    return naming.sides(_the_only(root, split, [*inside, *beside]))


def _has_own_images(folder: Path, split: str) -> bool:
    """Whether a split has images; without splits in the folder itself, since its subfolders may be some."""
    if split == UNDIVIDED:
        return any(path.is_file() for path in folder.iterdir() if path.suffix.lower() in endings())
    return has_images(folder)


def _by_words(places: Mapping[str, Path]) -> list[Folders]:
    """Folders of A and of B among some, by their names."""
    a, b = ([path for name, path in places.items() if name.lower() in words] for words in (WORDS_A, WORDS_B))
    return list(product(a, b))


def _the_only(root: Path, split: str, candidates: Iterable[Folders]) -> Folders | None:
    some = [both for both in candidates if any(map(has_images, both))]
    whole = {tuple(map(os.path.realpath, both)): both for both in some if all(map(has_images, both))}
    if len(whole) > 1:
        names = " and ".join(describe(root, both) for both in whole.values())
        flat = any(a == b for a, b in whole.values())
        remedy = "set data.layout to folders or side_by_side" if flat else "rename or remove one of them"
        raise UserError(
            f"{root} holds {split or 'its'} images in more than one layout, {names}: {remedy}"
            f"{'' if flat else f', or {OWN_FOLDERS}'}."
        )
    return next(iter(whole.values()), some[0] if some else None)


def require_undivided(folders: Iterable[Path]) -> None:
    """Refuse folders without splits whose subfolders may be splits of other names, which would be mixed.

    Raises:
        UserError: They look like that.
    """
    for folder in folders:
        inner = [path for path in _subfolders(folder) if path.name.lower().startswith(SPLIT_WORDS)]
        if found := [path.name for path in inner if has_images(path)]:
            raise UserError(
                f"{folder} holds {' and '.join(found)}, which may be splits and would be mixed: rename the "
                "training images' folder to train, and set data.val_split and data.test_split to the others."
            )


def describe(root: Path, folders: Folders) -> str:
    """The folders of A and B as text."""
    a, b = (os.path.relpath(folder, root) for folder in folders)
    return f"{a} (A | B side by side)" if a == b else f"{a} + {b}"


# -- is a folder of images really one of pairs side by side? ------------------------------------------------


def require_side_by_side(root: Path, splits: Sequence[str], verdict: Verdict) -> None:
    """Refuse folders of single pictures, which would be cut in half as pairs A | B.

    Args:
        root: Folder of the splits.
        splits: Names of all splits.
        verdict: What their pictures look like, judged together.

    Raises:
        UserError: They don't look like pairs, or are too small to tell and others of their names lie beside.
    """
    if verdict == "pairs":
        return
    pictures = {split: list_images(root / split) for split in splits}
    everything = [path for paths in pictures.values() for path in paths]
    split = next(split for split in splits if pictures[split])
    twin = namesake(root, split, splits)
    sizes: Counter[tuple[int, int]] = Counter()
    for path in evenly(everything, SAMPLE):
        with suppress(ImageError):  # told by who reads all
            sizes[read_header(path).size] += 1
    width, height = sizes.most_common(1)[0][0]
    if verdict == "unclear" and twin is None and width == 2 * height:
        return
    why = "are too small to tell" if verdict == "unclear" else "show no border in their middle"
    beside, remedy = "", f"Move its images of A to {split}A and those of B to {split}B"
    if twin is not None:
        # by what stands before the names of all splits, if they are called so
        within = root / split
        first, second = (str(path.relative_to(within if within in path.parents else root)) for path in twin)
        one, other = (
            f"{{split}}{name.removeprefix(split)}" if name.startswith(split) else name
            for name in (first, second)
        )
        beside = f", and {second} holds files of the same names"
        remedy = (
            f"Set data.source_folder to '{one}' and data.target_folder to '{other}', or the other way round"
        )
    raise UserError(
        f"{root / split} may hold single pictures, not pairs A | B side by side: those of {width}x{height} "
        f"{why}{beside}. {remedy}, use FolderDataModule or UnpairedDataModule without pairs, or set "
        "data.layout to side_by_side if each picture is a pair."
    )


def namesake(root: Path, split: str, splits: Sequence[str]) -> Folders | None:
    """Two folders that may be A and B: with images of the same names, within a split or beside it."""
    within = _subfolders(root / split)
    beside = [folder for folder in _subfolders(root) if folder.name not in splits]
    candidates = [(a, b) for a in within for b in within if a != b]
    candidates += [(root / split, folder) for folder in beside if split != UNDIVIDED]
    names = {folder: _names(folder) for folder in {folder for both in candidates for folder in both}}
    return next(((a, b) for a, b in candidates if share_names(names[a], names[b])), None)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def may_be_pairs(a: Path, b: Path) -> bool:
    """Whether at least half of the images of one of two folders have a namesake in the other."""
    one, other = _names(a), _names(b)
    return share_names(one, other) or share_names(other, one)


def are_domains(root: Path, split: str, folders: Folders) -> bool:
    """Whether two folders are called A and B, which may hold pairs or not."""
    return folders in domain_folders(root, split)


def called_apart(root: Path, folders: Iterable[Path]) -> bool:
    """Whether some of the folders below a root have names of A, and others names of B."""
    words = [set(re.findall("[a-z]+", os.path.relpath(folder, root).lower())) for folder in folders]
    common = set.intersection(*words) if words else set()
    sides = {(bool((own - common) & WORDS_A), bool((own - common) & WORDS_B)) for own in words}
    return {(True, False), (False, True)} <= sides


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).stem for path in list_images(folder)}
