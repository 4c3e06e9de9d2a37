"""Trial runs of small shipped networks with values, in runs of tests.

Before it starts, a run computes the shapes of what its networks make, without values. For images of 32 pixels
this takes longer than computing the values, above all the first time in a process. `dry_run` and
`blank_image` of `lightning_gancompress.networks`, which their own tests call, leave the values out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from lightning_gancompress.checkpoints import training
from lightning_gancompress.finetune import distillation
from lightning_gancompress.modules import check_networks
from lightning_gancompress.networks import images
from lightning_gancompress.networks.dry_run import unchanged
from lightning_gancompress.reporting.page import run
from lightning_gancompress.training import inputs

MOST = 2**18  # values of a small input
SHIPPED = ("torch.nn.", "lightning_gancompress.")


def install() -> None:
    """Let runs of this process do so."""
    for module in (check_networks, distillation, inputs):
        module.dry_run = with_values(getattr(module.dry_run, "alone", module.dry_run))
    for module in (inputs, run, training):
        module.blank_image = tried_with_values(getattr(module.blank_image, "alone", module.blank_image))


def shipped(network: nn.Module) -> bool:
    """Whether all that a network consists of is known not to look at values."""
    return all(type(module).__module__.startswith(SHIPPED) for module in network.modules())


def with_values(alone: Callable[..., Any]) -> Callable[..., Any]:
    """`dry_run`, with values where networks and images are small."""

    def dry_run(network: nn.Module, run: Callable[[Tensor], Any], x: Tensor) -> Any:
        if x.is_meta or x.numel() > MOST or not shipped(network):
            return alone(network, run, x)
        with unchanged(network):
            return run(x)

    dry_run.alone = alone  # type: ignore[attr-defined]
    return dry_run


def tried_with_values(alone: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`blank_image`, likewise."""

    def blank_image(network: nn.Module, size: int | tuple[int, int], likely: Iterable[int] = ()) -> Tensor:
        sides = (size, size) if isinstance(size, int) else size
        shapes = [(1, channels, *sides) for channels in images._candidates(network, likely)]
        if not shipped(network) or max(map(math.prod, shapes)) > MOST:
            return alone(network, size, likely)
        image, _ = images._first_read(network, next(network.parameters()).detach(), shapes, values=True)
        return alone(network, size, likely) if image is None else image

    blank_image.alone = alone  # type: ignore[attr-defined]
    return blank_image
