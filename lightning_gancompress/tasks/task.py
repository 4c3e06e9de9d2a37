"""The base class of tasks: roles of networks, views of a batch, and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gancompress.networks import PatchDiscriminator
from lightning_gancompress.tasks.role import Role

Batch = Mapping[str, Any]
Networks = Mapping[Role, nn.Module] | nn.ModuleDict
Images = dict[Role, Tensor]
Losses = tuple[Tensor, dict[str, Tensor]]


class Task(ABC):
    """Defines the networks and losses of a kind of GAN training.

    Networks are passed as a mapping from role to network, of the teacher or of the student. Losses whose
    networks are missing from it are left out: without a discriminator there is no adversarial loss.

    Attributes:
        generators: Roles of all generators.
        discriminators: Roles of all discriminators; each reads the images of its direction's generator.
        compressed: Roles of the generators that are compressed, measured and saved.
        generator_first: Whether the generators step before the discriminators.
        pool_size: Size of the pool of earlier images that discriminators are trained on; 0 for none.
        gan_mode: Name of the adversarial loss, recorded in small models; None without one.
    """

    generators: tuple[Role, ...]
    discriminators: tuple[Role, ...]
    compressed: tuple[Role, ...]
    generator_first = False
    pool_size = 0
    gan_mode: str | None = None

    @abstractmethod
    def views(self, batch: Batch) -> dict[Role, Batch]:
        """The view of a batch for each generator whose sources it holds.

        Returns:
            Role -> `source` `(B, C, H, W)` in [-1, 1], `target` if there is one, `index` `(B,)`, `path`.
        """

    @abstractmethod
    def discriminate(self, networks: Networks, batch: Batch, images: Images) -> dict[Role, Tensor]:
        """Patch logits by discriminator, for those in `networks` whose generator is in `images`."""

    def discriminate_both(
        self, networks: Networks, batch: Batch, real: Images, fake: Images
    ) -> tuple[dict[Role, Tensor], dict[Role, Tensor]]:
        """Outputs of `discriminate` for real and for generated images; a task may need one pass for both."""
        return self.discriminate(networks, batch, real), self.discriminate(networks, batch, fake)

    @abstractmethod
    def discriminated_channels(self, source: int, image: int) -> int:
        """Input channels of a discriminator, given the channels of its generator's source and image."""

    @abstractmethod
    def discriminator_loss(self, networks: Networks, batch: Batch, images: Images) -> Losses:
        """Total loss of all discriminators on detached `images`, and scalars to log."""

    @abstractmethod
    def generator_loss(self, networks: Networks, batch: Batch, images: Images) -> Losses:
        """Total loss of all generators, and scalars to log."""

    def targets(self, batch: Batch) -> Images:
        """Real images `(B, C, H, W)` of each generator's target domain."""
        return {role: view["target"] for role, view in self.views(batch).items() if "target" in view}

    def target_index(self, batch: Batch) -> dict[Role, Tensor | None]:
        """Positions `(B,)` of the `targets` in their split, None where the data does not number them."""
        return {role: view.get("index") for role, view in self.views(batch).items() if "target" in view}

    def preprocessing(self, generator: Role, data: Mapping[str, Any]) -> dict[str, Any]:
        """Preprocessing record of a generator's sources, given that of the data module."""
        return dict(data)

    def generate(self, networks: Networks, batch: Batch, roles: Collection[Role] | None = None) -> Images:
        """Translate the sources to `(B, C, H, W)` in [-1, 1], by all generators in `networks` or `roles`."""
        return {
            role: networks[role](view["source"])
            for role, view in self.views(batch).items()
            if role in networks and (roles is None or role in roles)
        }

    @staticmethod
    def reconstruction(images: Images, references: Images) -> Tensor:
        """Mean L1 distance between two sets of images."""
        return torch.stack([F.l1_loss(images[k], references[k]) for k in images]).mean()


def in_one_pass(
    networks: Networks, real: dict[Role, Tensor], fake: dict[Role, Tensor]
) -> tuple[dict[Role, Tensor], dict[Role, Tensor]]:
    """Outputs of discriminators for two inputs each, by role; `PatchDiscriminator` may need one pass."""
    outputs = {role: _both(networks[role], inputs, fake[role]) for role, inputs in real.items()}
    return {role: a for role, (a, _) in outputs.items()}, {role: b for role, (_, b) in outputs.items()}


def _both(network: nn.Module, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if type(network) is PatchDiscriminator:  # a subclass may have a forward of its own
        return network.both(first, second)
    return network(first), network(second)
