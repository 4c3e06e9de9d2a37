"""A cache of the teacher's images in host memory: the frozen teacher translates each image once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_gancompress.tasks import Images, Role
from lightning_gancompress.training.teacher_student import TeacherStudent


class TeacherImages:
    """Caches the teacher's images by generator and source path, in half precision, up to a memory limit.

    Half precision changes a value in [-1, 1] by at most 5e-4, an eighth of an 8-bit step.

    Args:
        limit_gb: Memory to use at most, in GB (1e9 bytes); 0 caches nothing.
    """

    # keys hold the path, not the index: the index is on the device, and reading it would synchronise

    def __init__(self, limit_gb: float) -> None:
        self._left = int(limit_gb * 1e9)
        self._images: dict[tuple[Role, str], Tensor] = {}

    @torch.no_grad()
    def of(self, networks: TeacherStudent, batch: dict[str, Any]) -> Images:
        """The teacher's images `(B, C, H, W)` per compressed generator whose sources are in the batch."""
        images = {}
        for role, view in networks.task.views(batch).items():
            if role not in networks.task.compressed:
                continue
            image = self.get(role, view["path"])
            if image is None:
                # rounded as in the cache, since a resumed run, whose cache is empty, has to see the same; and
                # one by one, since it sees them in other batches, on which the last digits hang
                image = torch.cat([networks.teacher[role](one) for one in view["source"].split(1)]).half()
                self.put(role, view["path"], image)
            images[role] = image.to(view["source"], non_blocking=True)
        return images

    def get(self, role: Role, paths: Sequence[str]) -> Tensor | None:
        """Images `(B, C, H, W)` in half precision on the CPU, or None unless all of them are cached."""
        keys = [(role, path) for path in paths]
        if any(key not in self._images for key in keys):
            return None
        pin = torch.cuda.is_available()
        images = torch.empty(len(keys), *self._images[keys[0]].shape, dtype=torch.half, pin_memory=pin)
        for row, key in zip(images, keys, strict=True):
            row.copy_(self._images[key])  # torch.stack refuses half precision under the CPU's autocast
        return images

    def put(self, role: Role, paths: Sequence[str], images: Tensor) -> None:
        """Cache images `(B, C, H, W)`, given in half precision, as far as the limit allows."""
        size = images[0].numel() * images.element_size()
        fresh = [n for n, path in enumerate(paths) if (role, path) not in self._images][: self._left // size]
        if fresh:
            self._images |= {
                (role, paths[n]): image.clone() for n, image in zip(fresh, images[fresh].cpu(), strict=True)
            }
            self._left -= size * len(fresh)
