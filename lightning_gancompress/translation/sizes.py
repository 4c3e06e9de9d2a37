"""At which size a model works on a picture, and which size the result has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lightning_gancompress.data.options import both
from lightning_gancompress.data.reading import ImageError
from lightning_gancompress.data.transforms import MOST_PIXELS, Preprocessing, Transform
from lightning_gancompress.errors import UserError
from lightning_gancompress.translation.model import ImageModel
from lightning_gancompress.translation.tiles import Tiles

ResultSize = Literal["restored", "model", "kept"]
Sides = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class Plan:
    """What is done with a picture.

    Attributes:
        transform: Resizes it, and may crop it.
        work: Width and height at which the model works: the picture is padded to them at right and bottom.
        result: Width and height of the result; None for those that the model gives.
        tiles: The tiles that it is cut into; None leaves it whole.
    """

    transform: Transform
    work: Sides
    result: Sides | None
    tiles: Tiles | None = None


def plan(model: ImageModel, size: Sides, result: ResultSize, name: str, tiles: Tiles | None = None) -> Plan:
    """The plan for a picture.

    Args:
        model: The model.
        size: Width and height of the picture.
        result: `restored` works at the scale of the training and resizes the result to the picture's size;
            `model` gives what the model gives for images that are preprocessed as in its training; `kept`
            works on the picture at its own size.
        name: Name of the picture, for messages.
        tiles: Tiles for `kept`; smaller pictures stay whole.

    Raises:
        UserError: The model can't work at this size.
    """
    if result == "model":
        return _as_evaluated(model, size, name)
    work = size if result == "kept" else _scale_of_training(model, size)
    if work[0] * work[1] > MOST_PIXELS:
        raise ImageError(
            f"Image {name} is {size[0]}x{size[1]}, which the model would take at {work[0]}x{work[1]}: "
            "shrink it, or set size to model."
        )
    if tiles is not None and (work[1] > tiles.size[0] or work[0] > tiles.size[1] or model.multiple is None):
        height, width = tiles.padded(work[::-1])
        return Plan(Transform(work), (width, height), size, tiles)
    return Plan(Transform(work), _padded(model, work, name), size)


def options_of(model: ImageModel) -> Preprocessing:
    """The recorded preprocessing, as far as it is of image files."""
    record = model.preprocessing
    names = ("preprocess", "load_size", "crop_size")
    options = {name: record[name] for name in names if record.get(name) is not None}
    sides = both(options.get("crop_size", Preprocessing.crop_size))
    larger = [max(side, 286) for side in sides]  # where a record has a crop alone
    return Preprocessing(**{"load_size": larger, **options}, flip=False)


def _as_evaluated(model: ImageModel, size: Sides, name: str) -> Plan:
    height, width = model.model_size
    if "crop_size" not in model.preprocessing:
        return Plan(Transform((width, height)), (width, height), None)
    options = options_of(model)
    try:
        transform = options.transform(size, name)
    except ImageError as error:
        raise ImageError(
            f"Image {name} is {size[0]}x{size[1]}, which the preprocessing {options.preprocess} to "
            f"{options.crop_size} pixels can't take: set size to restored."
        ) from error
    work = options.final_size(size, name)
    if model.fixed_size is not None and work != (width, height):
        return Plan(Transform((width, height)), (width, height), None)
    return Plan(transform, work, None)


def _scale_of_training(model: ImageModel, size: Sides) -> Sides:
    height, width = model.model_size
    options = options_of(model)
    if model.fixed_size is not None or model.multiple is None or options.preprocess == "resize_and_crop":
        return width, height
    if options.preprocess.startswith("scale_width"):
        width = both(options.crop_size)[1]
        return width, max(1, round(width * size[1] / size[0]))
    return size  # as it was trained: crops, or whole pictures


def _padded(model: ImageModel, work: Sides, name: str) -> Sides:
    if work == model.model_size[::-1]:
        return work
    if model.multiple is None:
        height, width = model.model_size
        raise UserError(
            f"{model.path} takes images of {height}x{width} pixels alone, and {name} has "
            f"{work[1]}x{work[0]}: set size to restored or model."
        )
    width, height = (math.ceil(side / model.multiple) * model.multiple for side in work)
    return width, height
