"""Translation of a picture in tiles that overlap, for pictures whose feature maps don't fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_gancompress.data.pictures import to_uint8
from lightning_gancompress.data.transforms import Array
from lightning_gancompress.errors import UserError
from lightning_gancompress.translation.model import ImageModel, Size

STEP = 16  # pixels, where a model doesn't show how often it halves its features


@dataclass(frozen=True)
class Tiles:
    """Tiles of a model.

    Tiles begin at multiples of a step: where a network halves its features, it computes them for every second
    pixel, and a shift by one pixel would change the image. Tiles that are too small for the step begin at
    a half of it, a quarter and so on.

    Attributes:
        size: Height and width in pixels.
        overlap: Pixels by which two tiles overlap, at least.
        step: Pixels.
    """

    size: Size
    overlap: int
    step: int

    @classmethod
    def of(cls, model: ImageModel, side: int, overlap: int) -> Tiles:
        """Tiles that a model can take.

        Args:
            model: The model.
            side: Their height and width.
            overlap: Pixels.

        Raises:
            UserError: It doesn't take such tiles, or they would overlap as a whole.
        """
        multiple, size = model.multiple, (side, side)
        if multiple is None:
            size = model.model_size
            if side not in size:
                raise UserError(
                    f"tile is {side}, and {model.path} takes images of {size[0]}x{size[1]} pixels alone: "
                    f"set tile to {max(size)}"
                    + (f" and overlap to {min(size) // 8}." if overlap >= min(size) else ".")
                )
        elif side % multiple:
            raise UserError(
                f"tile is {side}, and {model.path} takes multiples of {multiple}: set tile to "
                f"{math.ceil(side / multiple) * multiple}."
            )
        if overlap >= min(size):
            raise UserError(
                f"overlap is {overlap}, and tiles have {min(size)} pixels: set it to {min(size) // 8}, "
                "for example."
            )
        step = multiple if multiple not in (None, 1) else STEP
        while step > min(size) - overlap:
            step //= 2
        return cls(size, overlap, step)

    def padded(self, size: Size) -> Size:
        """Height and width of the smallest picture that tiles cover, and that holds one of this size."""
        height, width = (
            tile + math.ceil(max(0, side - tile) / self.step) * self.step
            for side, tile in zip(size, self.size, strict=True)
        )
        return height, width

    def starts(self, length: int, tile: int) -> list[int]:
        """First pixels of the tiles that cover a padded length evenly."""
        steps = (length - tile) // self.step
        count = math.ceil(steps / max(1, (tile - self.overlap) // self.step))
        return [round(number * steps / max(1, count)) * self.step for number in range(count + 1)]


def translate_tiles(
    model: ImageModel,
    pixels: Array,
    encode: Callable[[Array], Tensor],
    tiles: Tiles,
    batch_size: int = 1,
) -> Array:
    """Translate a picture tile by tile; where tiles overlap, one fades into the next.

    Memory is needed for the picture and its translation in 8 bits, and for the feature maps of some tiles.

    Args:
        model: Its output has the size of its input.
        pixels: The picture (C, H, W), of a padded size.
        encode: Maps a part of it to the model's input.
        tiles: The tiles.
        batch_size: Tiles that the model works on at once.

    Returns:
        The translation (C', H, W) in 8 bits.
    """
    _, height, width = pixels.shape
    high, wide = tiles.size
    rows, columns = tiles.starts(height, high), tiles.starts(width, wide)
    across = torch.stack([_fade(column, wide, columns) for column in columns])  # (tiles, wide)
    result: Array | None = None
    carried = torch.empty(0)  # sums of the rows that the next tiles cover as well
    for number, top in enumerate(rows):
        strip = encode(pixels[:, top : top + high])
        sums = _sums(model, strip, columns, across, batch_size)
        sums *= _fade(top, high, rows)[:, None]
        if number:
            sums[:, : carried.shape[1]] += carried
        done = (rows[number + 1] if number + 1 < len(rows) else height) - top
        levels = to_uint8(sums[:-1, :done] / sums[-1:, :done]).numpy()
        result = np.empty((len(levels), height, width), np.uint8) if result is None else result
        result[:, top : top + done] = levels
        carried = sums[:, done:].clone()
    assert result is not None
    return result


def _sums(model: ImageModel, strip: Tensor, columns: list[int], across: Tensor, batch_size: int) -> Tensor:
    """Sums of a row's translated tiles times their weights, and in a last channel of the weights."""
    sums = torch.zeros(0)
    for first in range(0, len(columns), batch_size):
        lefts, weights = columns[first : first + batch_size], across[first : first + batch_size]
        tiles = torch.stack([strip[:, :, left : left + weights.shape[1]] for left in lefts])
        images = model(tiles)
        if images.shape[2:] != tiles.shape[2:]:
            raise UserError(f"{model.path} gives images of another size than it reads: leave tile out.")
        if not sums.numel():
            sums = torch.zeros(images.shape[1] + 1, *strip.shape[1:])
        for left, image, weight in zip(lefts, images, weights, strict=True):
            sums[:-1, :, left : left + len(weight)] += image * weight
            sums[-1, :, left : left + len(weight)] += weight
    return sums


def _fade(start: int, tile: int, starts: list[int]) -> Tensor:
    """Weights of a tile's pixels: they rise where it overlaps a neighbour, not at the picture's edge."""
    weights, place = torch.ones(tile), starts.index(start)
    if place > 0 and (shared := starts[place - 1] + tile - start) > 0:
        weights[:shared] *= torch.arange(1, shared + 1) / (shared + 1)
    if place + 1 < len(starts) and (shared := start + tile - starts[place + 1]) > 0:
        weights[tile - shared :] *= torch.arange(shared, 0, -1) / (shared + 1)
    return weights
