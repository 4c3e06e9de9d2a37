"""Resizing, cropping and flipping of images, as in pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from lightning_gancompress.data.options import IMAGE_MODES, Sides, both
from lightning_gancompress.data.reading import ImageError, as_rgb, read_image
from lightning_gancompress.errors import UserError
from lightning_gancompress.options import check_fields

# of one image after resizing; Pillow refuses files of more
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)

Array = np.ndarray[Any, np.dtype[Any]]
Read = Callable[[Path], Image.Image]
Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]


@dataclass(frozen=True)
class Transform:
    """Resizes, crops and flips an image, in this order; the same for both images of a pair. In pixels."""

    size: tuple[int, int]
    box: tuple[int, int, int, int] | None = None
    flip: bool = False

    def cut(self, pixels: Array) -> Array:
        """Crop and flip pixels (C, H, W) that have been resized."""
        if self.box is not None:
            left, top, right, bottom = self.box
            pixels = pixels[:, top:bottom, left:right]
        return pixels[:, :, ::-1] if self.flip else pixels


def resized(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Array:
    """Pixels (C, H, W) of an image, resized to width and height."""
    pixels = np.array(image if image.size == size else image.resize(size, resample))
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def normalised(pixels: Array) -> Tensor:
    """Map pixels (C, H, W) of 0..255 to a float tensor (C, H, W) in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels))
    # the operations of ToTensor and Normalize in the same order, for bitwise equal results
    return tensor.float().div_(255).sub_(0.5).div_(0.5)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing options of pytorch-CycleGAN-and-pix2pix (``data/base_dataset.py``). Sizes in pixels.

    A size is a side, or ``[height, width]``. For evaluation, images are resized to ``crop_size`` instead of
    ``load_size``, cropped in the centre and never flipped. Without a crop, sizes are rounded to a multiple of
    4, as for its ``none``.
    """

    preprocess: Preprocess = "resize_and_crop"
    load_size: Sides = 286
    crop_size: Sides = 256
    flip: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        (load_height, load_width), (height, width) = both(self.load_size), both(self.crop_size)
        # scale_width makes images at least as high as the crop
        low = self.preprocess == "resize_and_crop" and height > load_height
        if self.preprocess.endswith("_and_crop") and (low or width > load_width):
            larger = f"[{round(height * 286 / 256)}, {round(width * 286 / 256)}]"
            raise UserError(
                f"data.crop_size {self.crop_size} is larger than data.load_size {self.load_size}: raise "
                f"load_size{'' if height == width else f', for example to {larger}'}, or lower crop_size."
            )

    @property
    def needs_sizes(self) -> bool:
        """Whether the size of an image decides that of the result, or whether it can be used at all."""
        return not self.preprocess.endswith("_and_crop")

    def transform(
        self, size: tuple[int, int], path: Path | str, random: np.random.Generator | None = None
    ) -> Transform:
        """The transform of an image of a size (width, height); without ``random`` that of evaluation.

        Raises:
            ImageError: The image of ``path`` is smaller than the crop, or would become huge.
        """
        width, height = loaded = self.resized(size, path, augment=random is not None)
        box = None
        if "crop" in self.preprocess:
            crop_height, crop_width = both(self.crop_size)
            room = width - crop_width, height - crop_height
            if min(room) < 0:
                raise ImageError(
                    f"Image {path} is {size[0]}x{size[1]}, smaller than data.crop_size {self.crop_size}: "
                    "lower it, or set data.preprocess to resize_and_crop."
                )
            x, y = (int(r // 2 if random is None else random.integers(r + 1)) for r in room)
            box = (x, y, x + crop_width, y + crop_height)
        return Transform(loaded, box, self.flip and random is not None and bool(random.random() < 0.5))

    def resized(self, size: tuple[int, int], path: Path | str, augment: bool) -> tuple[int, int]:
        """Width and height before the crop, of an image of a size (width, height).

        Raises:
            ImageError: The image of ``path`` would become huge.
        """
        width, height = self.loaded_size(size, augment)
        if width * height > MOST_PIXELS:
            raise ImageError(
                f"Image {path} is {size[0]}x{size[1]}, and data.preprocess {self.preprocess} would make it "
                f"{width}x{height}: remove it, or set data.preprocess to resize_and_crop."
            )
        return width, height

    def final_size(self, size: tuple[int, int], path: Path | str = "") -> tuple[int, int]:
        """Width and height of the result in evaluation, for an image of a size (width, height)."""
        transform = self.transform(size, path)
        return both(self.crop_size)[::-1] if transform.box else transform.size

    def trained_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the result in training, for an image of a size (width, height)."""
        return both(self.crop_size)[::-1] if "crop" in self.preprocess else self.loaded_size(size, True)

    def loaded_size(self, size: tuple[int, int], augment: bool) -> tuple[int, int]:
        """Width and height before the crop, in training with ``augment``."""
        load_height, load_width = both(self.load_size if augment else self.crop_size)
        if self.preprocess == "resize_and_crop":
            return load_width, load_height
        width, height = size
        crop_height = both(self.crop_size)[0]
        if self.preprocess.startswith("scale_width") and not (width == load_width and height >= crop_height):
            width, height = load_width, int(max(load_width * height / width, crop_height))
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
    def kind(self) -> str:
        """What the tensors are, in words."""

    @property
    @abstractmethod
    def read(self) -> Read:
        """The function that decodes a file; two sides in one file are decoded once if it is the same."""

    @abstractmethod
    def convert(self, image: Image.Image, name: Path | str) -> Image.Image:
        """An image that Pillow has opened, as `read` returns those of files; `name` is for messages."""

    @property
    @abstractmethod
    def planes(self) -> tuple[int, type[np.generic]]:
        """Number C and type of the planes of `pixels`."""

    @abstractmethod
    def pixels(self, image: Image.Image, size: tuple[int, int], path: Path | str) -> Array:
        """Check an image of `read`, or a part of it, and resize it to width and height: (C, H, W)."""

    @abstractmethod
    def encode(self, pixels: Array) -> Tensor:
        """Map pixels to a tensor (C, H, W) float32 in [-1, 1]."""

    def tensor(self, image: Image.Image, transform: Transform, path: Path | str) -> Tensor:
        """Transform an image of `read`, or a part of it, to a tensor (C, H, W) float32 in [-1, 1]."""
        return self.encode(transform.cut(self.pixels(image, transform.size, path)))


