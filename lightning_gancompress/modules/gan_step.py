"""One GAN update and its schedule, shared by teacher training and fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_gancompress.modules.base import GANModule
from lightning_gancompress.tasks import Images, Losses, Pix2Pix


def linear_decay(epoch: int, constant: int, decay: int) -> float:
    """Upstream's factor: 1 for `constant` epochs, then falling by 1/(decay + 1) each epoch."""
    return 1.0 - max(0, epoch + 1 - constant) / (decay + 1)


def gan_step(
    module: GANModule,
    task: Pix2Pix,
    networks: nn.ModuleDict,
    batch: dict[str, Any],
    extra: Callable[[Images], Losses] | None = None,
) -> None:
    """One GAN update in upstream's pix2pix order: forward, discriminator, generator.

    Args:
        module: Owns the optimizers.
        task: The losses.
        networks: By role; trained under the same names.
        batch: Of the data module.
        extra: Called with the images, returns a further loss of the generator and its log.
    """
    images = task.generate(networks, batch)  # outside the toggles: inside, they would carry no graph
    discriminator, logs = task.discriminator_loss(networks, batch, images)
    module.step("discriminator", discriminator)
    with module.toggled_optimizer(module.optimizer("generator")):
        generator, generator_logs = task.generator_loss(networks, batch, images)
        if extra is not None:
            term, term_logs = extra(images)
            generator = generator + term
            generator_logs |= term_logs
        module.step("generator", generator)
    logs |= {"generator": generator, "discriminator": discriminator} | generator_logs
    module.log_dict({f"train/{name}": value.detach() for name, value in logs.items()}, prog_bar=False)
