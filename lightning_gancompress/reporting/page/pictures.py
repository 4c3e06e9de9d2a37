"""The pictures of a grid, cut apart and embedded."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, ImageChops

GAP = 2  # pixels between pictures
HEADER = 14  # pixels: one line of the default font
QUALITY = 90  # of WebP: a picture of 256 pixels takes some 20 kB
AMPLIFIED = 3


def cut_grid(path: Path, columns: list[str], size: tuple[int, int]) -> list[dict[str, Image.Image]]:
    """The pictures of each row by column; one row of the whole grid where it isn't laid out like that.

    Args:
        path: As `ImageGrid` draws it.
        columns: Names in order.
        size: Height and width of a picture.
    """
    with Image.open(path) as file:
        grid = file.convert("RGB")
    height, width = size
    step, rest = divmod(grid.width - GAP, len(columns))
    rows, more = divmod(grid.height - HEADER - GAP, height + GAP)
    if rest or more or step < width + GAP:
        return [{"": grid}]
    return [
        {
            name: grid.crop((left, top, left + width, top + height))
            for name, left in zip(columns, range(GAP, grid.width, step), strict=False)
        }
        for top in range(HEADER + GAP, HEADER + GAP + rows * (height + GAP), height + GAP)
    ]


def difference(one: Image.Image, other: Image.Image) -> Image.Image:
    """Absolute difference, amplified: black is equal."""
    return ImageChops.difference(one, other).point(lambda value: min(255, AMPLIFIED * value))


def data_uri(picture: Image.Image) -> str:
    """A picture as text that a page can hold."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
