from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZES = {"trainA": 5, "trainB": 11, "testA": 3, "testB": 4}


def noise(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_aligned(folder: Path, count: int, size: tuple[int, int] = (16, 8)) -> None:
    """PNG files 00.png, 01.png, ... of noise, A | B side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise(*size, seed=i).save(folder / f"{i:02}.png")


@pytest.fixture
def root(tmp_path):
    """Eleven training and five validation pairs of 8x8 pixels."""
    write_aligned(tmp_path / "train", 11)
    write_aligned(tmp_path / "val", 5)
    return tmp_path


@pytest.fixture
def domains(tmp_path):
    """Noise of 8x8 pixels, in domains of different sizes."""
    for number, (name, count) in enumerate(SIZES.items()):
        (tmp_path / name).mkdir()
        for i in range(count):
            noise(8, 8, seed=100 * number + i).save(tmp_path / name / f"{name[-1]}{i:02}.png")
    return tmp_path
