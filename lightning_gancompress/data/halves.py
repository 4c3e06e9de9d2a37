"""Evidence that pictures are pairs A | B side by side, not single pictures.

Two things tell. Where A and B meet, neighbouring columns differ more than elsewhere nearby; in a photo the
middle is no special place. And the contours of A and B coincide, which those of the halves of a photo don't.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from lightning_gancompress.data.listing import evenly
from lightning_gancompress.data.reading import ImageError, read_header, read_image

Array = np.ndarray[Any, np.dtype[Any]]
Verdict = Literal["pairs", "single", "unclear"]

SAMPLE = 16  # pictures that are looked at
LEAST = 32  # pixels: with less height, or halves less wide, nothing can be told
# Measured on 100 pairs each of facades, Cityscapes, and photos beside their edges, greyscale and blurred
# copies, and as many photos and label maps cut to the aspects 1, 4:3 and 2, in 3000 samples of 16 each: no
# pairs were refused and no photos taken for pairs, and of samples of label maps alone at most 0.2 %
STEEPEST = 0.5  # share of pictures whose middle beats 97 % of its surroundings; pairs >= 0.8, others <= 0.06
ALIKE = 0.12  # mean correlation of the contours of both halves; pairs >= 0.2 (0.18 at 32 pixels), others <= 0


def judge_halves(paths: Sequence[Path]) -> Verdict:
    """Whether pictures show pairs side by side, by those of an evenly spaced sample that can be read.

    Raises:
        ImageError: None can be read.
    """
    pictures, broken = [], []
    for path in evenly(paths, SAMPLE):
        try:
            pictures.append(read_image(path))
        except ImageError as error:  # told by who reads all files
            broken.append(error)
    if broken and not pictures:
        raise broken[0]
    clear = [picture for picture in pictures if picture.width >= 2 * LEAST and picture.height >= LEAST]
    if not clear:
        return "unclear"
    steep = np.mean([_steepness(picture) > 0.97 for picture in clear])
    alike = np.mean([_likeness(picture) for picture in clear])
    return "pairs" if steep > STEEPEST or alike > ALIKE else "single"


def doubt_of_pairs(paths: Sequence[Path]) -> str | None:
    """A warning where single images are more likely pairs A | B side by side, by some of them."""
    with suppress(ImageError):
        sizes = [read_header(path).size for path in evenly(paths, SAMPLE)]
        if all(width == 2 * height for width, height in sizes) and judge_halves(paths) == "pairs":
            folder = os.path.commonpath([path.parent for path in paths])
            return (
                f"The images of {folder} look like pairs A | B side by side, but are read whole: cut them "
                "apart, unless that is meant."
            )
    return None


def _steepness(picture: Image.Image) -> float:
    """Share of the columns within an eighth of the width whose step is smaller than that of the middle."""
    rows = np.linspace(0, picture.height - 1, min(picture.height, 512)).astype(int)
    middle, reach = picture.width // 2, picture.width // 8
    strip = picture.convert("RGB").crop((middle - reach - 1, 0, middle + reach + 1, picture.height))
    steps = np.abs(np.diff(np.asarray(strip, np.float32)[rows], axis=1)).mean((0, 2))
    around = np.delete(steps, (reach - 1, reach, reach + 1))
    return float((steps[reach] > around).mean())


def _likeness(picture: Image.Image) -> float:
    """Correlation of the contours of the left and the right half."""
    half, height = picture.width // 2, picture.height
    left = _contours(picture.crop((0, 0, half, height)))
    right = _contours(picture.crop((picture.width - half, 0, picture.width, height)))
    return float((left * right).sum())


def _contours(half: Image.Image) -> Array:
    """Contours (height, width) of a half, up to 63, without what all rows or columns share; norm 1."""
    # never enlarged: the edges of enlarged pixels are at the same places in all pictures
    size = min(64, half.width), min(64, half.height)
    grey = np.asarray(half.convert("L").resize(size, Image.Resampling.BOX), np.float32)
    across, down = np.abs(np.diff(grey, axis=1))[:-1], np.abs(np.diff(grey, axis=0))[:, :-1]
    edges = np.sqrt(across + down)
    edges = edges - edges.mean(0, keepdims=True) - edges.mean(1, keepdims=True) + edges.mean()
    return np.asarray(edges / (np.linalg.norm(edges) + 1e-6))
