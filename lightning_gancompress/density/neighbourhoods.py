"""Neighbourhoods: nearest neighbours of the teacher's samples, and their cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import replacing, user_path
from lightning_gancompress.options import Count, checked

AT_ONCE = 2**26  # similarities: 256 MiB


@checked
def nearest_neighbours(features: Tensor, k: Count, chunk: Count = 1024) -> Tensor:
    """Each sample and its `k` nearest neighbours by cosine similarity, exactly.

    Args:
        features: `(N, F)`, L2-normalised.
        k: Neighbours per sample, below `N`.
        chunk: Rows compared at once, at most; of large sets fewer, as many as fit into 256 MiB.

    Returns:
        `(N, k + 1)` int64; column 0 is the sample itself, the others follow by distance.

    Raises:
        UserError: `k` is not smaller than the data set.
    """
    count = len(features)
    require_neighbours(count, k)
    chunk = rows_within(AT_ONCE, count, chunk)
    rows = []
    for start in range(0, count, chunk):
        similarity = features[start : start + chunk] @ features.T
        own = torch.arange(start, min(start + chunk, count), device=features.device)
        similarity[torch.arange(len(own), device=features.device), own] = -torch.inf
        rows.append(torch.cat([own.unsqueeze(1), similarity.topk(k, dim=1).indices], dim=1))
    return torch.cat(rows).cpu()


def rows_within(numbers: int, columns: int, most: int = 2**30) -> int:
    """How many rows of so many columns to compute at once, so that they have at most so many numbers."""
    return max(1, min(most, numbers // columns))


def require_neighbours(count: int, k: int) -> None:
    """Raise a UserError unless `count` samples have `k` neighbours each."""
    if not 0 < k < count:
        raise UserError(
            f"neighbours: k={k} needs more than {k} images, there are {count}; "
            f"choose k between 1 and {max(count - 1, 1)}."
        )


def cache_key(*parts: object) -> str:
    """Digest of everything that a cached table depends on: `repr` of each part, and tensors of modules."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode() + b"\0")
        if isinstance(part, nn.Module):
            for name, tensor in part.state_dict().items():
                digest.update(name.encode() + b"\0")
                digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:24]


def cache_folder(chosen: str | None, trainer: Any) -> Path:
    """The folder of cached tables: the `chosen` one, or that of the run, always in a development run."""
    return (
        user_path(chosen) if chosen and not trainer.fast_dev_run else Path(trainer.default_root_dir, "cache")
    )


def load_table(folder: Path, key: str, fits: Callable[[Tensor], bool]) -> Tensor | None:
    """The cached table, or None if it is missing, damaged, or does not fit: then it is made again."""
    try:
        table = read_torch(folder / f"{key}.pt")
    except UserError:
        return None
    return table if isinstance(table, Tensor) and fits(table) else None


def is_neighbourhoods(table: Tensor, count: int, k: int) -> bool:
    """Whether a table is one that `nearest_neighbours` returns for `count` samples."""
    if table.dtype != torch.int64 or table.shape != (count, k + 1):
        return False
    ordered = table.sort(dim=1).values
    distinct = bool((ordered[:, 1:] != ordered[:, :-1]).all())
    in_range = bool((ordered[:, 0] >= 0).all() and (ordered[:, -1] < count).all())
    return distinct and in_range and torch.equal(table[:, 0], torch.arange(count))


def are_features(table: Tensor, width: int) -> bool:
    """Whether a table holds features `(N, width)` of at least one image."""
    if not table.is_floating_point() or table.ndim != 2 or not len(table) or table.shape[1] != width:
        return False
    return bool(table.isfinite().all())


def save_table(folder: Path, key: str, table: Tensor) -> None:
    """Write the table atomically, since another process may read it."""
    with replacing(folder / f"{key}.pt") as draft:
        torch.save(table, draft)
