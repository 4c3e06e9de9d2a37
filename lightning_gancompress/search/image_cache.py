"""The teacher's images in host memory: a frozen network need not translate the same image twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class ImageCache:
    """Keeps images by the paths of their sources, in half precision, up to a limit.

    Half precision moves a value in [-1, 1] by at most 5e-4, an eighth of an 8-bit step.

    Args:
        limit_gb: Memory to use at most, in GB (1e9 bytes); 0 keeps nothing.
    """

    # by path, not by index: that lies on the device, and reading it would wait for the step before

    def __init__(self, limit_gb: float) -> None:
        self._left = int(limit_gb * 1e9)
        self._images: dict[str, Tensor] = {}

    def get(self, paths: Sequence[str]) -> Tensor | None:
        """Images `(B, C, H, W)` in half precision on the CPU, or None unless all of them are here."""
        if any(path not in self._images for path in paths):
            return None
        pin = torch.cuda.is_available()
        images = torch.empty(len(paths), *self._images[paths[0]].shape, dtype=torch.half, pin_memory=pin)
        for row, path in zip(images, paths, strict=True):
            row.copy_(self._images[path])  # torch.stack refuses half precision under the CPU's autocast
        return images

    def put(self, paths: Sequence[str], images: Tensor) -> None:
        """Keep images `(B, C, H, W)` in half precision as long as there is room."""
        size = images[0].numel() * images.element_size()
        fresh = [n for n, path in enumerate(paths) if path not in self._images][: self._left // size]
        if fresh:
            self._images |= {
                paths[n]: image.clone() for n, image in zip(fresh, images[fresh].cpu(), strict=True)
            }
            self._left -= size * len(fresh)
