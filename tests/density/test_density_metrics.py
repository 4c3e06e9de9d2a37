import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gancompress import UserError
from lightning_gancompress.density import (
    density_coverage,
    kernel_density,
    nearest_neighbours,
    neighbourhood_ise,
    precision_recall,
)


def points(count: int, seed: int, size: int = 6) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def brute_force(reference: Tensor, samples: Tensor, k: int) -> tuple[float, float]:
    """Naeem et al. 2020, equations 5 and 6, one pair after the other."""
    hits, covered = 0, 0
    for i, centre in enumerate(reference):
        distances = sorted(float((centre - x).norm()) for j, x in enumerate(reference) if j != i)
        inside = sum(float((centre - y).norm()) < distances[k - 1] for y in samples)
        hits, covered = hits + inside, covered + (inside > 0)
    return hits / (k * len(samples)), covered / len(reference)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_density_and_coverage_are_those_of_brute_force(k):
    reference, samples = points(40, 0), 0.7 * points(30, 1) + 0.3
    assert density_coverage(reference, samples, k) == pytest.approx(brute_force(reference, samples, k))


def test_equal_samples_have_density_and_coverage_one():
    reference = points(60, 0)
    assert density_coverage(reference, reference, 5) == pytest.approx((1.0, 1.0))


def test_two_draws_of_one_distribution_are_near_one():
    density, coverage = density_coverage(points(400, 0), points(400, 1), 5)
    assert density == pytest.approx(1, abs=0.1)
    assert coverage > 0.9


def test_disjoint_samples_have_none():
    assert density_coverage(points(50, 0), points(50, 1) + 100, 5) == (0.0, 0.0)


def test_collapsed_samples_are_dense_and_cover_little():
    reference = points(100, 0)
    centre = reference[reference.norm(dim=1).argmin()]
    density, coverage = density_coverage(reference, centre + 0.01 * points(100, 1), 5)
    assert density > 1.5
    assert coverage < 0.4


def test_close_points_far_from_the_origin_are_told_apart():
    """By way of the matrix product their distances would be rounding errors."""
    reference = F.normalize(torch.ones(60, 6) + 1e-3 * points(60, 0), dim=1)
    samples = F.normalize(torch.ones(60, 6) + 1e-3 * points(60, 1), dim=1)
    exact = density_coverage(reference.double(), samples.double(), 3)
    assert density_coverage(reference, samples, 3) == pytest.approx(exact, abs=0.03)
    assert density_coverage(reference, reference, 3) == pytest.approx((1.0, 1.0))


def clusters():
    centres = F.normalize(points(5, 3), dim=1).repeat(40, 1)
    return F.normalize(centres + 1e-5 * points(200, 0), dim=1), F.normalize(
        centres + 1e-5 * points(200, 1), dim=1
    )


@pytest.mark.parametrize(
    ("reference", "samples"),
    [
        (points(200, 0), points(150, 1)),
        (points(200, 0), points(200, 0)[:150] + 1e-7),
        (points(200, 0), points(200, 0)[:150]),  # a neighbour's distance is exactly the radius
        clusters(),
        (points(5, 3).repeat(40, 1), points(5, 3).repeat(30, 1)),  # every radius is 0
        (100 + 1e-2 * points(200, 0), 100 + 1e-2 * points(150, 1)),
        (points(200, 0), 50 + points(150, 1)),  # nothing is near
    ],
    ids=["random", "near", "equal", "clusters", "repeated", "far from the origin", "apart"],
)
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_figures_are_bit_for_bit_those_of_distances_pair_by_pair(reference, samples, precision):
    def distances(a, b):
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        radii = distances(reference, reference).kthvalue(4, dim=1).values
        others = distances(samples, samples).kthvalue(4, dim=1).values
        between = distances(reference, samples)
        inside, near = between < radii[:, None], between <= radii[:, None]
        density, coverage = inside.sum(0).float().mean() / 3, inside.any(1).float().mean()
        assert density_coverage(reference, samples, 3) == (float(density), float(coverage))
        recalled = (between <= others).any(1)
        expected = float(near.any(0).float().mean()), float(recalled.float().mean())
        assert precision_recall(reference, samples, 3) == expected
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("k", "words"), [(0, "k of density_coverage is 0"), (10, "k=10")])
def test_k_must_fit_the_reference(k, words):
    with pytest.raises(UserError, match=words):
        density_coverage(points(10, 0), points(10, 1), k)


def test_neighbourhood_ise_is_the_mean_over_every_samples_neighbourhood():
    teacher = F.normalize(points(600, 0), dim=1)
    student = F.normalize(teacher + 0.3 * points(600, 1), dim=1)
    rows = nearest_neighbours(teacher, 4)[::60]
    some = [kernel_density(teacher[row], student[row], 5).item() for row in rows]
    all_rows = nearest_neighbours(teacher, 4).flatten()
    value = neighbourhood_ise(teacher, student, 4)
    assert value == pytest.approx(kernel_density(teacher[all_rows], student[all_rows], 5).item(), rel=1e-5)
    assert value == pytest.approx(sum(some) / len(some), rel=0.3)


def test_neighbourhood_ise_is_zero_for_the_teacher_itself_and_grows_with_the_distance():
    teacher = F.normalize(points(50, 0), dim=1)
    assert neighbourhood_ise(teacher, teacher) == pytest.approx(0, abs=1e-6)
    near, far = (
        neighbourhood_ise(teacher, F.normalize(teacher + s * points(50, 1), dim=1)) for s in (0.1, 0.5)
    )
    assert 0 < near < far


def test_precision_and_recall_by_hand():
    """Points on a line: with one neighbour the balls around 0, 1 and 10 have the radii 1, 1 and 9."""
    reference = torch.tensor([[0.0], [1.0], [10.0]])
    samples = torch.tensor([[-0.5], [-3.0], [30.0], [0.5]])
    # -0.5 and 0.5 lie in the balls of 0 and 1; -3 and 30 in none (10 reaches from 1 to 19)
    # radii of the samples: 1, 2.5, 29.5 and 1; 0 and 1 lie around -0.5 and 0.5, and 10 around 30
    assert precision_recall(reference, samples, k=1) == (0.5, 1.0)


def test_gaussians_of_one_kind_are_precise_and_recalled_narrow_ones_are_not_recalled():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1500, 2, generator=generator) for _ in range(2))
    precision, recall = precision_recall(a, b)
    assert precision == pytest.approx(recall, abs=0.03)
    assert precision > 0.95
    narrow = precision_recall(a, 0.1 * b)
    assert narrow[0] == 1.0
    # a tenth of the width reaches to about 0.33: the share of a Gaussian within is 1 - exp(-r2/2)
    assert narrow[1] == pytest.approx(1 - math.exp(-(0.33**2) / 2), abs=0.05)


def test_kernel_density_is_the_integral_for_gaussians():
    """Parzen densities of two points each on a line, integrated on a grid, against the closed form."""
    t, s = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [2.5]])
    h, x = 2.0, torch.linspace(-30, 30, 60001, dtype=torch.float64)

    def density(points):
        return torch.exp(-((x - points.double()) ** 2) / (2 * h**2)).mean(0) / (h * math.sqrt(2 * math.pi))

    integral = torch.trapezoid((density(t) - density(s)) ** 2, x)
    factor = 2 * h * math.sqrt(math.pi)  # 1 / the integral of a Gaussian's square
    assert float(kernel_density(t, s, 2)) == pytest.approx(float(integral * factor), rel=1e-4)
