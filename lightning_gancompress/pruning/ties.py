"""Ties: channels that can only be kept or dropped together, and the groups that are left of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

ALWAYS = 0  # stands for all channels that are never dropped


class Ties:
    """Channels of all layers, side after side; and which of them go together, as a forest of parents."""

    def __init__(self) -> None:
        self._parent = [ALWAYS]
        self._side = [-1]
        self._names: list[str] = []
        self._writes: list[bool] = []

    def side(self, name: str, width: int, writes: bool) -> list[int]:
        """Return numbers for `width` channels that the layer `name` reads or writes."""
        start = len(self._parent)
        self._parent += range(start, start + width)
        self._side += [len(self._names)] * width
        self._names.append(name)
        self._writes.append(writes)
        return self._parent[start:]

    def tie(self, channels: Iterable[int]) -> None:
        """Keep or drop `channels` together; what is tied to `ALWAYS` is kept."""
        roots = {self._root(channel) for channel in channels}
        for root in roots:
            self._parent[root] = min(roots)

    def _root(self, channel: int) -> int:
        while self._parent[channel] != channel:
            self._parent[channel] = channel = self._parent[self._parent[channel]]
        return channel

    def number(self) -> tuple[list[str], list[int], Tensor]:
        """Number what can be dropped.

        What touches the same layers is a group: each of them must keep some of it. A group of one has none to
        drop.

        Returns:
            Names and sizes of the groups, after the first layer that writes each and in the order of these,
            and the place of every channel in the flat mask, where the last stands for `ALWAYS`.
        """
        touched: dict[int, list[int]] = {}
        for channel in range(1, len(self._parent)):
            touched.setdefault(self._root(channel), []).append(self._side[channel])
        touched.pop(ALWAYS, None)
        alike: dict[tuple[int, ...], list[int]] = {}
        for root, sides in touched.items():
            alike.setdefault(tuple(dict.fromkeys(sides)), []).append(root)
        groups = []
        for key, roots in alike.items():
            if len(roots) > 1:
                first = min(key, key=lambda side: (not self._writes[side], side))
                groups.append((first, roots))
        groups.sort()
        places = {root: place for place, root in enumerate(root for _, roots in groups for root in roots)}
        names, seen = [], Counter[str]()
        for first, _ in groups:
            name = self._names[first]
            names.append(f"{name}:{seen[name]}" if seen[name] else name)
            seen[name] += 1
        index = [places.get(self._root(channel), len(places)) for channel in range(len(self._parent))]
        return names, [len(roots) for _, roots in groups], torch.tensor(index)
