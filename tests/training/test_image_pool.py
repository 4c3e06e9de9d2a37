"""The pools of earlier images: what upstream's `ImagePool` does to its batches."""

import random

import pytest
import torch
from torch import Tensor

from lightning_gancompress.training.image_pool import ImagePools


def numbered(*values: float) -> Tensor:
    """Images that are told apart by their pixels."""
    return torch.tensor(values, dtype=torch.float).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def ask(pools: ImagePools, *values: float) -> list[float]:
    """What is shown in place of the images `values`."""
    shown = pools.query({"g": numbered(*values)})["g"]
    assert (shown == shown[:, :1, :1, :1]).all()
    return shown[:, 0, 0, 0].tolist()


def kept(pools: ImagePools) -> list[float]:
    return [float(image[0, 0, 0]) for image in pools.images["g"]]


class UpstreamPool:
    """`util/image_pool.py` of pytorch-CycleGAN-and-pix2pix, for numbers in place of images."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[float] = []

    def query(self, image: float, coin: float, place: int) -> float:
        if len(self.images) < self.size:
            self.images.append(image)
            return image
        if coin > 0.5:
            earlier, self.images[place] = self.images[place], image
            return earlier
        return image


def test_a_pool_fills_first():
    pools = ImagePools(5)
    assert ask(pools, 1, 2) == [1, 2]
    assert ask(pools, 3, 4) == [3, 4]
    assert kept(pools) == [1, 2, 3, 4]
    shown = ask(pools, 5, 6)  # the last place is taken by the first of them
    assert shown[0] == 5
    assert sorted([*kept(pools), *shown[1:]]) == [1, 2, 3, 4, 5, 6]


def test_an_earlier_image_comes_for_one_that_stays():
    torch.manual_seed(0)
    pools = ImagePools(4)
    ask(pools, 0, 1, 2, 3)
    exchanged = 0
    for image in range(4, 40):
        before = kept(pools)
        (shown,) = ask(pools, image)
        if shown == image:
            assert kept(pools) == before
            continue
        exchanged += 1
        assert shown in before
        place = before.index(shown)
        assert kept(pools) == [*before[:place], image, *before[place + 1 :]]
    assert 0 < exchanged < 36


def test_the_odds_are_even_for_the_image_and_for_the_places():
    torch.manual_seed(1)
    pools, places = ImagePools(8), []
    ask(pools, *range(8))
    fresh = 0
    for image in range(8, 1032):
        before = kept(pools)
        (shown,) = ask(pools, image)
        fresh += shown == image
        if shown != image:
            places.append(before.index(shown))
    # four standard deviations of a binomial
    assert abs(fresh - 512) < 4 * (1024 / 4) ** 0.5
    for place in range(8):
        assert abs(places.count(place) - len(places) / 8) < 4 * (len(places) * 7 / 64) ** 0.5


def test_batches_go_as_upstreams_go_image_by_image(monkeypatch):
    """With the same coins and places, upstream's pool shows and keeps the same."""
    coins, places = random.Random(0), random.Random(1)
    drawn: list[tuple[float, int]] = []

    def rand(_):
        drawn.append((coins.random(), places.randrange(6)))
        return torch.tensor(1 - drawn[-1][0])  # upstream exchanges above a half

    monkeypatch.setattr(torch, "rand", rand)
    monkeypatch.setattr(torch, "randint", lambda size, shape: torch.tensor(drawn[-1][1]))
    pools, upstream = ImagePools(6), UpstreamPool(6)
    for first in range(0, 64, 4):
        count = len(drawn)
        shown = ask(pools, *range(first, first + 4))
        draws = iter(drawn[count:])
        expected = [
            upstream.query(image, *(next(draws) if len(upstream.images) == 6 else (0.0, 0)))
            for image in range(first, first + 4)
        ]
        assert shown == expected
        assert kept(pools) == upstream.images
    assert len(drawn) == 64 - 6


@pytest.mark.parametrize("size", [0, 3])
def test_no_graph_leads_to_the_generator(size):
    pools, images = ImagePools(size), {"g": numbered(0, 1, 2, 3, 4).clone().requires_grad_(True)}
    shown = pools.query(images)["g"]
    assert not shown.requires_grad
    assert shown.shape == images["g"].shape
    assert ("g" in pools.images) == bool(size)


def test_of_no_size_every_image_is_shown():
    pools = ImagePools(0)
    assert [ask(pools, n, n + 1) for n in range(9)] == [[n, n + 1] for n in range(9)]


def test_generators_have_pools_of_their_own():
    pools = ImagePools(2)
    pools.query({"g": numbered(1, 2), "h": numbered(3)})
    assert kept(pools) == [1, 2]
    assert [float(image[0, 0, 0]) for image in pools.images["h"]] == [3]


def test_batches_of_low_precision_under_autocast():
    pools = ImagePools(3)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(4):
            shown = pools.query({"g": torch.rand(2, 3, 2, 2).bfloat16()})["g"]
    assert shown.dtype is torch.bfloat16
    assert {image.dtype for image in pools.images["g"]} == {torch.half}


def test_images_of_several_sizes_share_a_pool():
    """Upstream keeps images one by one, and shows an earlier one whatever its size."""
    torch.manual_seed(0)
    pools, earlier = ImagePools(6), 0
    for n in range(1, 401):
        shown = pools.query({"g": torch.full((1, 3, 2, 2 + n % 3), float(n))})["g"]
        assert (shown == shown[0, 0, 0, 0]).all()
        assert shown.shape[-1] == 2 + int(shown[0, 0, 0, 0]) % 3
        earlier += float(shown[0, 0, 0, 0]) != n
    assert len(pools.images["g"]) == 6
    # four standard deviations of a binomial
    assert abs(earlier - 394 / 2) < 4 * (394 / 4) ** 0.5


def test_a_batch_is_of_one_size():
    torch.manual_seed(0)
    pools = ImagePools(4)
    pools.query({"g": torch.zeros(4, 3, 2, 2)})
    for _ in range(40):
        assert torch.equal(pools.query({"g": torch.ones(2, 3, 4, 4)})["g"], torch.ones(2, 3, 4, 4))
    # those of the new size, as of a run that is resumed with another, come in
    assert {tuple(image.shape) for image in pools.images["g"]} == {(3, 4, 4)}


def test_a_resumed_run_may_have_a_smaller_pool():
    pools = ImagePools(3)
    pools.images["g"] = list(torch.arange(5.0).half().view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone())
    ask(pools, 9)
    assert len(pools.images["g"]) == 3
