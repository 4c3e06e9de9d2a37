"""A cache of decoded images, in memory that a loader's worker processes share."""

from __future__ import annotations

import mmap
import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from lightning_gancompress.data.memory import available_memory

Array = np.ndarray[Any, np.dtype[Any]]
FACTS = 3  # about a file
Planes = tuple[int, type[np.generic]]  # number and type


@dataclass(frozen=True)
class Loaded:
    """A sample as it is before augmentation.

    Attributes:
        size: Width and height of its images in pixels, as decoded.
        pixels: Each image resized, (C, H, W), by key.
    """

    size: tuple[int, int]
    pixels: dict[str, Array]


class SampleCache:
    """The first samples of a data set, as many as there is room for, each kept when it is first asked for.

    The memory is shared with processes that are forked afterwards: what one loads, all have. A sample is
    loaded again when one of its files has changed. Processes that are started otherwise get a copy that is
    empty and stays so.

    Args:
        sizes: Width and height to which the images of each sample are resized, ``(N, 2)``.
        planes: Planes of the pixels of each image of a sample, by key.
        files: Number of files of a sample.
        room: Most bytes of pixels.

    Attributes:
        count: Number of samples that there is room for.
        nbytes: Bytes of their pixels.
        wanted: Bytes of the pixels of all samples.

    Raises:
        OSError: There is not so much memory.
    """

    def __init__(self, sizes: Array, planes: Mapping[str, Planes], files: int, room: int) -> None:
        self._sizes, self._planes = sizes, planes
        pixel = sum(number * np.dtype(kind).itemsize for number, kind in planes.values())
        ends = np.cumsum(sizes.astype(np.int64).prod(1) * pixel)
        self.count, self.wanted = int(np.searchsorted(ends, room, side="right")), int(ends[-1])
        self._starts = np.concatenate([[0], ends[: self.count]])
        self.nbytes = int(self._starts[-1])
        # what the files of a sample were like, and its size; of one that is not loaded zeros
        columns = files * FACTS + 2
        table = self.count * columns * 8
        self._memory = np.frombuffer(mmap.mmap(-1, max(1, table + self.nbytes)), np.uint8)
        self._table = self._memory[:table].view(np.int64).reshape(self.count, columns)
        self._starts += table

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of the memory, which can't be passed on."""
        nothing = np.empty(0, np.uint8)
        return self.__dict__ | {"count": 0, "nbytes": 0, "_memory": nothing, "_table": nothing}

    def of(self, index: int, files: Iterable[Path], load: Callable[[int], Loaded]) -> Loaded:
        """A sample, which `load` loads if it is not there, or of other files than these are now."""
        if index >= self.count or not (stamp := _stamp(files)):
            return load(index)
        row = self._table[index]
        *known, width, height = row.tolist()
        if known == stamp:
            return Loaded((width, height), self._views(index))
        loaded, views = load(index), self._views(index)
        if all(views[key].shape == pixels.shape for key, pixels in loaded.pixels.items()):
            row[:] = 0  # while others may read it
            for key, pixels in loaded.pixels.items():
                views[key][:] = pixels
            row[:] = *stamp, *loaded.size
        return loaded

    def _views(self, index: int) -> dict[str, Array]:
        start, (width, height) = int(self._starts[index]), self._sizes[index].tolist()
        views = {}
        for key, (number, kind) in self._planes.items():
            end = start + number * height * width * np.dtype(kind).itemsize
            views[key] = self._memory[start:end].view(kind).reshape(number, height, width)
            start = end
        return views


def _stamp(files: Iterable[Path]) -> list[int]:
    """What changes when one of the files does; nothing if one is gone, which whoever reads it tells."""
    with suppress(OSError):
        return [fact for file in files for fact in _facts(file.stat())]
    return []


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size


class Cacheable(Protocol):
    """A data set that can keep its samples."""

    def __len__(self) -> int: ...

    def remember(self, room: int) -> SampleCache:
        """Keep samples from now on, in `room` bytes at most."""


class CacheRoom:
    """Shares memory for caches among the data sets of a process.

    Args:
        limit: Most bytes of all caches together; None is this process's share of a quarter of what is free.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._used: dict[str, int] = {}

    def serve(self, split: str, datasets: Sequence[Cacheable], processes: int) -> None:
        """Have the data sets of a split keep samples, in the room of those that it had before.

        Args:
            split: Name of the split.
            datasets: Its data sets.
            processes: Processes of this machine that share its memory.
        """
        if self.limit is None:
            self.limit = available_memory() // 4 // processes
        self._used[split] = held = wanted = 0
        for dataset in datasets if self.limit else ():
            try:
                cache = dataset.remember(self.limit - sum(self._used.values()))
            except OSError:  # the system gives less than it has
                continue
            self._used[split] += cache.nbytes
            held, wanted = held + cache.count, wanted + cache.wanted
        if held < (whole := sum(map(len, datasets))) and self.limit:
            others = sum(self._used.values()) - self._used[split]
            rank_zero_info(
                f"The cache of decoded images, {self.limit / 1e9:.2g} GB, holds {held} of {whole} {split} "
                "samples: the others are decoded in every epoch. Where there is memory, set data.cache_gb to "
                f"{(wanted + others) / 1e9 + 0.05:.1f}."
            )


def shared_with_workers(workers: int) -> bool:
    """Whether a loader's worker processes share this one's memory, or there are none."""
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    return workers == 0 or method == "fork"
