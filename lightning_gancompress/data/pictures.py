"""Images of networks as pictures of 8 bits."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor


def to_uint8(images: Tensor, rounded: bool = True) -> Tensor:
    """Map [-1, 1] to 0..255, rounded to nearest as when an image is saved, or down as in pytorch-fid."""
    pixels = (images.float() + 1) / 2 * 255
    # an integer may have become slightly smaller by the conversion to [-1, 1] and back
    pixels = pixels.round() if rounded else (pixels + 1e-3).floor()
    return pixels.clamp(0, 255).to(torch.uint8)


def to_picture(image: Tensor) -> Image.Image:
    """An image (C, H, W) in [-1, 1] as a picture: the first three channels as RGB, or one as greyscale."""
    pixels = to_uint8(image).cpu()
    if len(pixels) < 3:
        return Image.fromarray(pixels[0].numpy())
    return Image.fromarray(pixels[:3].permute(1, 2, 0).contiguous().numpy())
