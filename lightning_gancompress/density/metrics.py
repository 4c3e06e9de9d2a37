"""Metrics of density: how well samples cover the distribution of reference samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightning_gancompress.density.neighbourhoods import nearest_neighbours, require_neighbours, rows_within
from lightning_gancompress.density.objectives import kernel_density
from lightning_gancompress.options import Count, checked

AT_ONCE = 2**23  # pairs: tensors of 64 MiB, whose memory goes back at once and leaves no gaps behind
BLOCK = 4096  # points in double precision, or pairs compared one by one


@checked
def neighbourhood_ise(teacher: Tensor, student: Tensor, k: Count = 5) -> float:
    """Mean integrated squared density error over every sample's neighbourhood (lower is better).

    Args:
        teacher: `(N, F)` L2-normalised features of the teacher's images.
        student: The same for the student's images of the same sources.
        k: Neighbours per sample.
    """
    table = nearest_neighbours(teacher, k)
    # in chunks, since the pairs of all neighbourhoods need too much memory
    sums = [
        kernel_density(teacher[rows.flatten()], student[rows.flatten()], k + 1) * len(rows)
        for rows in torch.split(table, 256)
    ]
    return float(torch.stack(sums).sum() / len(table))


@checked
def density_coverage(reference: Tensor, samples: Tensor, k: Count = 5) -> tuple[float, float]:
    """k-NN density and coverage of Naeem et al. 2020 (ICML, "Reliable Fidelity and Diversity Metrics").

    Args:
        reference: `(N, F)` features that define the manifold: real images, or the teacher's.
        samples: `(M, F)` features to evaluate.
        k: Neighbours that set the radius of each reference point.

    Returns:
        Density: mean number of reference balls that contain a sample, divided by `k`: about 1 for equal
        distributions, may be above. Coverage: share of reference balls that contain a sample, in [0, 1].
    """
    require_neighbours(len(reference), k)
    radii = _radii(reference, k)
    balls, covered = torch.zeros(len(samples), dtype=torch.int64, device=samples.device), []
    for pairs in _pairs(reference, samples):
        inside = pairs.closer(radii[pairs.rows].unsqueeze(1), torch.lt)
        balls += inside.sum(0)
        covered.append(inside.any(1))
    return float(balls.float().mean() / k), float(torch.cat(covered).float().mean())


@checked
def precision_recall(reference: Tensor, samples: Tensor, k: Count = 5) -> tuple[float, float]:
    """k-NN precision and recall of Kynkaanniemi et al. 2019 (NeurIPS, "Improved Precision and Recall").

    Args:
        reference: `(N, F)` features that define the manifold: real images, or the teacher's.
        samples: `(M, F)` features to evaluate.
        k: Neighbours that set the radius of each point of either set.

    Returns:
        Precision: share of samples within some reference ball. Recall: share of reference points within some
        ball around a sample. Both in [0, 1].
    """
    require_neighbours(len(reference), k)
    require_neighbours(len(samples), k)
    reference_radii, sample_radii = _radii(reference, k), _radii(samples, k)
    precise, recalled = torch.zeros(len(samples), dtype=torch.bool, device=samples.device), []
    for pairs in _pairs(reference, samples):
        precise |= pairs.closer(reference_radii[pairs.rows].unsqueeze(1), torch.le).any(0)
        recalled.append(pairs.closer(sample_radii.unsqueeze(0), torch.le).any(1))
    return float(precise.float().mean()), float(torch.cat(recalled).float().mean())


def _radii(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its `k`-th neighbour, `(N,)`."""
    return torch.cat([pairs.smallest(k + 1) for pairs in _pairs(points, points)])


def _pairs(a: Tensor, b: Tensor) -> Iterator[_Pairs]:
    """All pairs: rows of `a` with all of `b`, a part after the other."""
    count = rows_within(AT_ONCE, len(b))
    norms = torch.cat([block.double().square().sum(1) for block in torch.split(b, BLOCK)])
    for start in range(0, len(a), count):
        yield _Pairs(slice(start, start + count), a[start : start + count], b, norms)


class _Pairs:
    """Distances of some rows to all of `b`: in double precision by matrix products, or in single precision.

    The figures are of what `torch.cdist` computes pair by pair, in single precision and twenty times slower.
    Only pairs as close to a limit as its rounding are compared by it.

    Args:
        rows: Which rows of the first set these are.
        a: They, `(R, F)`.
        b: The second set, `(N, F)`.
        norms: Squared norms of `b` in double precision, `(N,)`.
    """

    def __init__(self, rows: slice, a: Tensor, b: Tensor, norms: Tensor) -> None:
        self.rows, self._a, self._b = rows, a, b
        wide = a.double()
        own = wide.square().sum(1, keepdim=True)
        self._squared = wide.new_empty(len(a), len(b))
        # in blocks: the whole of `b` in double precision would be the largest tensor
        for start in range(0, len(b), BLOCK):
            columns = slice(start, start + BLOCK)
            squared = own + norms[columns] - 2 * wide @ b[columns].double().T
            self._squared[:, columns] = squared.clamp_(min=0)
        terms = a.shape[1] + 8
        self._relative = terms * torch.finfo(a.dtype).eps
        largest = float(own.max() + norms.max())
        self._absolute = 4 * terms * torch.finfo(torch.float64).eps * largest

    def closer(self, limits: Tensor, compare: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Which pairs have a distance that compares so with its limit; `limits` broadcasts to all pairs."""
        departure = self._squared - limits.double().square()
        inside = departure < 0
        doubtful = departure.abs_() <= (self._relative * self._squared).add_(self._absolute)
        inside[doubtful] = compare(self._exact(doubtful), limits.expand_as(inside)[doubtful])
        return inside

    def smallest(self, k: int) -> Tensor:
        """The `k`-th smallest distance of each row."""
        limit = self._squared.kthvalue(k, dim=1, keepdim=True).values
        near = self._squared <= limit * (1 + 4 * self._relative) + 4 * self._absolute
        distances = torch.full_like(self._squared, torch.inf, dtype=self._a.dtype)
        distances[near] = self._exact(near)
        return distances.kthvalue(k, dim=1).values

    def _exact(self, wanted: Tensor) -> Tensor:
        parts = []
        for pairs in torch.split(wanted.nonzero(), BLOCK):
            a, b = self._a[pairs[:, :1]], self._b[pairs[:, 1:]]
            parts.append(torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"))
        return torch.cat(parts).flatten()
