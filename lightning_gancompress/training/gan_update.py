"""One GAN update and its schedule, shared by teacher training and fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.modules.base import GANModule
from lightning_gancompress.tasks import Images, Losses, Task


def linear_decay(epoch: int, constant: int, decay: int) -> float:
    """Upstream's factor: 1 for `constant` epochs, then falling by 1/(decay + 1) each epoch."""
    return 1.0 - max(0, epoch + 1 - constant) / (decay + 1)


def gan_update(
    module: GANModule,
    task: Task,
    networks: nn.ModuleDict,
    batch: dict[str, Any],
    extra: Callable[[Images], Losses] | None = None,
    weight: float = 1.0,
) -> None:
    """One GAN update in upstream's order: forward, then discriminator and generator as the task has it.

    Args:
        module: Owns the optimizers `generator` and `discriminator`.
        task: The losses.
        networks: By role.
        batch: Of the data module.
        extra: Called with the images, returns a further loss of the generator and its log.
        weight: Of the task's loss of the generator; with 0 there is nothing for a discriminator to do.
    """
    images = task.generate(networks, batch)  # outside the toggles: inside, they would carry no graph
    logs: dict[str, Tensor] = {}

    def discriminator_step() -> None:
        judged = {role: image for role, image in images.items() if task.discriminator_of(role) in networks}
        if judged:
            loss, terms = task.discriminator_loss(networks, batch, module.pools.query(judged))
            module.step("discriminator", loss)
            logs.update(terms | {"discriminator": loss})

    def generator_step() -> None:
        with module.toggled_optimizer(module.optimizer("generator")):
            loss, terms = task.generator_loss(networks, batch, images) if weight else (torch.zeros(()), {})
            loss = weight * loss
            if extra is not None:
                term, term_logs = extra(images)
                loss, terms = loss.to(term.device) + term, terms | term_logs
            module.step("generator", loss)
        logs.update(terms | {"generator": loss})

    steps = [generator_step, discriminator_step] if weight else [generator_step]
    for step in steps if task.generator_first else reversed(steps):
        step()
    module.log_dict({f"train/{name}": value.detach() for name, value in logs.items()}, prog_bar=False)
