"""What the processes of a run tell each other."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def of_all_ranks(value: T) -> list[T]:
    """The values of all ranks, in their order, which are pickled on the way; of one process its own."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[T] = [value] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
