"""Labels: numbers that stand for channels, and which of them can only be kept or dropped together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# What has no channel: scalars, and what adapts to whatever it meets.
NONE = 0


class Labels:
    """Numbers for channels, each of one class; classes that were joined are one (a union-find).

    Tensors of labels are int64 and have the shape of what they describe; `NONE` joins nothing.
    """

    def __init__(self) -> None:
        self._parent = torch.zeros(1, dtype=torch.int64)

    def new(self, count: int) -> Tensor:
        """Return `(count,)` labels, each of a class of its own."""
        start = len(self._parent)
        fresh = torch.arange(start, start + count)
        self._parent = torch.cat([self._parent, fresh])
        return fresh

    def classes(self, labels: Tensor) -> Tensor:
        """Return the smallest label of each one's class, in the same shape."""
        found = self._parent[labels]
        while True:
            further = self._parent[found]
            if torch.equal(further, found):
                return found
            found = further

    def join(self, first: Tensor, second: Tensor) -> None:
        """Make one class of each pair; the two have shapes that broadcast."""
        first, second = torch.broadcast_tensors(core(first), core(second))  # type: ignore[no-untyped-call]
        pairs = torch.stack([first.flatten(), second.flatten()])
        pairs = torch.unique(pairs[:, (pairs[0] != pairs[1]) & (pairs != NONE).all(0)], dim=1)
        while pairs.numel():
            pairs = self.classes(pairs)
            low, high = pairs.amin(0), pairs.amax(0)
            self._parent.scatter_reduce_(0, high, low, "amin")
            pairs = torch.unique(pairs[:, low != high], dim=1)
        self._parent = self.classes(self._parent)


def core(labels: Tensor) -> Tensor:
    """Return labels with every dimension narrowed to one along which they are repeated in memory."""
    for dim, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
        if size > 1 and stride == 0:
            labels = labels.narrow(dim, 0, 1)
    return labels


def settled(labels: Tensor) -> Tensor:
    """Return the same labels, repeated in memory instead of written out wherever they don't vary."""
    shape, labels = labels.shape, core(labels)
    for dim, size in enumerate(labels.shape):
        first = labels.narrow(dim, 0, min(size, 1))
        if size > 1 and bool((labels == first).all()):
            labels = first
    return labels.expand(shape)


def varies(labels: Tensor, dims: Sequence[int]) -> bool:
    """Whether settled labels differ along any of the dimensions."""
    narrow = core(labels).shape
    return any(narrow[dim] > 1 for dim in dims)
