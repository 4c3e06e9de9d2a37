"""One update of generators and discriminators, shared by teacher training and fine-tuning."""

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
    discriminators: bool = True,
) -> Logs:
    """Generate images once, then step discriminators and generators on them, in the task's order.

    Args:
        task: Defines the losses and whether the generators step first.
        networks: Generators and discriminators by role.
        batch: A batch of the data module.
        pools: Earlier images that the discriminators are shown in place of new ones.
        optimizers: Steps `generator` and, where there are discriminators, `discriminator`.
        extra: Maps the generated images to a further generator loss and its terms.
        weight: Factor of the task's generator loss; with 0 the discriminators are not trained.
        discriminators: Whether the discriminators step; the pools take new images in any case.

    Returns:
        The losses of both sides and their terms, to be logged.
    """
    images = task.generate(networks, batch)  # outside the toggles: inside, they would carry no graph
    logs: Logs = {}

    def discriminator_step() -> None:
        fakes = {role: image for role, image in images.items() if role.discriminator in networks}
        shown = pools.query(fakes)
        if shown and discriminators:
            loss, terms = task.discriminator_loss(networks, batch, shown)
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
    """Trainable networks by side, `generator` and `discriminator`: each side has one optimizer."""
    roles_by_side = {GENERATOR: task.generators, DISCRIMINATOR: task.discriminators}
    sides = {
        side: nn.ModuleList(networks[r] for r in roles if r in networks and trains(networks[r]))
        for side, roles in roles_by_side.items()
    }
    return {side: members for side, members in sides.items() if len(members)}


def trains(network: nn.Module) -> bool:
    """Whether any parameter of `network` requires gradients."""
    return any(p.requires_grad for p in network.parameters())
