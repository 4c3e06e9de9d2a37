"""Files of noise, for tests that read images."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {"trainA": 5, "trainB": 11, "testA": 3, "testB": 4}


def noise(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_aligned(folder: Path, count: int, size: tuple[int, int] = (16, 8)) -> None:
    """PNG files 00.png, 01.png, ... of noise, A | B side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise(*size, seed=i).save(folder / f"{i:02}.png")
