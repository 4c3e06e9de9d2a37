"""Folder layouts of images, as in pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_gancompress.errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".tif", ".tiff"}


def list_images(folder: Path) -> list[Path]:
    """Image files below a folder, sorted; follows links, skips hidden files."""
    paths = [Path(parent, name) for parent, _, names in os.walk(folder, followlinks=True) for name in names]
    return sorted(
        path for path in paths if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    )


def describe_folder(folder: Path) -> str:
    """The content of a folder as text for an error message."""
    if not folder.is_dir():
        return f"{folder} is not a folder"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{folder} holds {', '.join(names[:8]) + more if names else 'nothing'}"


def domain_folders(root: Path, split: str) -> list[tuple[Path, Path]]:
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


def find_domains(root: Path, split: str) -> tuple[Path, Path] | None:
    """Find the folders of A and B of a split: the first candidates with images; None without any."""
    return next((both for both in domain_folders(root, split) if any(map(list_images, both))), None)


def find_pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Find the pairs of a split; empty if there is no such split.

    The first of these layouts that holds images is used: ``split/A`` and ``split/B``; ``split`` with A | B
    side by side; ``splitA`` and ``splitB``; ``split_A`` and ``split_B``; ``A/split`` and ``B/split``.

    Raises:
        UserError: The images of two folders can't be paired by name.
    """
    within, *beside = domain_folders(root, split)
    for a, b in [within, (root / split, root / split), *beside]:
        if files := list_images(a) or list_images(b):
            return [(file, file) for file in files] if a == b else pair_by_name(a, b)
    return []


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
