"""Metrics of density: how well samples cover the distribution of reference samples."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_gancompress.density.neighbourhoods import nearest_neighbours, require_neighbours, rows_within
from lightning_gancompress.density.objectives import kernel_density
from lightning_gancompress.options import Count, checked

AT_ONCE = 2**24  # distances: 64 MiB, and twice as much again to sort them


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
    for rows, distances in _distances(reference, samples):
        inside = distances < radii[rows].unsqueeze(1)
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
    for rows, distances in _distances(reference, samples):
        precise |= (distances <= reference_radii[rows].unsqueeze(1)).any(0)
        recalled.append((distances <= sample_radii.unsqueeze(0)).any(1))
    return float(precise.float().mean()), float(torch.cat(recalled).float().mean())


def _radii(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its `k`-th neighbour, `(N,)`."""
    return torch.cat([distances.kthvalue(k + 1, dim=1).values for _, distances in _distances(points, points)])


def _distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Distances of all pairs: rows of `a`, and theirs to all of `b`, a part after the other."""
    count = rows_within(AT_ONCE, len(b))
    for start in range(0, len(a), count):
        rows = slice(start, start + count)
        # not by matrix products, whose rounding errors exceed the distances of close points
        yield rows, torch.cdist(a[rows], b, compute_mode="donot_use_mm_for_euclid_dist")
