import math

import pytest
import torch
from torch import nn

from lightning_gancompress.tasks import Pix2Pix


def point(i: int, o: int, weights: list[float], bias: float = 0.0) -> nn.Conv2d:
    layer = nn.Conv2d(i, o, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights).view(o, i, 1, 1))
        layer.bias.fill_(bias)
    return layer


@pytest.fixture
def networks():
    """An image of 2x + 0.5; a logit of source - 3 x image + 1."""
    return nn.ModuleDict(
        {"generator": point(1, 1, [2.0], 0.5), "discriminator": point(2, 1, [1.0, -3.0], 1.0)}
    )


def pixels(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


BATCH = {"source": pixels(0.0, 0.5), "target": pixels(1.0, -1.0)}
# images 0.5 and 1.5; logits on images -0.5 and -3.0; logits on targets -2.0 and 4.5


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_images_targets_and_logits(networks):
    task = Pix2Pix()
    images = task.generate(networks, BATCH)
    assert images["generator"].flatten().tolist() == [0.5, 1.5]
    assert task.targets(BATCH)["generator"] is BATCH["target"]
    assert task.discriminate(networks, BATCH, images)["discriminator"].flatten().tolist() == [-0.5, -3.0]
    assert task.discriminate(networks, BATCH, task.targets(BATCH))["discriminator"].flatten().tolist() == [
        -2.0,
        4.5,
    ]


@pytest.mark.parametrize(
    ("mode", "real", "fake"),
    [
        ("vanilla", (softplus(2.0) + softplus(-4.5)) / 2, (softplus(-0.5) + softplus(-3.0)) / 2),
        ("lsgan", (9.0 + 12.25) / 2, (0.25 + 9.0) / 2),
        ("hinge", (3.0 + 0.0) / 2, (0.5 + 0.0) / 2),
    ],
)
def test_discriminator_loss_by_hand(networks, mode, real, fake):
    task = Pix2Pix(mode)
    loss, terms = task.discriminator_loss(networks, BATCH, task.generate(networks, BATCH))
    assert terms["discriminator_real"].item() == pytest.approx(real)
    assert terms["discriminator_fake"].item() == pytest.approx(fake)
    assert loss.item() == pytest.approx((real + fake) / 2)


@pytest.mark.parametrize(
    ("mode", "fool"),
    [
        ("vanilla", (softplus(0.5) + softplus(3.0)) / 2),
        ("lsgan", (2.25 + 16.0) / 2),
        ("hinge", 1.75),
    ],
)
def test_generator_loss_by_hand(networks, mode, fool):
    task = Pix2Pix(mode, lambda_l1=10.0)
    loss, terms = task.generator_loss(networks, BATCH, task.generate(networks, BATCH))
    assert terms["generator_gan"].item() == pytest.approx(fool)
    assert terms["generator_l1"].item() == pytest.approx((0.5 + 2.5) / 2)
    assert loss.item() == pytest.approx(fool + 10 * 1.5)


def test_without_a_discriminator_the_distance_is_left(networks):
    del networks["discriminator"]
    task = Pix2Pix(lambda_l1=10.0)
    loss, terms = task.generator_loss(networks, BATCH, task.generate(networks, BATCH))
    assert terms.keys() == {"generator_l1"}
    assert loss.item() == pytest.approx(10 * 1.5)


def test_the_generators_loss_reaches_it_through_the_discriminator(networks):
    task = Pix2Pix("hinge", lambda_l1=0.0)
    task.generator_loss(networks, BATCH, task.generate(networks, BATCH))[0].backward()
    # -mean(source - 3 (w source + b) + 1): slope 3 x mean(source) in w, 3 in b
    assert networks["generator"].weight.grad.item() == pytest.approx(3 * 0.25)
    assert networks["generator"].bias.grad.item() == pytest.approx(3.0)


def test_reconstruction_is_the_mean_over_generators():
    images = {"a": pixels(0.0, 1.0), "b": pixels(2.0, 2.0)}
    references = {"a": pixels(1.0, 1.0), "b": pixels(0.0, 1.0)}
    assert Pix2Pix.reconstruction(images, references).item() == pytest.approx((0.5 + 1.5) / 2)


def test_upstreams_weights_are_the_defaults():
    task = Pix2Pix()
    assert (task.gan_mode, task.lambda_l1) == ("vanilla", 100.0)
    assert (task.generators, task.discriminators) == (("generator",), ("discriminator",))
