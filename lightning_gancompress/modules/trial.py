"""The trial: networks that can't do what the task asks of them are refused before the search."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.networks import dry_run, require_image_alone
from lightning_gancompress.tasks import Images, Task


def try_networks(task: Task, networks: nn.ModuleDict, batch: dict[str, Any]) -> None:
    """Let the wanted generators translate a batch in eval mode, and the discriminators judge what they make.

    On shapes alone where that can be; the networks stay as they are.

    Args:
        task: Says who reads what.
        networks: By role.
        batch: The first of the data.

    Raises:
        UserError: A network can't read what it is given, or makes something else than the task needs.
    """
    for role, view in task.views(batch).items():
        if role in task.wanted:
            image = _translate(networks[role], view["source"])
            _require_target_shape(networks[role], image, view.get("target"))
            _judge(task, networks, batch, {role: image})


def _translate(generator: nn.Module, source: Tensor) -> Tensor:
    """A blank image of the shape that the generator makes."""
    name, shape = type(generator).__name__, _shape(source)
    require_image_alone(generator)
    try:
        image = dry_run(generator, lambda: generator.eval()(source))
    except UserError:
        raise
    except Exception as error:  # whatever a user's forward raises
        raise UserError(
            f"{name} fails on a source of the data, {shape} ({first_line(error)}): give data of "
            "the channels and the size that it was made for."
        ) from error
    if not isinstance(image, Tensor) or image.ndim != 4 or len(image) != len(source):
        made = _shape(image) if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise UserError(
            f"{name} returns {made} for a source {shape}, not an image (channels, height, width) for "
            "each: wrap it in a module that returns the image alone."
        )
    return source.new_zeros(image.shape)


def _require_target_shape(generator: nn.Module, image: Tensor, target: Tensor | None) -> None:
    if target is not None and target.shape != image.shape:
        raise UserError(
            f"{type(generator).__name__} makes images {_shape(image)}, but the targets are {_shape(target)} "
            "(channels, height, width): give targets of that shape, or the sources alone, to fine-tune "
            "against the generator's own images."
        )


def _judge(task: Task, networks: nn.ModuleDict, batch: dict[str, Any], images: Images) -> None:
    (role,) = images
    try:
        judged = dry_run(networks, lambda: task.judge(networks.eval(), batch, images))
    except Exception as error:
        name = type(networks[task.discriminator_of(role)]).__name__
        raise UserError(
            f"{name} fails on an image of the {role} ({first_line(error)}): the discriminator of "
            f"{type(task).__name__} must read what the task shows it, for Pix2Pix source and image side by "
            "side in one tensor of the channels of both; wrap it so, or leave it out."
        ) from error
    for role, logits in judged.items():
        if not isinstance(logits, Tensor):
            raise UserError(
                f"{type(networks[role]).__name__} returns a {type(logits).__name__}, not one "
                "tensor: wrap it in a module that returns its logits alone."
            )


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape[1:]))
