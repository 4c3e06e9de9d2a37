"""Reading of image files: which files are images, and how their pixels become RGB or greyscale of 8 bits.

Everything in this package that reads an image reads it here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from lightning_gancompress.errors import UserError

VERSION = 2  # of the pixels; to be raised when files of any kind are read otherwise, so that caches know
# documents that Pillow hands to an interpreter, and containers of other things than pictures
_NO_PICTURES = {"EPS", "PDF", "WMF", "MPEG", "IPTC"}
_GREY, _TRANSPARENT = {"1", "L", "LA", "La"}, {"LA", "La", "PA", "RGBA", "RGBa"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTERS = (5, 6, 7, 8)  # orientations that swap width and height


class ImageError(UserError):
    """An image that can't be used, with a message that survives a loader's worker process.

    PyTorch rebuilds a worker's exception from its formatted traceback, whose last line has the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{ImageError.__name__}: ")[2].strip())


# -- which files are images --------------------------------------------------------------------------------


def formats() -> list[str]:
    """Formats that are read: those of Pillow, and of plugins registered with it, without documents."""
    Image.init()
    return _formats(len(Image.OPEN))  # plugins may come later


@cache
def _formats(registered: int) -> list[str]:
    classes = {name: factory for name, (factory, _) in Image.OPEN.items()}
    stubs = {
        name
        for name, factory in classes.items()
        if isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)
    }
    return [name for name in classes if name not in _NO_PICTURES | stubs]


def endings() -> set[str]:
    """Lower-case endings of the files that are read, such as `.jpg`."""
    readable = set(formats())
    return {ending for ending, name in Image.registered_extensions().items() if name in readable}


ENDINGS = "endings such as .jpg, .png, .webp or .tif"  # for messages: there are some sixty

# -- what a file says of itself ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded.

    Attributes:
        size: Width and height in pixels, upright.
        transparent: Whether pixels may be transparent.
        animated: Whether it has several frames.
        turned: Whether its EXIF orientation turns or mirrors it.
    """

    size: tuple[int, int]
    transparent: bool
    animated: bool
    turned: bool = False


def read_header(path: Path) -> Header:
    """Read the header of an image file.

    Raises:
        ImageError: The file is no image.
    """
    with _opened(path) as image:
        width, height = image.size
        # asking a PNG for its orientation would decode it
        known = image.format != "PNG" or "exif" in image.info
        # Pillow turns the size of a TIFF by itself
        orientation = _orientation(image) if known and image.format != "TIFF" else 1
        # a photo of a phone may bring a preview as second frame
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        size = (height, width) if orientation in _QUARTERS else (width, height)
        return Header(size, _has_alpha(image), bool(animated), orientation in _TURNS)


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # damaged EXIF data is no reason to refuse the pixels
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in _TRANSPARENT or "transparency" in image.info


def _is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has more than 8 bits a channel, as far as Pillow knows it."""
    for codec, _, _, args in getattr(image, "tile", ()):
        for arg in args if isinstance(args, tuple) else (args,):
            if isinstance(arg, str) and re.search(r"(?<!BGR);(12|16|32)", arg):
                return True
            if isinstance(arg, int) and codec.startswith("ppm") and arg > 255:
                return True
    return image.mode[0] in "IF"


# -- pixels ------------------------------------------------------------------------------------------------


def open_image(content: BinaryIO, name: str) -> ImageFile.ImageFile:
    """Open an image file that is in memory; its header is read, its pixels are not yet decoded.

    Args:
        content: The file.
        name: Its name for messages.

    Raises:
        ImageError: It is no image, or has so many pixels that Pillow refuses it.
    """
    try:
        image = Image.open(content, formats=formats())
    except UnidentifiedImageError as error:  # whose message has the address of the content
        raise _undecodable(name, "it is in no format that is read") from error
    except Exception as error:
        raise _undecodable(name, error) from error
    image.filename = name
    return image


def _undecodable(name: Path | str, reason: Exception | str) -> ImageError:
    if isinstance(reason, OSError) and reason.errno is not None:  # of the system, not of a decoder
        return ImageError(f"Image {name} can't be read ({reason.strerror}): put it back, or give the rights.")
    return ImageError(f"Image {name} can't be decoded ({reason}): replace or remove it.")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=formats()) as image:
            yield image
    except ImageError:
        raise
    except Exception as error:  # decoders raise all kinds on damaged files
        raise _undecodable(path, error) from error


def decode(path: Path, most_bits: int = 16) -> Image.Image:
    """Decode an image file, upright, in the mode of the file: palettes and transparency are kept.

    Args:
        path: The file.
        most_bits: 8 refuses files with more bits a channel, of which Pillow drops the lower ones.

    Raises:
        ImageError: The file can't be decoded, or has more bits.
    """
    with _opened(path) as image:
        return upright(image, path, most_bits)


def upright(image: Image.Image, name: Path | str, most_bits: int = 16) -> Image.Image:
    """An image that Pillow has opened, upright; `name` is for messages, `most_bits` as for `decode`.

    Raises:
        ImageError: It has more bits, or can't be decoded.
    """
    if most_bits == 8 and _is_deep(image):
        raise ImageError(
            f"Image {name} has more than 8 bits a channel, which would lose the lower ones: convert it "
            "to 8 bits, scaled as you want it."
        )
    try:
        image.load()
    except Exception as error:  # decoders raise all kinds on damaged files
        raise _undecodable(name, error) from error
    # after loading: Pillow turns some formats by itself, and then forgets their orientation
    turn = _TURNS.get(_orientation(image))
    turned = image if turn is None else image.transpose(turn)
    turned.format = image.format
    return turned


def read_image(path: Path) -> Image.Image:
    """Decode an image file as `RGB`, or `L` if it is greyscale, upright, with 8 bits a channel.

    The EXIF orientation is applied. Transparent pixels show white. Palettes, CMYK, YCbCr and LAB become
    RGB. Of an animation the first frame is read.

    Raises:
        ImageError: The file can't be decoded, has more than 8 bits a channel, or colours that are not read.
    """
    with _opened(path) as image:
        return as_rgb(image, path)


def as_rgb(image: Image.Image, name: Path | str) -> Image.Image:
    """An image that Pillow has opened as `read_image` returns those of files; `name` is for messages.

    Raises:
        ImageError: It can't be decoded, has more than 8 bits a channel, or colours that are not read.
    """
    image = upright(image, name, 8)
    mode = "L" if image.mode in _GREY else "RGB"
    try:
        image = _on_white(image) if _has_alpha(image) else image
        return image if image.mode == mode else image.convert(mode)
    except ValueError as error:
        raise ImageError(
            f"Image {name} has colours of the kind {image.mode}, which are not read: convert it to RGB."
        ) from error


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer).convert("RGB")
