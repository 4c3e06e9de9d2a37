"""One GAN update, which teacher training and fine-tuning share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lightning_gancompress.tasks import Images, Losses, Side, Task
from lightning_gancompress.training.image_pool import ImagePools
from lightning_gancompress.training.phase import Logs, Optimizers

GENERATOR, DISCRIMINATOR = Side.GENERATOR.value, Side.DISCRIMINATOR.value


def gan_update(
    task: Task,
    networks: nn.ModuleDict,
    batch: dict[str, Any],
    pools: ImagePools,
    optimizers: Optimizers,
    extra: Callable[[Images], Losses] | None = None,
    weight: float = 1.0,
) -> Logs:
    """One GAN update in upstream's order: forward, then discriminator and generator as the task has it.

    Args:
        task: The losses.
        networks: By role.
        batch: Of the data module.
        pools: Earlier images that the discriminators may see instead.
        optimizers: Has one for `generator` and, where there are discriminators, one for `discriminator`.
        extra: Called with the images, returns a further loss of the generator and its log.
        weight: Of the task's loss of the generator; with 0 there is nothing for a discriminator to do.

    Returns:
        The losses and their terms.
    """
    images = task.generate(networks, batch)  # outside the toggles: inside, they would carry no graph
    logs: Logs = {}

    def discriminator_step() -> None:
        seen = {role: image for role, image in images.items() if role.discriminator in networks}
        if seen:
            loss, terms = task.discriminator_loss(networks, batch, pools.query(seen))
            optimizers.step(DISCRIMINATOR, loss)
            logs.update(terms | {DISCRIMINATOR: loss})

    def generator_step() -> None:
        with optimizers.toggled(GENERATOR):
            loss, terms = task.generator_loss(networks, batch, images) if weight else (torch.zeros(()), {})
            loss = weight * loss
            if extra is not None:
                term, term_logs = extra(images)
                loss, terms = loss.to(term.device) + term, terms | term_logs
            optimizers.step(GENERATOR, loss)
        logs.update(terms | {GENERATOR: loss})

    steps = [generator_step, discriminator_step] if weight else [generator_step]
    for step in steps if task.generator_first else reversed(steps):
        step()
    return logs


def trained_sides(task: Task, networks: nn.ModuleDict) -> dict[str, nn.Module]:
    """Networks that train, gathered under `generator` and `discriminator`: each side has one optimizer."""
    sides = {GENERATOR: task.generators, DISCRIMINATOR: task.discriminators}
    found = {
        side: nn.ModuleList(networks[r] for r in roles if r in networks and trains(networks[r]))
        for side, roles in sides.items()
    }
    return {side: members for side, members in found.items() if len(members)}


def trains(network: nn.Module) -> bool:
    """Whether any of its parameters asks for gradients."""
    return any(p.requires_grad for p in network.parameters())
