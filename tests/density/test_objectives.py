import math

import pytest
import torch
import torch.nn.functional as F

from lightning_gancompress import UserError
from lightning_gancompress.density import adversarial_density, kernel_density


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values).unsqueeze(1)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# -- kernel --------------------------------------------------------------------------------------------


def test_kernel_density_by_hand():
    """Teacher at 0 and 1, so the bandwidth is 1; student at 0 and 2."""
    within_teacher = (2 + 2 * math.exp(-1 / 4)) / 4
    within_student = (2 + 2 * math.exp(-4 / 4)) / 4
    across = (1 + math.exp(-4 / 4) + 2 * math.exp(-1 / 4)) / 4
    expected = within_teacher + within_student - 2 * across
    assert kernel_density(column(0, 1), column(0, 2), 2).item() == pytest.approx(expected, abs=1e-6)


def test_kernel_density_is_the_integrated_squared_error_of_gaussian_estimates():
    """Up to the factor 1 / sqrt(4 pi h^2), here by summing up a grid."""
    teacher, student = [0.0, 1.0, 3.0], [0.5, 1.5, 6.0]
    bandwidth = 2.0  # median of the distances 1, 2 and 3
    grid = torch.linspace(-40, 60, 100_001, dtype=torch.float64)

    def estimate(samples: list[float]) -> torch.Tensor:
        bumps = [torch.exp(-((grid - x) ** 2) / (2 * bandwidth**2)) for x in samples]
        return torch.stack(bumps).mean(0) / math.sqrt(2 * math.pi * bandwidth**2)

    error = torch.trapezoid((estimate(teacher) - estimate(student)) ** 2, grid)
    value = kernel_density(column(*teacher), column(*student), 3)
    assert value.item() == pytest.approx(float(error) * math.sqrt(4 * math.pi * bandwidth**2), rel=1e-4)


def test_kernel_density_is_the_mean_over_neighbourhoods():
    teacher, student = torch.rand(8, 3), torch.rand(8, 3)
    apart = [kernel_density(teacher[i : i + 4], student[i : i + 4], 4).item() for i in (0, 4)]
    assert kernel_density(teacher, student, 4).item() == pytest.approx(sum(apart) / 2, abs=1e-6)
    shuffled = teacher[[5, 4, 7, 6, 1, 0, 3, 2]]
    assert kernel_density(shuffled, student, 4).item() != pytest.approx(sum(apart) / 2, abs=1e-3)


def test_kernel_density_is_zero_for_equal_sets_and_positive_for_others():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(12, 5, generator=generator)
    assert kernel_density(teacher, teacher, 4).item() == pytest.approx(0, abs=1e-6)
    # which image is which does not matter, only where they are
    assert kernel_density(
        teacher, teacher[[1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]], 4
    ).item() == pytest.approx(0, abs=1e-6)
    values = [
        kernel_density(teacher, teacher + shift * torch.randn(12, 5, generator=generator), 4).item()
        for shift in (0.1, 0.5, 2.0)
    ]
    assert 0 < values[0] < values[1] < values[2]


def test_kernel_density_ignores_the_scale():
    teacher, student = torch.rand(4, 3), torch.rand(4, 3)
    value = kernel_density(teacher, student, 4)
    torch.testing.assert_close(kernel_density(100 * teacher, 100 * student, 4), value, rtol=1e-4, atol=1e-6)


