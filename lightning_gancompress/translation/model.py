"""Model files that map image batches: what translation, measurements and pages ask of one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_gancompress.errors import UserError, first_line

Size = tuple[int, int]  # height and width in pixels

MULTIPLES = [1 << n for n in range(11)]  # of height and width, that networks may need
PROBE = 64  # pixels: the least side of an image with which they are tried
UNKNOWN = 256  # pixels: the side of the images of a model that records none, as upstream's


def in_batches(run: Callable[[Tensor], Tensor], images: Tensor, batch: int | None) -> Tensor:
    """What `run` makes of images: of all at once, or of as many as a file takes, the last one repeated."""
    if batch is None:
        return run(images)
    outputs = []
    for part in torch.split(images, batch):
        repeated = part[-1:].expand(batch - len(part), -1, -1, -1)
        outputs.append(run(torch.cat([part, repeated]))[: len(part)])
    return torch.cat(outputs)


class ImageModel(ABC):
    """A generator out of a file, ready to run on its device.

    Args:
        path: The file, for messages.
        preprocessing: How images become its input, as files record it; empty where the file doesn't tell.
        in_channels: Channels of its input.
        fixed_size: The only height and width that it takes; None if it takes others.

    Attributes:
        runtime: What runs it.
    """

    runtime: ClassVar[Literal["torch", "onnx", "openvino"]]

    def __init__(
        self, path: Path, preprocessing: Mapping[str, Any], in_channels: int, fixed_size: Size | None = None
    ) -> None:
        self.path, self.preprocessing = path, preprocessing
        self.in_channels, self.fixed_size = in_channels, fixed_size

    @abstractmethod
    def run(self, images: Tensor) -> Tensor:
        """As a call; errors are those of the runtime."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) on the CPU to images (B, C', H', W') float32 on the CPU, both in [-1, 1].

        One-hot label maps are zeros and ones.

        Raises:
            UserError: The model fails on images of this size.
        """
        try:
            return self.run(images)
        except UserError:
            raise
        except Exception as error:  # of any runtime, or of a user's forward
            height, width = images.shape[2:]
            raise UserError(
                f"{self.path} fails on images of {height}x{width} pixels ({first_line(error)[:300]}): choose "
                "another size, or tiles where memory is short."
            ) from error

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    @property
    def model_size(self) -> Size:
        """Height and width of its images in training; a square of 256 pixels, at least, if it isn't known."""
        recorded = self.preprocessing.get("image_size", self.preprocessing.get("crop_size"))
        if self.fixed_size is not None:
            return self.fixed_size
        if recorded is None:
            side = math.ceil(UNKNOWN / (self.multiple or 1)) * (self.multiple or 1)
            return side, side
        return (recorded[0], recorded[1]) if isinstance(recorded, list | tuple) else (recorded, recorded)

    @cached_property
    def multiple(self) -> int | None:
        """The number of which height and width must be multiples; None if it takes no other than one size.

        It is found by trying blank images.
        """
        if self.fixed_size is not None:
            return None
        for multiple in MULTIPLES:
            odd = math.ceil(PROBE / multiple) // 2 * 2 + 1  # so that no larger power of two divides it
            image = torch.zeros(1, self.in_channels, multiple * odd, multiple * odd)
            with suppress(Exception):  # whatever a runtime raises
                if self.run(image).shape[2:] == image.shape[2:]:
                    return multiple
        return None
