"""Adversarial losses on patch logits."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GanMode = Literal["vanilla", "lsgan", "hinge"]


def gan_loss(logits: Tensor, real: bool, mode: GanMode) -> Tensor:
    """Loss of `logits` (B, 1, h, w) against the label `real` or fake; for `hinge` the discriminator's loss.

    `vanilla` is the cross-entropy of Goodfellow et al. 2014 (pix2pix), `lsgan` the least squares of Mao et
    al. 2017 (CycleGAN).
    """
    if mode == "vanilla":
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
    if mode == "lsgan":
        return F.mse_loss(logits, torch.full_like(logits, float(real)))
    return F.relu(1.0 - logits if real else 1.0 + logits).mean()


def fool_loss(logits: Tensor, mode: GanMode) -> Tensor:
    """The generator's adversarial loss, small where `logits` (B, 1, h, w) classify its images as real."""
    return -logits.mean() if mode == "hinge" else gan_loss(logits, True, mode)
