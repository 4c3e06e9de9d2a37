"""The images of a test: which were seen on any rank, and what was noted of each."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

K = TypeVar("K", bound=Hashable)


class Ledger(Generic[K]):
    """Rows of images, one row per image and key, in groups of images.

    An image is known by its position in its data set, so that it counts once, however many processes share
    the work and however they pad their shares.

    Args:
        device: Where ranks exchange rows.
        rank: Of this process, 0 where each process sees all images by itself.
        world_size: Number of processes that share the images.
    """

    def __init__(self, device: torch.device, rank: int = 0, world_size: int = 1) -> None:
        self.device, self.rank, self.world_size = device, rank, world_size
        self._positions: dict[str, list[Tensor]] = {}
        self._rows: dict[str, dict[K, list[Tensor]]] = {}

    @property
    def groups(self) -> list[str]:
        """Groups whose images were seen."""
        return list(self._positions)

    def add(self, group: str, index: Tensor | None, count: int, rows: Mapping[K, Tensor]) -> None:
        """Note a batch of images.

        Args:
            group: What the images are, such as the role of their generator.
            index: Positions `(B,)` in the data set; None where the data does not number its images, which
                are all different then.
            count: B.
            rows: `(B, ...)` per key; a group has the same keys in every batch.
        """
        seen = self._positions.setdefault(group, [])
        if index is None:
            index = (torch.arange(count) + sum(map(len, seen))) * self.world_size + self.rank
        seen.append(index.cpu())
        for key, values in rows.items():
            self._rows.setdefault(group, {}).setdefault(key, []).append(values.detach().cpu())

    def gather(self, group: str) -> tuple[int, dict[K, Tensor]]:
        """Number of different images of a group on all ranks, and their rows in the order of positions.

        To be called on all ranks. The group is forgotten.
        """
        order = first_of_each(self._gathered(self._positions.pop(group)))
        rows = self._rows.pop(group, {})
        return len(order), {key: self._gathered(parts)[order] for key, parts in rows.items()}

    def _gathered(self, parts: list[Tensor]) -> Tensor:
        """The rows of all ranks below each other, on the CPU; their numbers may differ."""
        rows = torch.cat(parts)
        if self.world_size == 1:
            return rows
        return torch.cat([part.cpu() for part in gather_all_tensors(rows.to(self.device))])


def first_of_each(index: Tensor) -> Tensor:
    """Positions of the first occurrence of every value, in the order of the values."""
    order = index.argsort(stable=True)
    values = index[order]
    new = torch.ones_like(values, dtype=torch.bool)
    new[1:] = values[1:] != values[:-1]
    return order[new]
