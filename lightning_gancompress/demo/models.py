"""The models of the demo, and what they make of an uploaded picture."""

from __future__ import annotations

import io
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageFile
from torch import Tensor

from lightning_gancompress.data.labels import as_picture, labels_in
from lightning_gancompress.data.pictures import to_picture
from lightning_gancompress.data.reading import open_image
from lightning_gancompress.data.transforms import Transform
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.metrics import BYTES, MACS_EXACT
from lightning_gancompress.networks.images import LARGEST_SIDE
from lightning_gancompress.pruning import count_macs
from lightning_gancompress.translation import ImageModel, Translator
from lightning_gancompress.translation.onnx_model import OnnxModel
from lightning_gancompress.translation.sizes import ResultSize, plan
from lightning_gancompress.translation.sources import Sources
from lightning_gancompress.translation.torch_model import TorchModel

MEGA = 1_000_000
MOST_PIXELS = 25 * MEGA  # of a picture: decoded, and as a result, it takes some 75 MB
MOST_WORK = 2.5 * MEGA  # on which a model works: a convolution of 64 channels then takes 640 MB
NAME = "upload"  # of a picture, in messages


@dataclass(frozen=True)
class Made:
    """A result: a file of `media_type`, and how long the model took for it."""

    content: bytes
    media_type: str
    seconds: float = 0


class _Timed(ImageModel):
    """A model that adds up the seconds that its calls take: the median of some, where they are short."""

    def __init__(self, model: ImageModel) -> None:
        super().__init__(model.path, model.preprocessing, model.in_channels, model.fixed_size)
        self.timed, self.multiple, self.seconds = model, model.multiple, 0.0

    def run(self, images: Tensor) -> Tensor:
        """Run the model."""
        times: list[float] = []
        while len(times) < 7 and sum(times) < 0.2:
            start = time.perf_counter()
            result = self.timed.run(images)
            times.append(time.perf_counter() - start)
        self.seconds += statistics.median(times)
        return result


class DemoModel:
    """A model file of the demo.

    Args:
        role: `student` or `teacher`.
        path: Any file that `Translator` takes.

    Attributes:
        file: Name of the file.
        figures: MACs for an image of the size of its training, 0 where the file doesn't tell; bytes of an
            ONNX file, or of the tensors of a network of torch. By the names of `evaluation.metrics`.

    Raises:
        UserError: It is no such file, or fails on an image of the size of its training.
    """

    def __init__(self, role: str, path: str | Path) -> None:
        self._translator = Translator(path)
        model = self._translator.model
        self.role, self.file = role, model.path.name
        self.figures = {MACS_EXACT: _macs(model), BYTES: _bytes(model)}
        self._sources = Sources(model)
        self._timed = self._translator.model = _Timed(model)
        self._timed(_blank(model))  # what the first run of all sets up isn't part of any latency

    def source(self, upload: bytes, side: int = LARGEST_SIDE) -> Made:
        """A picture as the model reads it, as JPEG; label maps in colours.

        Args:
            upload: The file.
            side: Longest side of the result in pixels; smaller pictures keep their size.

        Raises:
            UserError: It can't be read.
        """
        source, reader = self._sources.open(_opened(upload)), self._sources.reader
        shown = source.image
        if labels_in(self._timed.preprocessing):
            tensor = reader.tensor(shown, Transform(shown.size), NAME)
            shown = to_picture(as_picture(tensor[None], self._timed.preprocessing)[0])
        shown.thumbnail((side, side))
        return Made(_encoded(shown, "JPEG", quality=92), "image/jpeg")

    def translate(self, upload: bytes, size: ResultSize) -> Made:
        """Translate a picture, to a PNG of its size.

        Args:
            upload: The file.
            size: See `Translator.translate`.

        Raises:
            UserError: It can't be read, or isn't for this model.
        """
        picture, model = _opened(upload), self._timed
        model.seconds = 0
        try:
            work = plan(model, self._sources.open(picture).image.size, size, NAME).work
            _require_few(work, MOST_WORK, "for the model")
            result = self._translator.translate(picture, size=size)
        except UserError as error:  # folders of this machine are nobody's business
            raise UserError(str(error).replace(str(model.path), model.path.name)) from error
        return Made(_encoded(result, "PNG", compress_level=3), "image/png", model.seconds)


def _opened(upload: bytes) -> ImageFile.ImageFile:
    picture = open_image(io.BytesIO(upload), NAME)
    _require_few(picture.size, MOST_PIXELS, "of a picture")
    return picture


def _require_few(sides: tuple[int, int], most: float, what: str) -> None:
    if sides[0] * sides[1] > most or max(sides) > LARGEST_SIDE:
        raise UserError(
            f"{sides[0]}x{sides[1]} pixels {what} are too many, where {most / MEGA:g} megapixels and "
            f"{LARGEST_SIDE} a side are the most: shrink the picture."
        )


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _blank(model: ImageModel) -> Tensor:
    return torch.zeros(1, model.in_channels, *model.model_size)


def _bytes(model: ImageModel) -> int:
    if isinstance(model, TorchModel):
        return sum(tensor.nbytes for tensor in model.network.state_dict().values())
    return model.bytes


def _macs(model: ImageModel) -> int:
    """MACs for an image; 0 where the file doesn't tell."""
    if isinstance(model, TorchModel):
        return count_macs(model.network, [_blank(model).to(model.device)])
    if isinstance(model, OnnxModel):
        recorded = model.session.get_modelmeta().custom_metadata_map.get("cost", "{}")
        try:
            macs = json.loads(recorded).get("macs_exact")
        except (ValueError, AttributeError, RecursionError):
            return 0
        return macs if isinstance(macs, int) else 0
    return 0
