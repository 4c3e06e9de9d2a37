"""Metrics of density: how well samples cover the distribution of reference samples."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gancompress.density.neighbourhoods import nearest_neighbours, require_neighbours
from lightning_gancompress.density.objectives import kernel_density
from lightning_gancompress.options import Count, checked


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
    radii = _distances(reference, reference).kthvalue(k + 1, dim=1).values
    inside = _distances(reference, samples) < radii.unsqueeze(1)
    return float(inside.sum(0).float().mean() / k), float(inside.any(1).float().mean())


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
    between = _distances(reference, samples)
    reference_radii, sample_radii = (
        _distances(points, points).kthvalue(k + 1, dim=1).values for points in (reference, samples)
    )
    precision = (between <= reference_radii.unsqueeze(1)).any(0).float().mean()
    recall = (between <= sample_radii.unsqueeze(0)).any(1).float().mean()
    return float(precision), float(recall)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # not by matrix products, whose rounding errors exceed the distances of close points
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
