"""Pictures of a folder as inputs of a model."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lightning_gancompress.data.listing import evenly
from lightning_gancompress.translation.model import ImageModel
from lightning_gancompress.translation.sizes import plan
from lightning_gancompress.translation.sources import Sources
from lightning_gancompress.translation.translator import pictures_in


def model_inputs(model: ImageModel, folder: str | Path, most: int) -> list[Tensor]:
    """Inputs (1, C, H, W) for pictures below a folder, with the model's own preprocessing.

    Args:
        model: The model.
        folder: The folder.
        most: Greatest number of pictures; of more, evenly spaced ones are taken.

    Raises:
        UserError: The folder has no pictures, or one of them can't be read, or isn't for this model.
    """
    sources, inputs = Sources(model), []
    for path in evenly(pictures_in(folder), most):
        source = sources.open(path)
        pixels = sources.pixels(source, plan(model, source.image.size, "model", source.name))
        inputs.append(sources.encode(pixels)[None])
    return inputs
