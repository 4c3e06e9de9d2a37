"""Images that are there twice: the same files, the same pixels, or nearly the same looks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

NEAR = 3  # bits of 64 by which the looks of an image may differ
PLAIN = 8  # images with fewer rising or falling steps than this look like too many others
BLOCK = 256  # images that are compared at a time
_ONES = np.array([bin(value).count("1") for value in range(256)], np.uint8)


class Looks(NamedTuple):
    """What tells the looks of a sample.

    Attributes:
        pixels: Digest of its pixels.
        steps: Per image 64 bits: where brightness rises from left to right in an image of 9x8 pixels (dHash).
        plain: Whether an image has too few of these to be told from others.
    """

    pixels: bytes
    steps: tuple[int, ...]
    plain: bool


def looks_of(images: Sequence[Image.Image]) -> Looks:
    """The looks of the images of a sample."""
    digest, steps, plain = hashlib.sha256(), [], False
    for image in images:
        digest.update(repr((image.mode, image.size)).encode() + image.tobytes())
        grey = image.convert("L").resize((9, 8), Image.Resampling.BOX)
        values = np.asarray(grey, np.int16)
        rises, falls = (values[:, 1:] > values[:, :-1]), (values[:, 1:] < values[:, :-1])
        plain |= bool(min(rises.sum(), falls.sum()) < PLAIN)
        steps.append(int.from_bytes(np.packbits(rises).tobytes(), "big"))
    return Looks(digest.digest(), tuple(steps), plain)


Found = list[tuple[tuple[Path, Path], bool]]  # pairs of files, and whether their pixels are equal


def twins(one: Sequence[tuple[Path, Looks]], other: Sequence[tuple[Path, Looks]]) -> Found:
    """The images of `other` that are in `one` too, with the first there: of equal pixels, or nearly alike.

    Returns:
        Pairs (file of `other`, file of `one`), and whether their pixels are equal.
    """
    first = {looks.pixels: path for path, looks in reversed(one)}
    found: Found = [((path, first[looks.pixels]), True) for path, looks in other if looks.pixels in first]
    rest = [(path, looks) for path, looks in other if looks.pixels not in first and not looks.plain]
    candidates = [(path, looks) for path, looks in one if not looks.plain]
    if not rest or not candidates:
        return found
    table = _bits(looks for _, looks in candidates)
    for start in range(0, len(rest), BLOCK):
        block = rest[start : start + BLOCK]
        bits = _bits(looks for _, looks in block)
        # all images of a sample must be near: those of label maps alone often are
        distance = np.zeros((len(block), len(candidates)), np.uint8)
        for image in range(bits.shape[1]):
            differing = bits[:, None, image] ^ table[None, :, image]
            distance = np.maximum(distance, _ONES[differing].sum(-1, dtype=np.uint8))
        for row, column in enumerate(distance.argmin(1)):
            if distance[row, column] <= NEAR:
                found.append(((block[row][0], candidates[column][0]), False))
    return found


def _bits(looks: Iterable[Looks]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The steps of samples as bytes (N, images, 8)."""
    return np.array([[list(steps.to_bytes(8, "big")) for steps in each.steps] for each in looks], np.uint8)


def same_files(one: Iterable[Path], other: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Pairs (file of `other`, file of `one`) with the same bytes; only files of equal sizes are read."""
    by_size: dict[int, list[Path]] = {}
    for path in one:
        with suppress(OSError):
            by_size.setdefault(path.stat().st_size, []).append(path)
    digests: dict[int, dict[bytes, Path]] = {}
    found = []
    for path in other:
        with suppress(OSError):
            size = path.stat().st_size
            if size not in by_size:
                continue
            if size not in digests:
                digests[size] = {_digest(twin): twin for twin in reversed(by_size[size])}
            if (twin := digests[size].get(_digest(path))) is not None:
                found.append((path, twin))
    return found


def copies(samples: Iterable[tuple[Path, ...]]) -> list[tuple[Path, Path]]:
    """The first files of samples that have the same bytes as an earlier one, and of that one.

    Only files of samples whose sizes are those of another are read.
    """
    by_size: dict[tuple[int, ...], list[tuple[Path, ...]]] = {}
    for files in dict.fromkeys(samples):
        with suppress(OSError):
            by_size.setdefault(tuple(path.stat().st_size for path in files), []).append(files)
    first: dict[tuple[bytes, ...], Path] = {}
    found = []
    for files in chain(*(group for group in by_size.values() if len(group) > 1)):
        with suppress(OSError):
            twin = first.setdefault(tuple(map(_digest, files)), files[0])
            if twin != files[0]:
                found.append((files[0], twin))
    return found


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
