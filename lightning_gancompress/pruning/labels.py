"""Labels of channels, in classes of channels that can only be kept or dropped together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# label of elements without a channel: scalars, and constants that broadcast to any number of channels
NONE = 0


class Labels:
    """A union-find of labels: each channel has a label, and joined labels are one class.

    Tensors of labels are int64 and have the shape of the features that they describe. `NONE` is never joined.
    """

    def __init__(self) -> None:
        self._parent = torch.zeros(1, dtype=torch.int64)

    def new(self, count: int) -> Tensor:
        """Return `(count,)` new labels, each in its own class."""
        start = len(self._parent)
        fresh = torch.arange(start, start + count)
        self._parent = torch.cat([self._parent, fresh])
        return fresh

    def classes(self, labels: Tensor) -> Tensor:
        """Return the class of each label, which is the smallest label in it, in the same shape."""
        roots = self._parent[labels]
        while True:
            parents = self._parent[roots]
            if torch.equal(parents, roots):
                return roots
            roots = parents

    def join(self, first: Tensor, second: Tensor) -> None:
        """Join the classes of each pair of labels; the shapes are broadcast."""
        first, second = torch.broadcast_tensors(core(first), core(second))  # type: ignore[no-untyped-call]
        pairs = torch.stack([first.flatten(), second.flatten()])
        pairs = pairs[:, (pairs[0] != pairs[1]) & (pairs != NONE).all(0)]
        while (pairs := self._apart(pairs)).numel():
            self._parent.scatter_reduce_(0, pairs.amax(0), pairs.amin(0), "amin")

    def _apart(self, pairs: Tensor) -> Tensor:
        """Classes of the pairs whose classes differ, without duplicates, `(2, n)`."""
        pairs = self.classes(pairs)
        apart: Tensor = torch.unique(pairs[:, pairs[0] != pairs[1]], dim=1)
        return apart


def core(labels: Tensor) -> Tensor:
    """Return labels with every dimension of stride 0, along which they are repeated, narrowed to one."""
    for dim, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
        if size > 1 and stride == 0:
            labels = labels.narrow(dim, 0, 1)
    return labels


def settled(labels: Tensor) -> Tensor:
    """Return the same labels with stride 0 along every dimension in which they are constant."""
    shape, labels = labels.shape, core(labels)
    for dim, size in enumerate(labels.shape):
        first = labels.narrow(dim, 0, min(size, 1))
        if size > 1 and bool((labels == first).all()):
            labels = first
    return labels.expand(shape)


def varies(labels: Tensor, dims: Sequence[int]) -> bool:
    """Whether labels, as returned by `settled`, differ along any of the dimensions."""
    narrow = core(labels).shape
    return any(narrow[dim] > 1 for dim in dims)
