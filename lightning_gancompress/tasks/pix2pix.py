"""Pix2Pix: paired translation with a conditional discriminator (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gancompress.tasks.losses import GanMode, fool_loss, gan_loss

Batch = Mapping[str, Any]
Networks = Mapping[str, nn.Module] | nn.ModuleDict
Images = dict[str, Tensor]
Losses = tuple[Tensor, dict[str, Tensor]]


class Pix2Pix:
    """Which networks a paired task has, and their losses.

    Networks come as a mapping from role to module, so that teacher and student share this code.

    Args:
        gan_mode: Adversarial loss; upstream's default for pix2pix is `vanilla`.
        lambda_l1: Weight of the L1 distance to the target (upstream: 100).
    """

    generators = ("generator",)
    discriminators = ("discriminator",)

    def __init__(self, gan_mode: GanMode = "vanilla", lambda_l1: float = 100.0) -> None:
        self.gan_mode = gan_mode
        self.lambda_l1 = lambda_l1

    def generate(self, networks: Networks, batch: Batch) -> Images:
        """Translate the sources: `(B, C, H, W)` in [-1, 1] per generator."""
        return {"generator": networks["generator"](batch["source"])}

    def targets(self, batch: Batch) -> Images:
        """Real images, under the name of the generator that should make their like."""
        return {"generator": batch["target"]}

    def judge(self, networks: Networks, batch: Batch, images: Images) -> dict[str, Tensor]:
        """Patch logits per discriminator; this one sees the source beside the image."""
        pair = torch.cat([batch["source"], images["generator"]], dim=1)
        return {"discriminator": networks["discriminator"](pair)}

    def discriminator_loss(self, networks: Networks, batch: Batch, images: Images) -> Losses:
        """Mean of the losses on real and on generated pairs (upstream's factor 0.5)."""
        real = self.judge(networks, batch, self.targets(batch))["discriminator"]
        fake = self.judge(networks, batch, {k: v.detach() for k, v in images.items()})["discriminator"]
        on_real, on_fake = gan_loss(real, True, self.gan_mode), gan_loss(fake, False, self.gan_mode)
        loss = 0.5 * (on_real + on_fake)
        return loss, {"discriminator_real": on_real, "discriminator_fake": on_fake}

    def generator_loss(self, networks: Networks, batch: Batch, images: Images) -> Losses:
        """Adversarial loss plus the weighted L1 distance to the target."""
        fool = fool_loss(self.judge(networks, batch, images)["discriminator"], self.gan_mode)
        l1 = self.reconstruction(images, self.targets(batch))
        return fool + self.lambda_l1 * l1, {"generator_gan": fool, "generator_l1": l1}

    @staticmethod
    def reconstruction(images: Images, references: Images) -> Tensor:
        """Mean L1 distance between two sets of images."""
        return torch.stack([F.l1_loss(images[k], references[k]) for k in images]).mean()
