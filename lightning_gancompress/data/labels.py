"""Label maps: images whose pixels are classes, read without interpolation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_gancompress.data.options import IMAGE_MODES
from lightning_gancompress.data.reading import ImageError, as_rgb, decode, read_image, upright
from lightning_gancompress.data.transforms import (
    Array,
    ImageReader,
    PictureReader,
    Preprocessing,
    Read,
    normalised,
    resized,
)
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.options import Range, check_fields

if TYPE_CHECKING:
    from lightning_gancompress.data.contract import PreprocessingRecord  # loads Lightning

Encoding = Literal["palette", "one_hot", "colors"]

Classes = Annotated[int, Range(2, 2**10)]  # a picture of 256 pixels has 268 MB in that many channels
Value = Annotated[int, Range(0, 2**16 - 1)]  # of a pixel
VOID = 255  # the usual value of pixels without a class
CHANNEL_OPTIONS = {"labels": "in_channels", "target_labels": "out_channels"}


@dataclass(frozen=True)
class Labels:
    """How label maps are read. They are resized by nearest neighbour and never interpolated.

    The files of `palette` and `one_hot` hold the number of a class per pixel: greyscale of 8 or 16 bits, or
    the indices of a PNG or GIF with a palette, whose colours are not used. Those of `colors` are pictures.

    Args:
        encoding: What networks read: `palette`, a fixed colour per class, the same for all files; `one_hot`,
            a channel per class, 1 where a pixel is of it, else 0; `colors`, the colours in the files.
        classes: Number of classes: a pixel's value is 0 to classes - 1. Not for `colors`.
        void: Value of pixels without a class, which become black, or 0 in all channels; null for no such
            value. If it is below `classes`, that class has no pixels.
    """

    encoding: Encoding
    classes: Classes | None = None
    void: Value | None = VOID

    def __post_init__(self) -> None:
        check_fields(self)
        if self.indexed and self.classes is None:
            raise UserError(f"labels.encoding is {self.encoding}, which needs the number of classes: set it.")
        if not self.indexed and self.classes is not None:
            raise UserError(
                f"labels.classes is {self.classes}, but encoding: colors reads colours, not classes: leave "
                "it out, or set encoding to palette or one_hot."
            )

    @property
    def indexed(self) -> bool:
        """Whether the files hold numbers of classes."""
        return self.encoding != "colors"

    @property
    def colours(self) -> list[tuple[int, int, int]]:
        """RGB of each class, 0..255: those of PASCAL VOC from its second on, so that none is black."""
        bits = [[number >> 3 * place for place in range(8)] for number in range(1, (self.classes or 0) + 1)]
        return [
            tuple(sum((bit >> c & 1) << 7 - p for p, bit in enumerate(row)) for c in range(3))  # type: ignore[misc]
            for row in bits
        ]

    def encode(self, classes: Array) -> Tensor:
        """Map values of pixels (H, W) to what networks read, (C, H, W) float32: 3 or `classes` channels."""
        count = self.classes or 0
        # the last row of a table is that of void; its number may be more than the bytes of a file hold
        known = np.where(classes == self.void, count, classes.astype(np.int64))
        if self.encoding == "one_hot":
            channels = np.eye(count, count + 1, dtype=np.float32)
            return torch.from_numpy(channels[:, known])
        table = np.array([*self.colours, (0, 0, 0)], np.uint8)
        return normalised(table[known].transpose(2, 0, 1))

    def picture(self, images: Tensor) -> Tensor:
        """Label maps as networks read them, (B, C, H, W), as pictures (B, 3, H, W) in [-1, 1]."""
        if self.encoding != "one_hot":
            return images
        table = torch.tensor([*self.colours, (0, 0, 0)], device=images.device) / 127.5 - 1
        known = torch.where(images.amax(1) > 0.5, images.argmax(1), len(table) - 1)
        return table[known].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class LabelReader(ImageReader):
    """The pixels of label maps, for one side of the data.

    Args:
        labels: How they are read.
        option: Name of the data module's option, for messages.
        colour_channels: Channels of `colors`; the other encodings have their own.
    """

    labels: Labels
    option: str
    colour_channels: int = 3

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Channels of the tensors."""
        if self.labels.encoding == "one_hot":
            return self.labels.classes or 0
        return self.colour_channels if self.labels.encoding == "colors" else 3

    @property
    def kind(self) -> str:
        """Number of classes and encoding."""
        classes = f"{self.labels.classes} classes" if self.labels.indexed else "label maps"
        return f"{classes} ({self.labels.encoding})"

    @property
    def read(self) -> Read:
        """Numbers of classes are decoded as they are."""
        return read_indices if self.labels.indexed else read_image

    def convert(self, image: Image.Image, name: Path | str) -> Image.Image:
        """An image that Pillow has opened, as `read` returns those of files."""
        return as_indices(upright(image, name), name) if self.labels.indexed else as_rgb(image, name)

    @property
    def planes(self) -> tuple[int, type[np.generic]]:
        """One plane of numbers of classes, or colours of 8 bits."""
        if not self.labels.indexed:
            return self.channels, np.uint8
        return 1, np.uint8 if max(self.labels.classes or 0, (self.labels.void or 0) + 1) <= 256 else np.int32

    def pixels(self, image: Image.Image, size: tuple[int, int], path: Path | str) -> Array:
        """Check and resize a label map.

        Raises:
            ImageError: A pixel has a value that is no class.
        """
        self.check(image, path)
        if not self.labels.indexed:
            image = image.convert(IMAGE_MODES[self.channels])
        elif image.mode == "RGB":
            image = as_indices(image, path)
        return resized(image, size, Image.Resampling.NEAREST)

    def encode(self, pixels: Array) -> Tensor:
        """Map numbers of classes to what networks read, and colours to [-1, 1]."""
        return self.labels.encode(pixels[0]) if self.labels.indexed else normalised(pixels)

    def check(self, image: Image.Image, path: Path | str) -> None:
        """Raise an ImageError if a pixel has a value that is no class."""
        if not self.labels.indexed:
            return
        plain = as_indices(image, path) if image.mode == "RGB" else image
        values, count = np.asarray(plain), self.labels.classes
        if (unknown := values[(values >= count) & (values != self.labels.void)]).size:
            value = int(unknown.max())
            raise ImageError(
                f"Label map {path} has pixels of value {value}, but data.{self.option}.classes is {count}: "
                f"raise it to {value + 1}, or set data.{self.option}.void to {value} if they have no class."
            )


