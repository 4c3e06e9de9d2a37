"""What a task tells the modules: its networks, how a batch reads for each of them, and its losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gancompress.tasks.role import Role

Batch = Mapping[str, Any]
Networks = Mapping[Role, nn.Module] | nn.ModuleDict
Images = dict[Role, Tensor]
Losses = tuple[Tensor, dict[str, Tensor]]


class Task(ABC):
    """Losses over a mapping from role to network, so that teacher and student share them.

    Whatever is missing from the mapping is gone without: no discriminator, no adversarial term.

    Attributes:
        generators: Roles of all generators.
        discriminators: Roles of all discriminators; each sees the generator of its direction.
        compressed: The generators that are compressed, measured and saved.
        generator_first: Whether the generators step before the discriminators.
        pool_size: Earlier images that a discriminator may be shown instead of the newest; 0 for none.
        gan_mode: Name of the adversarial loss, for the record; None where it has none.
    """

    generators: tuple[Role, ...]
    discriminators: tuple[Role, ...]
    compressed: tuple[Role, ...]
    generator_first = False
    pool_size = 0
    gan_mode: str | None = None

    @abstractmethod
    def views(self, batch: Batch) -> dict[Role, Batch]:
        """What a batch holds for each generator whose sources are in it.

        Returns:
            Role -> `source` `(B, C, H, W)` in [-1, 1], `target` if there is one, `index` `(B,)`, `path`.
        """

    @abstractmethod
    def discriminate(self, networks: Networks, batch: Batch, images: Images) -> dict[Role, Tensor]:
        """Patch logits per discriminator that is here and whose generator's images are."""

    @abstractmethod
    def discriminated_channels(self, source: int, image: int) -> int:
        """Channels that a discriminator reads, given those of a generator's source and image."""

    @abstractmethod
    def discriminator_loss(self, networks: Networks, batch: Batch, images: Images) -> Losses:
        """Loss of all discriminators together on detached `images`, and what to log."""

    @abstractmethod
    def generator_loss(self, networks: Networks, batch: Batch, images: Images) -> Losses:
        """Loss of all generators together, and what to log."""

    def targets(self, batch: Batch) -> Images:
        """Real images in a batch, under the names of the generators that should make their like."""
        return {role: view["target"] for role, view in self.views(batch).items() if "target" in view}

    def target_index(self, batch: Batch) -> dict[Role, Tensor | None]:
        """Positions `(B,)` of the `targets` in their split, None where the data doesn't say."""
        return {role: view.get("index") for role, view in self.views(batch).items() if "target" in view}

    def preprocessing(self, generator: Role, data: Mapping[str, Any]) -> dict[str, Any]:
        """What a generator's images go through first, given what the data module does to all."""
        return dict(data)

    def generate(self, networks: Networks, batch: Batch, roles: Collection[Role] | None = None) -> Images:
        """Translate the sources: `(B, C, H, W)` in [-1, 1] per generator, all that are here or `roles`."""
        return {
            role: networks[role](view["source"])
            for role, view in self.views(batch).items()
            if role in networks and (roles is None or role in roles)
        }

    @staticmethod
    def reconstruction(images: Images, references: Images) -> Tensor:
        """Mean L1 distance between two sets of images."""
        return torch.stack([F.l1_loss(images[k], references[k]) for k in images]).mean()
