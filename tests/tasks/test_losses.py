import math

import pytest
import torch

from lightning_gancompress.tasks import fool_loss, gan_loss

LOGITS = torch.tensor([[2.0, -1.0], [0.0, 0.5]])


def mean(loss) -> float:
    return sum(loss(x) for x in (2.0, -1.0, 0.0, 0.5)) / 4


@pytest.mark.parametrize(
    ("mode", "real", "fake"),
    [
        ("vanilla", mean(lambda x: math.log1p(math.exp(-x))), mean(lambda x: math.log1p(math.exp(x)))),
        ("lsgan", mean(lambda x: (x - 1) ** 2), mean(lambda x: x**2)),
        ("hinge", mean(lambda x: max(0, 1 - x)), mean(lambda x: max(0, 1 + x))),
    ],
)
def test_gan_loss_by_hand(mode, real, fake):
    assert gan_loss(LOGITS, True, mode).item() == pytest.approx(real)
    assert gan_loss(LOGITS, False, mode).item() == pytest.approx(fake)


@pytest.mark.parametrize(
    ("mode", "value"),
    [
        ("vanilla", mean(lambda x: math.log1p(math.exp(-x)))),
        ("lsgan", mean(lambda x: (x - 1) ** 2)),
        ("hinge", mean(lambda x: -x)),
    ],
)
def test_fool_loss_by_hand(mode, value):
    assert fool_loss(LOGITS, mode).item() == pytest.approx(value)


@pytest.mark.parametrize("mode", ["vanilla", "lsgan", "hinge"])
def test_sides_pull_in_opposite_directions(mode):
    def slope(loss) -> float:
        logit = torch.zeros(1, requires_grad=True)
        loss(logit).backward()
        return float(logit.grad)

    assert slope(lambda x: fool_loss(x, mode)) < 0
    assert slope(lambda x: gan_loss(x, True, mode)) < 0
    assert slope(lambda x: gan_loss(x, False, mode)) >= 0


def test_vanilla_loss_is_finite_for_any_logit():
    for real in (True, False):
        assert gan_loss(torch.tensor([-1e4, 1e4]), real, "vanilla").isfinite()