def read_indices(path: Path) -> Image.Image:
    """Decode a file whose pixels are numbers of classes, as a greyscale image of 8 or 32 bits.

    One with colours stays RGB, since these may be those of a photo in its other half; `check` refuses others.

    Raises:
        ImageError: The file can't be read, or holds the noise of a lossy compression.
    """
    image = decode(path)
    coloured = image.mode in ("RGB", "RGBA") and not is_grey(np.asarray(image))
    return image.convert("RGB") if coloured and image.format != "JPEG" else as_indices(image, path)


def as_indices(image: Image.Image, name: Path | str) -> Image.Image:
    """An upright image as `read_indices` returns those of files; `name` is for messages.

    Raises:
        ImageError: It holds colours or the noise of a lossy compression.
    """
    if image.format in ("JPEG", "MPO"):
        raise ImageError(
            f"Label map {name} is a JPEG, whose compression changes classes: save it as PNG, or set encoding "
            "to colors."
        )
    values = np.asarray(image)
    if image.mode in ("LA", "PA") or (image.mode in ("RGB", "RGBA") and is_grey(values)):
        values = values[..., 0]
    if values.ndim != 2 or image.mode == "F":
        raise ImageError(
            f"Label map {name} holds colours (mode {image.mode}), not numbers of classes: set encoding to "
            "colors, or save the numbers as a greyscale PNG."
        )
    return Image.fromarray(values.astype(np.uint8 if values.max(initial=0) < 256 else np.int32))


def is_grey(values: Array) -> bool:
    """Whether pixels (H, W) or (H, W, C) have no colours."""
    return values.ndim == 2 or bool((values[..., :3] == values[..., :1]).all())


def require_pictures(labels: Labels | None, option: str, who: str) -> None:
    """Raise a UserError if images that a generator makes would have a channel per class."""
    if labels is not None and labels.encoding == "one_hot":
        raise UserError(f"data.{option}.encoding is one_hot, but {who}: set it to palette.")


def reader_of(channels: int, labels: Labels | None, option: str) -> ImageReader:
    """How the files of a side are read.

    Args:
        channels: Channels of pictures.
        labels: How label maps are read; None for pictures.
        option: Name of the option that `labels` is the value of.

    Raises:
        UserError: Label maps have another number of channels.
    """
    name = CHANNEL_OPTIONS[option]
    if labels is None:
        return PictureReader(channels, option)
    pixels = LabelReader(labels, option, channels)
    if channels not in (3, pixels.channels):  # 3 is the default
        raise UserError(
            f"data.{name} is {channels}, but data.{option} with encoding: {labels.encoding} gives "
            f"{pixels.channels} channels: leave {name} out."
        )
    return pixels


def read_source(path: str | Path, preprocessing: Mapping[str, Any]) -> Tensor:
    """Read an image file as a generator reads it outside of training.

    Args:
        path: The file.
        preprocessing: The record of a checkpoint or of a small model's description.

    Returns:
        The source (C, H, W), float32 in [-1, 1]; of one-hot label maps zeros and ones.

    Raises:
        UserError: The file can't be used.
    """
    labels, channels = labels_in(preprocessing), preprocessing.get("in_channels", 3)
    if labels is None and channels not in IMAGE_MODES:
        raise UserError(f"preprocessing has in_channels {channels}, which no image file has.")
    names = ("preprocess", "load_size", "crop_size")
    options = {name: preprocessing[name] for name in names if name in preprocessing}
    reader = reader_of(channels if labels is None else 3, labels, "labels")
    path = user_path(path)
    image = reader.read(path)
    return reader.tensor(image, Preprocessing(**options, flip=False).transform(image.size, path), path)


def record_of(*sides: ImageReader) -> PreprocessingRecord:
    """Channels and labels of sources, and maybe of targets, as checkpoints record them."""
    record: Any = {}
    for side in sides:
        record[CHANNEL_OPTIONS[side.option]] = side.channels
        if isinstance(side, LabelReader):
            record[side.option] = asdict(side.labels)
    recorded: PreprocessingRecord = record
    return recorded


def as_picture(images: Tensor, preprocessing: Mapping[str, Any]) -> Tensor:
    """Sources (B, C, H, W) to look at: label maps in colours, all others as they are."""
    labels = labels_in(preprocessing)
    return labels.picture(images) if labels else images


def labels_in(preprocessing: Mapping[str, Any]) -> Labels | None:
    """The recorded option `labels`."""
    return Labels(**preprocessing["labels"]) if preprocessing.get("labels") else None
