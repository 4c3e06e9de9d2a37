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
        self.images: dict[Role, list[Tensor]] = {}  # (C, H, W) in half precision: they go into checkpoints

    def query(self, images: Images) -> Images:
        """Images `(B, C, H, W)` to show the discriminators in place of `images`, detached."""
        images = {role: image.detach() for role, image in images.items()}
        if self.size == 0:
            return images
        return {role: self._exchange(role, batch) for role, batch in images.items()}

    def _exchange(self, role: Role, batch: Tensor) -> Tensor:
        pool = self.images.setdefault(role, [])
        del pool[self.size :]  # of a run that had a larger one
        shown = list(batch)
        for n, image in enumerate(batch):
            if len(pool) < self.size:
                pool.append(image.to(torch.half, copy=True))
            elif torch.rand(()) < 0.5:
                slot = int(torch.randint(self.size, ()))
                earlier, pool[slot] = pool[slot], image.to(torch.half, copy=True)
                # a batch is of one size; one of a single image may be of any, as the pool's are
                if len(batch) == 1 or earlier.shape == image.shape:
                    shown[n] = earlier.to(batch)
        return torch.stack(shown)
