"""Decoding, resizing, cropping and flipping of images, as in pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from lightning_gancompress.data.options import IMAGE_MODES
from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Pixels, check_fields

Read = Callable[[Path], Image.Image]
Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]


class ImageError(UserError):
    """An image that can't be used, with a message that survives a loader's worker process.

    PyTorch rebuilds a worker's exception from its formatted traceback, whose last line has the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{ImageError.__name__}: ")[2].strip())


@dataclass(frozen=True)
class Transform:
    """Resizes, crops and flips an image, in this order; the same for both images of a pair. In pixels."""

    size: tuple[int, int]
    box: tuple[int, int, int, int] | None = None
    flip: bool = False

    def __call__(self, image: Image.Image) -> Tensor:
        """Map an image to a float tensor ``(C, H, W)`` in [-1, 1]."""
        return normalised(np.array(self.place(image, Image.Resampling.BICUBIC)))

    def place(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        """Resize, crop and flip an image."""
        if image.size != self.size:
            image = image.resize(self.size, resample)
        if self.box is not None:
            image = image.crop(self.box)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else image


def normalised(pixels: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    """Map pixels (H, W) or (H, W, C) of 0..255 to a float tensor (C, H, W) in [-1, 1]."""
    tensor = torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
    # the operations of ToTensor and Normalize in the same order, for bitwise equal results
    return tensor.contiguous().float().div_(255).sub_(0.5).div_(0.5)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing options of pytorch-CycleGAN-and-pix2pix (``data/base_dataset.py``). Sizes in pixels.

    For evaluation, images are resized to ``crop_size`` instead of ``load_size``, cropped in the centre and
    never flipped. Without a crop, sizes are rounded to a multiple of 4, as for its ``none``.
    """

    preprocess: Preprocess = "resize_and_crop"
    load_size: Pixels = 286
    crop_size: Pixels = 256
    flip: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if self.preprocess.endswith("_and_crop") and self.crop_size > self.load_size:
            raise UserError(
                f"crop_size {self.crop_size} is larger than load_size {self.load_size}: raise load_size or "
                "lower crop_size."
            )

    def transform(
        self, size: tuple[int, int], path: Path | str, random: np.random.Generator | None = None
    ) -> Transform:
        """The transform of an image of a size (width, height); without ``random`` that of evaluation.

        Raises:
            ImageError: The image of ``path`` is smaller than the crop.
        """
        width, height = loaded = self.loaded_size(size, self.crop_size if random is None else self.load_size)
        box = None
        if "crop" in self.preprocess:
            room = width - self.crop_size, height - self.crop_size
            if min(room) < 0:
                raise ImageError(
                    f"Image {path} is {size[0]}x{size[1]}, smaller than crop_size {self.crop_size}: lower "
                    "crop_size or set preprocess to resize_and_crop."
                )
            x, y = (int(r // 2 if random is None else random.integers(r + 1)) for r in room)
            box = (x, y, x + self.crop_size, y + self.crop_size)
        return Transform(loaded, box, self.flip and random is not None and bool(random.random() < 0.5))

    def loaded_size(self, size: tuple[int, int], load_size: int) -> tuple[int, int]:
        """Width and height before the crop."""
        width, height = size
        if self.preprocess == "resize_and_crop":
            return load_size, load_size
        if self.preprocess.startswith("scale_width") and not (
            width == load_size and height >= self.crop_size
        ):
            width, height = load_size, int(max(load_size * height / width, self.crop_size))
        if "crop" not in self.preprocess:
            width, height = max(4, round(width / 4) * 4), max(4, round(height / 4) * 4)
        return width, height


class ImageReader(ABC):
    """How the image files of one side of the data become tensors.

    Attributes:
        channels: Channels of the tensors.
        option: Name of the data module's option that makes these images label maps.
    """

    channels: int
    option: str

    @property
    @abstractmethod
    def read(self) -> Read:
        """The function that decodes a file; two sides in one file are decoded once if it is the same."""

    @abstractmethod
    def tensor(self, image: Image.Image, transform: Transform, path: Path | str) -> Tensor:
        """Transform an image of `read`, or a part of it, to a tensor (C, H, W) float32 in [-1, 1]."""


@dataclass(frozen=True)
class PictureReader(ImageReader):
    """Pictures of 1 (greyscale) or 3 (RGB) channels, to which others are converted."""

    channels: int
    option: str

    @property
    def read(self) -> Read:
        """Pictures have 8 bits a channel."""
        return read_image

    def tensor(self, image: Image.Image, transform: Transform, path: Path | str) -> Tensor:
        """Transform an image."""
        return transform(image.convert(IMAGE_MODES[self.channels]))


def decode(path: Path) -> Image.Image:
    """Decode an image file.

    Raises:
        ImageError: The file can't be read or decoded.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"Image {path} can't be decoded ({error}): replace or remove it.") from error
    return image


def read_image(path: Path) -> Image.Image:
    """Decode an image file with 8 bits a channel.

    Raises:
        ImageError: The file can't be read, decoded, or has more than 8 bits a channel.
    """
    image = decode(path)
    if image.mode[0] in "IF":
        raise ImageError(
            f"Image {path} has more than 8 bits a channel (mode {image.mode}): convert it to 8 bits."
        )
    return image


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples to a batch.

    Raises:
        ImageError: The samples differ in size.
    """
    for image, path in (("source", "path"), ("target", "path"), ("A", "path_A"), ("B", "path_B")):
        shapes = {sample[image].shape[1:]: sample[path] for sample in samples if image in sample}
        if len(shapes) > 1:
            (a, path_a), (b, path_b) = list(shapes.items())[:2]
            raise ImageError(
                f"Images of one batch differ in size ({path_a}: {a[1]}x{a[0]}, {path_b}: {b[1]}x{b[0]}): set "
                "batch_size and eval_batch_size to 1, or a preprocess with crop."
            )
    batch: dict[str, Any] = default_collate(list(samples))
    return batch
