"""Distances between pairs of images, one value per image."""

from __future__ import annotations

from typing import cast

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

RANGE = 2.0  # images lie in [-1, 1]
MAX_PSNR = 100.0  # instead of infinity for equal images, so that means are finite


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, (B, C, H, W) in [-1, 1] twice -> (B,) in [0, 2]."""
    return (image.float() - target.float()).abs().flatten(1).mean(1)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, (B, C, H, W) in [-1, 1] twice -> (B,) in decibels, 100 at most."""
    error = (image.float() - target.float()).square().flatten(1).mean(1)
    return (10 * (RANGE**2 / error).log10()).clamp(max=MAX_PSNR)


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), (B, C, H, W) in [-1, 1] twice -> (B,), 1 for equal images.

    Of the images in [0, 1]: its luminances are compared by their ratio, so that black has to be 0.
    """
    similarity = structural_similarity_index_measure(
        (image.float() + 1) / 2, (target.float() + 1) / 2, data_range=1.0, reduction="none"
    )
    return cast(Tensor, similarity).reshape(-1)