@dataclass(frozen=True)
class PictureReader(ImageReader):
    """Pictures of 1 (greyscale) or 3 (RGB) channels, to which others are converted."""

    channels: int
    option: str

    @property
    def kind(self) -> str:
        """Greyscale or RGB."""
        return {1: "greyscale", 3: "RGB"}[self.channels]

    @property
    def read(self) -> Read:
        """Pictures have 8 bits a channel."""
        return read_image

    def convert(self, image: Image.Image, name: Path | str) -> Image.Image:
        """An image that Pillow has opened, as `read` returns those of files."""
        return as_rgb(image, name)

    @property
    def planes(self) -> tuple[int, type[np.generic]]:
        """Channels of 8 bits."""
        return self.channels, np.uint8

    def pixels(self, image: Image.Image, size: tuple[int, int], path: Path | str) -> Array:
        """Resize an image."""
        return resized(image.convert(IMAGE_MODES[self.channels]), size, Image.Resampling.BICUBIC)

    def encode(self, pixels: Array) -> Tensor:
        """Map 0..255 to [-1, 1]."""
        return normalised(pixels)


def different_sizes(sizes: Mapping[str, tuple[int, int]], remedy: str) -> ImageError:
    """The error for images of one batch that differ in (width, height), given by path."""
    found = ", ".join(f"{path}: {width}x{height}" for path, (width, height) in sizes.items())
    return ImageError(f"Images of one batch differ in size ({found}): {remedy}.")


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples to a batch; the messages of those with `unreadable` in place of images become a list.

    Raises:
        ImageError: The samples differ in size.
    """
    unreadable = [sample["unreadable"] for sample in samples if "unreadable" in sample]
    samples = [sample for sample in samples if "unreadable" not in sample]
    for image, path in (("source", "path"), ("target", "path"), ("A", "path_A"), ("B", "path_B")):
        shapes = {sample[image].shape[1:]: sample[path] for sample in samples if image in sample}
        if len(shapes) > 1:
            sizes = {path: (width, height) for (height, width), path in list(shapes.items())[:2]}
            raise different_sizes(sizes, "set data.batch_size and data.eval_batch_size to 1, or resize them")
    batch: dict[str, Any] = default_collate(samples) if samples else {}
    return {**batch, "unreadable": unreadable} if unreadable else batch
