"""Which data module fits a folder."""

from __future__ import annotations

from pathlib import Path

from lightning_gancompress.data.folder import FolderDataModule
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.layout import (
    UNDIVIDED,
    are_domains,
    called_apart,
    find_pairs,
    may_be_pairs,
    namesake,
)
from lightning_gancompress.data.paired import PairedDataModule
from lightning_gancompress.data.pairing import sides_of
from lightning_gancompress.data.unpaired import UnpairedDataModule
from lightning_gancompress.errors import UserError

SPLITS = ["train", "val", "test"]


def kind_of(root: Path) -> type[ImageDataModule]:
    """The data module that reads a folder.

    Where a folder seems to hold pairs or domains that are not read, it is the one that says why.

    Raises:
        UserError: There is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"Data folder {root} does not exist: give a folder with images.")
    if _paths(PairedDataModule, root):
        return PairedDataModule
    for split in (*SPLITS, UNDIVIDED):
        if kind := _kind_of_split(root, split):
            return kind
    if any(namesake(root, split, SPLITS) for split in ("train", UNDIVIDED)):
        return PairedDataModule
    alone = _paths(FolderDataModule, root)
    mixed = called_apart(root, {path.parent for path in alone})
    return FolderDataModule if alone and not mixed else PairedDataModule


def _kind_of_split(root: Path, split: str) -> type[ImageDataModule] | None:
    """The data module of what names tell of a split: two folders, or two kinds of files in one."""
    try:
        sides = find_pairs(root, split)
        if sides is None:
            return None
        if sides[0] == sides[1]:
            return PairedDataModule if sides_of(sides[0].folder) else None
    except UserError:  # in more than one layout, or pairs of which it is not clear what is A
        return PairedDataModule
    folders = sides[0].folder, sides[1].folder
    unpaired = are_domains(root, split, folders) and not may_be_pairs(*folders)
    return UnpairedDataModule if unpaired else PairedDataModule


def _paths(kind: type[ImageDataModule], root: Path) -> list[Path]:
    """The training images that a data module reads; none if it refuses them."""
    try:
        return [
            path for files in kind(str(root)).files("train").values() for sample in files for path in sample
        ]
    except UserError:
        return []
