"""The pictures of a grid, to be embedded in the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageChops

from lightning_gancompress.reporting.grid import cut

ROWS = 6  # of pictures, per direction
QUALITY = 90  # of WebP: a picture of 256 pixels takes some 20 kB
AMPLIFIED = 3


class Picture(NamedTuple):
    """A picture of the page: the name of its column, its data URI, and its size in pixels."""

    name: str
    uri: str
    width: int
    height: int


def pictures(grid: Path) -> list[list[Picture]]:
    """Rows spread over a grid, with the difference of teacher and student at the end of each."""
    drawn = cut(grid)
    count = min(ROWS, len(drawn))
    rows = [drawn[number * len(drawn) // count] for number in range(count)]
    for row in rows:
        if "teacher" in row and "student" in row:
            row["difference"] = difference(row["teacher"], row["student"])
    return [[Picture(name, data_uri(p), p.width, p.height) for name, p in row.items()] for row in rows]


def origin(grid: Path) -> str:
    """The origin of a grid as text: test or validation."""
    return "Images of the test" if grid.parent.name == "test" else f"Images of the validation, {grid.stem}"


def difference(one: Image.Image, other: Image.Image) -> Image.Image:
    """Absolute difference times `AMPLIFIED`; black where the pictures are equal."""
    return ImageChops.difference(one, other).point(lambda value: min(255, AMPLIFIED * value))


def data_uri(picture: Image.Image) -> str:
    """A picture as a data URI of a WebP file."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
