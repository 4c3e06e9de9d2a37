"""Shapes that the networks of a task read: from a batch, else from recorded preprocessing, else by trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.networks import blank_image, dry_run, image_channels, pixels
from lightning_gancompress.tasks import Role, Task
from lightning_gancompress.tasks.task import Batch


class Inputs:
    """Blank inputs of a task's networks.

    Args:
        task: Splits a batch into the sources of its generators.
        recorded: Preprocessing of a data module or a checkpoint.

    Attributes:
        source_shapes: (C, H, W) of each generator's sources, once a batch has been observed.
    """

    def __init__(self, task: Task, recorded: Mapping[str, Any] | None = None) -> None:
        self.task, self.recorded = task, dict(recorded or {})
        self.source_shapes: dict[Role, tuple[int, ...]] = {}

    def observe(self, batch: Batch) -> None:
        """Take the shapes of a batch of the data in place of recorded ones."""
        views = self.task.views(batch)
        self.source_shapes = {role: tuple(view["source"].shape[1:]) for role, view in views.items()}

    def source(self, role: Role, generator: nn.Module) -> Tensor:
        """Blank source of a generator, (1, C, H, W), in its dtype and on its device.

        Raises:
            UserError: The number of channels is not recorded, and no number that was tried works.
        """
        if role not in self.source_shapes:
            recorded = self.task.preprocessing(role, self.recorded)
            return blank_image(generator, pixels(recorded), image_channels(recorded))
        return next(generator.parameters(), torch.empty(0)).new_zeros(1, *self.source_shapes[role])

    def discriminated(self, role: Role, generator: nn.Module) -> Tensor:
        """Blank input (1, C, H, W) of the discriminator of `generator`."""
        source = self.source(role, generator)
        image = dry_run(generator, lambda x: generator.eval()(x), source)
        channels = self.task.discriminated_channels(source.shape[1], image.shape[1])
        return source.new_zeros(1, channels, *image.shape[2:])

    def complete(self, preprocessing: Mapping[str, Any], role: Role) -> dict[str, Any]:
        """Add the channels to a data module's preprocessing, and `image_size` where it is not the crop's."""
        shapes = self.source_shapes
        names = zip(("in_channels", "out_channels"), self.task.generators, strict=False)
        channels = {name: shapes[role][0] for name, role in names if role in shapes}
        completed = {**self.recorded, **channels, **preprocessing}
        if role in shapes:
            completed.pop("image_size", None)
            size, crop_size = shapes[role][1:], pixels(completed)
            if size != (crop_size if isinstance(crop_size, tuple) else (crop_size, crop_size)):
                completed["image_size"] = list(size)
        return completed
