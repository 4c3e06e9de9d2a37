"""Ties: channels that can only be kept or dropped together, and the groups that are left of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

ALWAYS = 0  # the position of all channels that are never dropped


class Ties:
    """Positions, block after block; and which of them go together, as a forest of parents.

    A block holds the channels that touch the same layers, each of which must keep some of them.
    """

    def __init__(self) -> None:
        self._parent = [ALWAYS]
        self._block = [-1]
        self._names: list[str] = []

    def block(self, name: str, size: int) -> range:
        """Return `size` new positions."""
        start = len(self._parent)
        self._parent += range(start, start + size)
        self._block += [len(self._names)] * size
        self._names.append(name)
        return range(start, start + size)

    def tie(self, positions: Iterable[int]) -> None:
        """Keep or drop `positions` together; what is tied to `ALWAYS` is kept."""
        first, *others = {self._root(position) for position in positions} or {ALWAYS}
        for other in others:
            first, later = sorted((self._root(first), self._root(other)))
            self._parent[later] = first

    def _root(self, position: int) -> int:
        while self._parent[position] != position:
            self._parent[position] = position = self._parent[self._parent[position]]
        return position

    def number(self) -> tuple[list[str], list[int], Tensor]:
        """Number what can be dropped.

        Ties that touch the same blocks are a group, so that a group that keeps one leaves none of its layers
        empty; a group that has no other can't be dropped.

        Returns:
            Names and sizes of the groups, and the place of every position in the flat mask, where the last
            stands for `ALWAYS`.
        """
        touched: dict[int, set[int]] = {}
        for position in range(1, len(self._parent)):
            touched.setdefault(self._root(position), set()).add(self._block[position])
        touched.pop(ALWAYS, None)
        groups: dict[Sequence[int], list[int]] = {}
        for root, blocks in touched.items():
            groups.setdefault(tuple(sorted(blocks)), []).append(root)
        groups = {blocks: roots for blocks, roots in sorted(groups.items()) if len(roots) > 1}
        places = {root: place for place, root in enumerate(r for roots in groups.values() for r in roots)}
        names, seen = [], Counter[str]()
        for first, *_ in groups:
            name = self._names[first]
            names.append(f"{name}:{seen[name]}" if seen[name] else name)
            seen[name] += 1
        index = [places.get(self._root(position), len(places)) for position in range(len(self._parent))]
        return names, [len(roots) for roots in groups.values()], torch.tensor(index)
