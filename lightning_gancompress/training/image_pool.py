"""Earlier images of a generator, so that its discriminator does not forget them (Shrivastava et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gancompress.tasks import Images, Role


class ImagePools:
    """One pool of images per generator, as upstream's `ImagePool`.

    While a pool is filling, every image is kept and shown; then each image is, with even odds, shown, or
    exchanged for a random one of the pool.

    Args:
        size: Images per pool; 0 shows every image as it is.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: dict[Role, Tensor] = {}  # (n, C, H, W) in half precision: they go into checkpoints

    def query(self, images: Images) -> Images:
        """What the discriminators see in place of `images` `(B, C, H, W)`, without a graph."""
        images = {role: image.detach() for role, image in images.items()}
        if self.size == 0:
            return images
        return {role: self._exchange(role, batch) for role, batch in images.items()}

    def _exchange(self, role: Role, batch: Tensor) -> Tensor:
        pool = self.images.get(role, batch.new_empty(0, *batch.shape[1:], dtype=torch.half)).to(batch.device)
        room = min(self.size - len(pool), len(batch))
        if room > 0:
            filled = pool.new_empty(len(pool) + room, *pool.shape[1:])  # cat refuses half under CPU autocast
            filled[: len(pool)], filled[len(pool) :] = pool, batch[:room]
            pool = filled
        shown = batch.clone()
        for n in range(max(room, 0), len(batch)):
            if torch.rand(()) < 0.5:
                place = int(torch.randint(self.size, ()))
                shown[n], pool[place] = pool[place].to(batch.dtype), batch[n]
        self.images[role] = pool
        return shown
