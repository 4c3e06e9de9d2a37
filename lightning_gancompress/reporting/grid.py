"""Grids of pictures in one PNG file, which also holds the box of each picture."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.schema import items, whole

GAP = 2  # pixels between pictures
HEADER = 14  # pixels: one line of the default font
LAYOUT = (
    "layout"  # text chunk of the PNG: JSON, by column the boxes (left, top, right, bottom) of its pictures
)

Row = dict[str, Image.Image]
Box = tuple[int, int, int, int]


def lay_out(columns: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Draw a grid with one named column per entry; sizes may differ, cells fit the largest picture.

    The boxes of the pictures are in `info` of the result, which `png` writes into the file.
    """
    font = ImageFont.load_default()
    pictures = [picture for column in columns.values() for picture in column]
    width = max([p.width for p in pictures] + [int(font.getlength(name)) for name in columns]) + GAP
    height = max(p.height for p in pictures) + GAP
    rows = max(map(len, columns.values()))
    grid = Image.new("RGB", (width * len(columns) + GAP, HEADER + height * rows + GAP), "white")
    boxes: dict[str, list[Box]] = {}
    for x, (name, column) in enumerate(columns.items()):
        ImageDraw.Draw(grid).text((GAP + width * x, 0), name, fill="black", font=font)
        corners = [(GAP + width * x, HEADER + GAP + height * y) for y in range(len(column))]
        for corner, picture in zip(corners, column, strict=True):
            grid.paste(picture, corner)
        boxes[name] = [(x, y, x + p.width, y + p.height) for (x, y), p in zip(corners, column, strict=True)]
    grid.info[LAYOUT] = json.dumps(boxes)
    return grid


def png(picture: Image.Image) -> bytes:
    """Encode a picture as PNG, with the boxes of a grid."""
    text, file = PngInfo(), io.BytesIO()
    if LAYOUT in picture.info:
        text.add_text(LAYOUT, picture.info[LAYOUT])
    picture.save(file, "PNG", pnginfo=text)
    return file.getvalue()


def read_boxes(layout: object, width: int, height: int) -> dict[str, list[Box]]:
    """The boxes of a grid of this size by column; raises ValueError if the layout has others."""
    boxes: dict[str, list[Box]] = {}
    for name, column in items(layout, LAYOUT):
        boxes[name] = []
        for left, top, right, bottom in column:
            whole(left, LAYOUT, 0, whole(right, LAYOUT, 1, width) - 1)
            whole(top, LAYOUT, 0, whole(bottom, LAYOUT, 1, height) - 1)
            boxes[name].append((left, top, right, bottom))
    return boxes


def cut(path: Path) -> list[Row]:
    """Read the pictures of a grid file: a list of rows, each with pictures by column.

    Grids of earlier releases have no boxes; the whole grid is returned as one picture named "".

    Raises:
        UserError: The file is no grid.
    """
    try:
        with Image.open(path) as file:
            grid, layout = file.convert("RGB"), file.info.get(LAYOUT)
        boxes = None if layout is None else read_boxes(json.loads(layout), *grid.size)
    except Exception as error:  # a damaged picture can raise any type
        raise UserError(
            f"{path} holds no grid of pictures ({first_line(error)}): remove it, or test again."
        ) from error
    if boxes is None:
        return [{"": grid}]
    rows = range(max(map(len, boxes.values()), default=0))
    return [{name: grid.crop(column[y]) for name, column in boxes.items() if y < len(column)} for y in rows]
