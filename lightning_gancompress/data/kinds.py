"""Which data module fits a folder."""

from __future__ import annotations

from pathlib import Path

from lightning_gancompress.data.folder import FolderDataModule
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.layout import UNDIVIDED, find_domains, namesake, share_names
from lightning_gancompress.data.paired import PairedDataModule
from lightning_gancompress.data.unpaired import UnpairedDataModule
from lightning_gancompress.errors import UserError


def kind_of(root: Path) -> type[ImageDataModule]:
    """The data module that reads a folder; that of pairs where images may be some, but something is wrong.

    Raises:
        UserError: There is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"Data folder {root} does not exist: give a folder with images.")
    if _reads(PairedDataModule, root):
        return PairedDataModule
    unpaired = _reads(UnpairedDataModule, root)
    for split in ("train", UNDIVIDED):
        if unpaired and (domains := find_domains(root, split)):
            return PairedDataModule if share_names(*domains) else UnpairedDataModule
        if namesake(root, split, ["train", "val", "test"]) is not None:
            return PairedDataModule
    return FolderDataModule if _reads(FolderDataModule, root) else PairedDataModule


def _reads(kind: type[ImageDataModule], root: Path) -> bool:
    try:
        return bool(kind(str(root)).files("train"))
    except UserError:
        return False
