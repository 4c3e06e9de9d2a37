"""What the networks of a task read: as the data shows it, else as it was recorded, else by trial."""

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
        task: Says who reads what.
        recorded: A data module's or a checkpoint's preprocessing.
    """

    def __init__(self, task: Task, recorded: Mapping[str, Any] | None = None) -> None:
        self.task, self.recorded = task, dict(recorded or {})
        self.seen: dict[Role, tuple[int, ...]] = {}  # (C, H, W) of the sources, per generator

    def see(self, batch: Batch) -> None:
        """Go by a batch of the data from now on."""
        self.seen = {role: tuple(view["source"].shape[1:]) for role, view in self.task.views(batch).items()}

    def source(self, role: Role, generator: nn.Module) -> Tensor:
        """What a generator reads, (1, C, H, W) of its type and on its device.

        Raises:
            UserError: Nobody says how many channels that has, and the generator can't read any number.
        """
        if role not in self.seen:
            recorded = self.task.preprocessing(role, self.recorded)
            return blank_image(generator, pixels(recorded), image_channels(recorded))
        return next(generator.parameters(), torch.empty(0)).new_zeros(1, *self.seen[role])

    def discriminated(self, role: Role, generator: nn.Module) -> Tensor:
        """What a generator's discriminator reads, likewise."""
        source = self.source(role, generator)
        image = dry_run(generator, lambda x: generator.eval()(x), source)
        channels = self.task.discriminated_channels(source.shape[1], image.shape[1])
        return source.new_zeros(1, channels, *image.shape[2:])

    def record(self, preprocessing: Mapping[str, Any], role: Role) -> dict[str, Any]:
        """A data module's preprocessing with what it lacks, such as an `image_size` that no crop made."""
        names = zip(("in_channels", "out_channels"), self.task.generators, strict=False)
        channels = {name: self.seen[role][0] for name, role in names if role in self.seen}
        found = {**self.recorded, **channels, **preprocessing}
        if role in self.seen:
            found.pop("image_size", None)
            size, crop_size = self.seen[role][1:], pixels(found)
            if size != (crop_size if isinstance(crop_size, tuple) else (crop_size, crop_size)):
                found["image_size"] = list(size)
        return found
