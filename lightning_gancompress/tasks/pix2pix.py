"""Pix2Pix: paired translation with a conditional discriminator (Isola et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Amount, checked
from lightning_gancompress.tasks.losses import GanMode, fool_loss, gan_loss
from lightning_gancompress.tasks.role import Role, Side
from lightning_gancompress.tasks.task import Batch, Images, Losses, Networks, Task, in_one_pass

GENERATOR, DISCRIMINATOR = Role.of(Side.GENERATOR), Role.of(Side.DISCRIMINATOR)


class Pix2Pix(Task):
    """One generator, trained on pairs, and one discriminator of source and image concatenated.

    Args:
        gan_mode: Adversarial loss; upstream's default for pix2pix is `vanilla`.
        lambda_l1: Weight of the L1 distance to the target (upstream: 100).
    """

    generators = compressed = (GENERATOR,)
    discriminators = (DISCRIMINATOR,)

    @checked
    def __init__(self, gan_mode: GanMode = "vanilla", lambda_l1: Amount = 100.0) -> None:
        self.gan_mode: GanMode = gan_mode
        self.lambda_l1 = lambda_l1

    def views(self, batch: Batch) -> dict[Role, Batch]:
        """The batch itself as the only view.

        Raises:
            UserError: The batch has no `source`.
        """
        if "source" not in batch:
            raise UserError(
                f"data: Pix2Pix reads batches of source and target, and these hold {', '.join(batch)}: use "
                "PairedDataModule or a data module derived from it."
            )
        return {GENERATOR: batch}

    def discriminate(self, networks: Networks, batch: Batch, images: Images) -> dict[Role, Tensor]:
        """Patch logits (B, 1, h, w) on source and image, concatenated along channels."""
        return {role: networks[role](pair) for role, pair in self._pairs(networks, batch, images).items()}

    def discriminate_both(
        self, networks: Networks, batch: Batch, real: Images, fake: Images
    ) -> tuple[dict[Role, Tensor], dict[Role, Tensor]]:
        """Patch logits for real and for generated images, in one pass where that is faster."""
        return in_one_pass(networks, self._pairs(networks, batch, real), self._pairs(networks, batch, fake))

    @staticmethod
    def _pairs(networks: Networks, batch: Batch, images: Images) -> dict[Role, Tensor]:
        if DISCRIMINATOR not in networks:
            return {}
        return {DISCRIMINATOR: torch.cat([batch["source"], images[GENERATOR]], dim=1)}

    def discriminated_channels(self, source: int, image: int) -> int:
        """Channels of source and image together."""
        return source + image

    def discriminator_loss(self, networks: Networks, batch: Batch, images: Images) -> Losses:
        """Mean of the losses on real and on generated pairs, as upstream's factor 0.5."""
        real, fake = self.discriminate_both(networks, batch, self._required_targets(batch), images)
        on_real = gan_loss(real[DISCRIMINATOR], True, self.gan_mode)
        on_fake = gan_loss(fake[DISCRIMINATOR], False, self.gan_mode)
        loss = 0.5 * (on_real + on_fake)
        return loss, {"discriminator_real": on_real, "discriminator_fake": on_fake}

    def generator_loss(self, networks: Networks, batch: Batch, images: Images) -> Losses:
        """Adversarial loss plus the weighted L1 distance to the target."""
        l1 = self.reconstruction(images, self._required_targets(batch))
        loss, logs = self.lambda_l1 * l1, {"generator_l1": l1}
        for logits in self.discriminate(networks, batch, images).values():
            logs["generator_gan"] = fool_loss(logits, self.gan_mode)
            loss = logs["generator_gan"] + loss
        return loss, logs

    def _required_targets(self, batch: Batch) -> Images:
        if "target" not in batch:
            raise UserError(
                f"data: Pix2Pix trains on pairs, and these batches hold {', '.join(batch)}: use "
                "PairedDataModule or a data module derived from it."
            )
        return self.targets(batch)
