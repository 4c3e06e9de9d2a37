"""Pools of earlier generated images to train discriminators on (Shrivastava et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gancompress.tasks import Images, Role


class ImagePools:
    """One pool of images per generator, as upstream's `ImagePool`.

    Until a pool is full, every new image is stored and returned. Then, with probability 1/2, a new image
    replaces a random one of the pool, which is returned in its place.

    Args:
        size: Images per pool; 0 returns every image unchanged.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: dict[Role, Tensor] = {}  # (n, C, H, W) in half precision: they go into checkpoints

    def query(self, images: Images) -> Images:
        """Images `(B, C, H, W)` to show the discriminators in place of `images`, detached."""
        images = {role: image.detach() for role, image in images.items()}
        if self.size == 0:
            return images
        return {role: self._exchange(role, batch) for role, batch in images.items()}

    def _exchange(self, role: Role, batch: Tensor) -> Tensor:
        pool = self.images.get(role)
        if pool is None or pool.shape[1:] != batch.shape[1:]:  # a resumed run may have images of another size
            pool = batch.new_empty(0, *batch.shape[1:], dtype=torch.half)
        pool = pool[: self.size].to(batch.device)
        free = min(self.size - len(pool), len(batch))
        if free > 0:
            filled = pool.new_empty(len(pool) + free, *pool.shape[1:])  # cat refuses half under CPU autocast
            filled[: len(pool)], filled[len(pool) :] = pool, batch[:free]
            pool = filled
        returned = batch.clone()
        for n in range(max(free, 0), len(batch)):
            if torch.rand(()) < 0.5:
                slot = int(torch.randint(self.size, ()))
                returned[n], pool[slot] = pool[slot].to(batch.dtype), batch[n]
        self.images[role] = pool
        return returned
