"""CycleGAN: translation between two sets of images without pairs (Zhu et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Amount, CountOrNone, checked
from lightning_gancompress.tasks.losses import GanMode, fool_loss, gan_loss
from lightning_gancompress.tasks.role import Role, Side
from lightning_gancompress.tasks.task import Batch, Images, Losses, Networks, Task, in_one_pass

GENERATORS = Role.of(Side.GENERATOR, "AtoB"), Role.of(Side.GENERATOR, "BtoA")
PER_DOMAIN = (("in_channels", "out_channels"), ("labels", "target_labels"))
DOMAINS = dict(zip(GENERATORS, (("A", "B"), ("B", "A")), strict=True))  # source and target


class CycleGAN(Task):
    """Two generators, A to B and B to A, each with a discriminator of its images.

    `generator_AtoB` and `discriminator_AtoB` are G_A and D_A of pytorch-CycleGAN-and-pix2pix.

    Args:
        direction: The translations that are compressed, measured and saved.
        gan_mode: Adversarial loss; upstream's default for CycleGAN is `lsgan`.
        lambda_cycle: Weight of the L1 distance between an image and its cycle A to B to A, or B to A to B
            (upstream: 10).
        lambda_identity: Weight, relative to `lambda_cycle`, of the L1 distance between an image of the
            target domain and its translation (upstream: 0.5).
        pool_size: Size of the pool of earlier images that discriminators are trained on (upstream: 50).
    """

    generators = GENERATORS
    discriminators = tuple(role.discriminator for role in GENERATORS)
    generator_first = True

    @checked
    def __init__(
        self,
        direction: Literal["AtoB", "BtoA", "both"] = "both",
        gan_mode: GanMode = "lsgan",
        lambda_cycle: Amount = 10.0,
        lambda_identity: Amount = 0.5,
        pool_size: CountOrNone = 50,
    ) -> None:
        self.compressed = GENERATORS if direction == "both" else (Role.of(Side.GENERATOR, direction),)
        self.gan_mode: GanMode = gan_mode
        self.lambda_cycle, self.lambda_identity = lambda_cycle, lambda_identity
        self.pool_size = pool_size

    def views(self, batch: Batch) -> dict[Role, Batch]:
        """Views of a batch: images of A are the source of `generator_AtoB`, images of B of the other.

        Raises:
            UserError: The batch has neither A nor B, or the identity loss can't be computed since the
                domains differ in channels.
        """
        views: dict[Role, Batch] = {}
        if "A" not in batch and "B" not in batch:
            raise UserError(
                f"data: CycleGAN reads batches of A and B, and these hold {', '.join(batch)}: use "
                "UnpairedDataModule or a data module derived from it."
            )
        for role, (source, target) in DOMAINS.items():
            if source in batch:
                view = {name: batch[f"{name}_{source}"] for name in ("index", "path")}
                view["source"] = batch[source]
                if target in batch:
                    view["target"] = batch[target]
                    self._require_channels(batch[source].shape[1], batch[target].shape[1])
                views[role] = view
        return views

    def targets(self, batch: Batch) -> Images:
        """Images of the other domain, not of the same scenes."""
        return {role: batch[target] for role, (_, target) in DOMAINS.items() if target in batch}

    def target_index(self, batch: Batch) -> dict[Role, Tensor | None]:
        """The position in the other domain."""
        return {
            role: batch.get(f"index_{target}") for role, (_, target) in DOMAINS.items() if target in batch
        }

    def preprocessing(self, generator: Role, data: Mapping[str, Any]) -> dict[str, Any]:
        """Preprocessing of this generator's sources: direction BtoA exchanges what is said of A and of B."""
        own = {**data, "direction": generator.direction}
        for pair in PER_DOMAIN if own["direction"] == "BtoA" else ():
            for name, other in (pair, pair[::-1]):
                own.pop(name, None)
                own |= {name: data[other]} if other in data else {}
        if "resample" in own:
            own["resample"] = "nearest" if "labels" in own else "bicubic"
        return own

    def discriminate(self, networks: Networks, batch: Batch, images: Images) -> dict[Role, Tensor]:
        """Patch logits (B, 1, h, w) on the images alone."""
        return {role: networks[role](image) for role, image in self._inputs(networks, images).items()}

    def discriminate_both(
        self, networks: Networks, batch: Batch, real: Images, fake: Images
    ) -> tuple[dict[Role, Tensor], dict[Role, Tensor]]:
        """Patch logits on real and on generated images, in one pass where that is faster."""
        return in_one_pass(networks, self._inputs(networks, real), self._inputs(networks, fake))

    @staticmethod
    def _inputs(networks: Networks, images: Images) -> dict[Role, Tensor]:
        inputs = {role.discriminator: image for role, image in images.items()}
        return {role: image for role, image in inputs.items() if role in networks}

    def discriminated_channels(self, source: int, image: int) -> int:
        """Channels of the image alone."""
        return image

    def discriminator_loss(self, networks: Networks, batch: Batch, images: Images) -> Losses:
        """Sum over the discriminators of the mean of their losses on real and on generated images."""
        targets = {role: self.targets(batch)[role] for role in images}
        real, fake = self.discriminate_both(networks, batch, targets, images)
        logs = {}
        for role in real:
            logs[f"{role}_real"] = gan_loss(real[role], True, self.gan_mode)
            logs[f"{role}_fake"] = gan_loss(fake[role], False, self.gan_mode)
        return 0.5 * torch.stack(list(logs.values())).sum(), logs

    def generator_loss(self, networks: Networks, batch: Batch, images: Images) -> Losses:
        """Adversarial, cycle and identity losses, each where the networks that it needs are present."""
        trained = {role: image for role, image in images.items() if image.requires_grad}  # not frozen ones
        logits = self.discriminate(networks, batch, trained)
        logs = {
            f"{role}_gan": fool_loss(logits[role.discriminator], self.gan_mode)
            for role in trained
            if role.discriminator in logits
        }
        loss = torch.stack(list(logs.values())).sum() if logs else torch.zeros(())
        views = self.views(batch)
        for role, image in images.items() if self.lambda_cycle else ():
            other = role.partner
            if other is not None and other in networks:
                logs[f"{role}_cycle"] = F.l1_loss(networks[other](image), views[role]["source"])
                loss = loss + self.lambda_cycle * logs[f"{role}_cycle"]
        if self.lambda_cycle and self.lambda_identity:
            for role in trained:
                own = views[role]["target"]
                logs[f"{role}_identity"] = F.l1_loss(networks[role](own), own)
                loss = loss + self.lambda_cycle * self.lambda_identity * logs[f"{role}_identity"]
        return loss, logs

    def _require_channels(self, source: int, target: int) -> None:
        if source != target and self.lambda_cycle and self.lambda_identity:
            raise UserError(
                f"model.task.lambda_identity: {self.lambda_identity} asks for generators that leave images "
                "of the domain they translate to alone, but the domains differ in channels: set it to 0."
            )
