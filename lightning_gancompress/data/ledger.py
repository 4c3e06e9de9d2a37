"""Collection of one row of numbers per image over all batches and ranks, without duplicates."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

K = TypeVar("K", bound=Hashable)


class Ledger(Generic[K]):
    """Collects rows of images, one row per image and key, in groups of images.

    An image is identified by its position in its data set, so that it counts once, also if several processes
    share the images and pad their shares.

    Args:
        device: Device on which ranks exchange rows.
        rank: Rank of this process; 0 where each process gets all images.
        world_size: Number of processes that share the images.
    """

    def __init__(self, device: torch.device, rank: int = 0, world_size: int = 1) -> None:
        self.device, self.rank, self.world_size = device, rank, world_size
        self._positions: dict[str, list[Tensor]] = {}
        self._rows: dict[str, dict[K, list[Tensor]]] = {}

    @property
    def groups(self) -> list[str]:
        """Groups with images, in the order of their first batch."""
        return list(self._positions)

    def add(self, group: str, index: Tensor | None, count: int, rows: Mapping[K, Tensor]) -> None:
        """Add the rows of a batch of images.

        Args:
            group: Name of the group, such as the role of the generator.
            index: Positions `(B,)` in the data set; None where the data does not number its images, which
                then count as different images.
            count: Number B of images.
            rows: `(B, ...)` per key; a group has the same keys in every batch.
        """
        positions = self._positions.setdefault(group, [])
        if index is None:
            index = (torch.arange(count) + sum(map(len, positions))) * self.world_size + self.rank
        positions.append(index.cpu())
        for key, values in rows.items():
            self._rows.setdefault(group, {}).setdefault(key, []).append(values.detach().cpu())

    def gather(self, group: str) -> tuple[int, dict[K, Tensor]]:
        """Number of different images of a group on all ranks, and their rows in the order of positions.

        Must be called on all ranks. Removes the group.
        """
        order = first_of_each(torch.cat(self._pieces(self._positions.pop(group))))
        rows = self._rows.pop(group, {})
        return len(order), {key: self._ordered(rows.pop(key), order) for key in list(rows)}

    def _ordered(self, batches: list[Tensor], order: Tensor) -> Tensor:
        """The rows of all ranks at positions `order`; written piece by piece, as features may be large."""
        pieces = self._pieces(batches)
        places = torch.full((sum(map(len, pieces)),), -1)
        places[order] = torch.arange(len(order))
        rows = torch.empty(len(order), *pieces[0].shape[1:], dtype=pieces[0].dtype)
        for piece, place in zip(pieces, torch.split(places, [len(piece) for piece in pieces]), strict=True):
            rows[place[place >= 0]] = piece.cpu()[place >= 0]
        return rows

    def _pieces(self, batches: list[Tensor]) -> list[Tensor]:
        """The batches of all ranks one after the other; ranks may have different numbers of rows."""
        if self.world_size == 1:
            return batches
        pieces: list[Tensor] = gather_all_tensors(torch.cat(batches).to(self.device))
        return pieces


def first_of_each(index: Tensor) -> Tensor:
    """Positions in `index` of the first occurrence of every value, in the order of the values."""
    order = index.argsort(stable=True)
    values = index[order]
    new = torch.ones_like(values, dtype=torch.bool)
    new[1:] = values[1:] != values[:-1]
    return order[new]