def test_kernel_density_pulls_the_student_towards_the_teacher():
    teacher = column(0.0, 1.0)
    student = column(0.2, 1.5).requires_grad_(True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(kernel_density(teacher, student, 2), student)
        student = (student - 0.5 * gradient).detach().requires_grad_(True)
    torch.testing.assert_close(student.detach(), teacher, atol=0.05, rtol=0)


def test_kernel_density_is_finite_for_identical_images():
    student = torch.ones(4, 3).requires_grad_(True)
    value = kernel_density(torch.ones(4, 3), student, 4)
    value.backward()
    assert value.item() == 0
    assert student.grad.isfinite().all()


def test_one_image_is_no_neighbourhood():
    with pytest.raises(UserError, match="members: 1"):
        kernel_density(torch.rand(4, 3), torch.rand(4, 3), 1)


# -- adversarial ---------------------------------------------------------------------------------------

WINNER, LOSER = torch.tensor([3.0, 1.0, -1.0, 0.0]), torch.tensor([0.0, 2.0, 4.0, -2.0])


def logits(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


def test_standard_comparison_by_hand():
    value = adversarial_density(logits(WINNER), logits(LOSER), 2, "standard")
    expected = sum(softplus(-float(w)) for w in WINNER) / 8 + sum(softplus(float(x)) for x in LOSER) / 8
    assert value.item() == pytest.approx(expected)
    # the plain cross-entropy, halved as in the task
    crosses = F.binary_cross_entropy_with_logits(WINNER, torch.ones(4)) + F.binary_cross_entropy_with_logits(
        LOSER, torch.zeros(4)
    )
    assert value.item() == pytest.approx(float(crosses) / 2)


def relativistic(winner: list[float], loser: list[float]) -> float:
    """Each against the mean of the other side."""
    mean_winner, mean_loser = sum(winner) / len(winner), sum(loser) / len(loser)
    first = sum(softplus(-(w - mean_loser)) for w in winner) / len(winner)
    second = sum(softplus(x - mean_winner) for x in loser) / len(loser)
    return (first + second) / 2


def test_global_comparison_by_hand():
    value = adversarial_density(logits(WINNER), logits(LOSER), 2, "global")
    assert value.item() == pytest.approx(relativistic(WINNER.tolist(), LOSER.tolist()))


def test_local_comparison_by_hand():
    value = adversarial_density(logits(WINNER), logits(LOSER), 2, "local")
    halves = [relativistic(WINNER[i : i + 2].tolist(), LOSER[i : i + 2].tolist()) for i in (0, 2)]
    assert value.item() == pytest.approx(sum(halves) / 2)
    whole = adversarial_density(logits(WINNER), logits(LOSER), 4, "local")
    assert whole.item() == adversarial_density(logits(WINNER), logits(LOSER), 2, "global").item()


def test_local_comparison_forgives_what_sets_neighbourhoods_apart():
    """A critic that judges one neighbourhood more real than another as a whole says nothing about density."""
    offset = torch.tensor([5.0, 5.0, -5.0, -5.0])
    plain = adversarial_density(logits(WINNER), logits(LOSER), 2, "local")
    shifted = adversarial_density(logits(WINNER + offset), logits(LOSER + offset), 2, "local")
    assert shifted.item() == pytest.approx(plain.item(), abs=1e-6)
    assert adversarial_density(
        logits(WINNER + offset), logits(LOSER + offset), 2, "global"
    ).item() != pytest.approx(adversarial_density(logits(WINNER), logits(LOSER), 2, "global").item(), abs=0.1)


def test_patches_of_an_image_belong_to_its_neighbourhood():
    winner, loser = torch.randn(4, 1, 3, 2), torch.randn(4, 1, 3, 2)
    value = adversarial_density(winner, loser, 2, "local")
    halves = [
        relativistic(winner[i : i + 2].flatten().tolist(), loser[i : i + 2].flatten().tolist())
        for i in (0, 2)
    ]
    assert value.item() == pytest.approx(sum(halves) / 2, rel=1e-5)


@pytest.mark.parametrize("comparison", ["local", "global", "standard"])
def test_it_is_small_when_the_winner_wins(comparison):
    high, low = logits(torch.full((4,), 5.0)), logits(torch.full((4,), -5.0))
    won = adversarial_density(high, low, 2, comparison).item()
    tied = adversarial_density(high, high, 2, comparison).item()
    lost = adversarial_density(low, high, 2, comparison).item()
    assert won < 0.01 < tied < lost
    student = high.clone().requires_grad_(True)
    adversarial_density(student, low, 2, comparison).backward()
    assert (student.grad < 0).all()
