"""Pictures as a model reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile
from torch import Tensor

from lightning_gancompress.data.labels import Labels, reader_of
from lightning_gancompress.data.options import IMAGE_MODES
from lightning_gancompress.data.transforms import Array, ImageReader
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.schema import items
from lightning_gancompress.translation.model import ImageModel
from lightning_gancompress.translation.sizes import Plan

Picture = str | Path | Image.Image | Array


@dataclass(frozen=True)
class Source:
    """A decoded picture, upright, and its name for messages."""

    image: Image.Image
    name: str


class Sources:
    """Reads pictures for a model: files, PIL images and arrays.

    Args:
        model: The model, whose record says whether they are pictures or label maps.

    Raises:
        UserError: Its input is nothing that image files have.
    """

    def __init__(self, model: ImageModel) -> None:
        self.reader = _reader(model)

    def open(self, picture: Picture) -> Source:
        """Decode a picture.

        Args:
            picture: A file; a PIL image; or an array of 8 bits, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). Of
                label maps of numbers also one of other integers, (H, W).

        Raises:
            UserError: It is none.
        """
        if isinstance(picture, str | Path):
            path = user_path(picture)
            if not path.is_file():
                raise UserError(f"There is no image {path}: check the path.")
            return Source(self.reader.read(path), str(path))
        if isinstance(picture, np.ndarray):
            return Source(self.reader.convert(_from_array(picture), "from an array"), "from an array")
        if isinstance(picture, Image.Image):
            opened = picture.filename if isinstance(picture, ImageFile.ImageFile) else ""
            name = str(opened) or f"from a PIL image of mode {picture.mode}"
            return Source(self.reader.convert(picture, name), name)
        raise UserError(
            f"A {type(picture).__name__} can't be translated: give a path, a PIL image, an array of 8 bits "
            "(height, width, channels), or a list of these."
        )

    def pixels(self, source: Source, plan: Plan) -> Array:
        """The pixels (C, H, W) that the model reads, which `encode` maps to its input."""
        size = plan.transform.size
        pixels = plan.transform.cut(self.reader.pixels(source.image, size, source.name))
        (_, height, width), (right, bottom) = pixels.shape, plan.work
        if (width, height) != plan.work:
            pixels = np.pad(pixels, ((0, 0), (0, bottom - height), (0, right - width)), "reflect")
        return pixels

    def encode(self, pixels: Array) -> Tensor:
        """The input of the model for some pixels, (C', H, W)."""
        return self.reader.encode(pixels)


def _from_array(array: Array) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    pixels = array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)))
    indices = array.ndim == 2 and array.dtype.kind in "iu"
    if not array.size or not (pixels or indices):
        raise UserError(
            f"An array {array.shape} of {array.dtype} is no picture: give one of 8 bits (uint8), "
            "(height, width) or (height, width, 3)."
        )
    return Image.fromarray(array if pixels else array.astype(np.int32))


def _reader(model: ImageModel) -> ImageReader:
    labels, channels = _labels(model.path, model.preprocessing), model.in_channels
    if labels is None and channels not in IMAGE_MODES:
        raise UserError(
            f"{model.path} reads images of {channels} channels, and pictures have 1 or 3: call "
            "load_generator or open_model with tensors of yours."
        )
    reader = reader_of(channels if labels is None else 3, labels, "labels")
    if reader.channels != channels:
        raise UserError(
            f"{model.path} reads images of {channels} channels, and the label maps of its preprocessing give "
            f"{reader.channels}: the file is damaged."
        )
    return reader


def _labels(path: Path, record: Mapping[str, Any]) -> Labels | None:
    if not record.get("labels"):
        return None
    try:
        return Labels(**dict(items(record["labels"], "preprocessing.labels")))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} has a damaged description ({error}): copy it again.") from error
