import math
import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from lightning_gancompress import UserError
from lightning_gancompress.networks import PatchDiscriminator, ResnetGenerator, UnetGenerator
from lightning_gancompress.pruning import (
    ChannelGroups,
    MaskedCost,
    budget_penalty,
    count_macs,
    find_groups,
    fit_budget,
    largest_first,
    parse_budget,
    slim,
)

# -- what a user writes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "macs"),
    [
        (0.1, 600_000_000),
        ("0.1", 600_000_000),
        (1, 6_000_000_000),
        (1.0, 6_000_000_000),
        ("1e-1", 600_000_000),
        ("2.4G", 2_400_000_000),
        ("2.4 g", 2_400_000_000),
        (" 800M ", 800_000_000),
        ("800000K", 800_000_000),
        ("0.0024T", 2_400_000_000),
        (2.4e9, 2_400_000_000),
        ("2.4e9", 2_400_000_000),
        (2_400_000_000, 2_400_000_000),
        ("6G", 6_000_000_000),
    ],
)
def test_a_budget_is_a_fraction_or_a_number(value, macs):
    assert parse_budget(value, 6_000_000_000) == macs


@pytest.mark.parametrize(
    ("value", "macs"), [(0.29, 29_000), ("0.57", 57_000), (0.58, 58_000), (1e-5, 1), ("0.333333", 33_333)]
)
def test_a_budget_is_what_its_digits_say(value, macs):
    """0.29 * 100000 is 28999.999999999996 in binary, which would cost a channel."""
    assert parse_budget(value, 100_000) == macs


@pytest.mark.parametrize("tenths", range(201, 400, 2))
def test_so_is_a_number_of_macs(tenths):
    assert parse_budget(f"{tenths / 100}G", 6_000_000_000) == tenths * 10_000_000


@pytest.mark.parametrize(
    ("budgets", "order"),
    [
        (0.1, [0.1]),
        ("2.4G", ["2.4G"]),
        ([0.1, "0.25", 0.05], ["0.25", 0.1, 0.05]),
        (["600M", "2.4 G", 800e6], ["2.4 G", 800e6, "600M"]),
        ([1.0], [1.0]),
    ],
)
def test_budgets_are_sorted(budgets, order):
    assert largest_first(budgets, "model.budget") == order


@pytest.mark.parametrize("value", ["abc", "", "nan", "inf", "2.4X", "1..2", "10%", "2.4G MACs", True])
def test_what_is_no_number_is_no_budget(value):
    with pytest.raises(UserError, match=rf"generator budget is {re.escape(repr(value))}: give a fraction of"):
        parse_budget(value, 6_000_000_000, "generator budget")


@pytest.mark.parametrize(
    "value", [0, -1, "0", "-0.5", "-2G", 0.0, 1.5, "999", 1.0001, "0.9K", "1e999", "1e-999999999"]
)
def test_a_budget_is_a_fraction_or_at_least_a_thousand_macs(value):
    with pytest.raises(UserError, match=rf"budget is {value!r}: give a fraction of"):
        parse_budget(value, 6_000_000_000)


@pytest.mark.parametrize("value", ["6.1G", 7e9, 1e30])
def test_a_budget_is_not_above_the_teacher(value):
    with pytest.raises(UserError, match=rf"budget: {re.escape(repr(value))} is above .* 6 GMACs"):
        parse_budget(value, 6_000_000_000)


def test_penalty_is_the_log_of_what_is_too_much_or_left_unused():
    macs = torch.tensor([50.0, 100.0, 200.0, 1000.0], requires_grad=True)
    penalty = budget_penalty(macs, 100)
    torch.testing.assert_close(penalty, torch.tensor([math.log(2), 0.0, math.log(2), math.log(10)]))
    penalty.sum().backward()
    torch.testing.assert_close(macs.grad[[0, 2, 3]], torch.tensor([-1 / 50, 1 / 200, 1 / 1000]))


# -- the channels that meet it -------------------------------------------------------------------------


@dataclass
class Subject:
    network: nn.Module
    inputs: list[Tensor]
    groups: ChannelGroups
    cost: MaskedCost


NETWORKS = {
    "resnet": (lambda: ResnetGenerator(), (1, 3, 16, 16)),
    "unet": (lambda: UnetGenerator(), (1, 3, 256, 256)),
    "patch": (lambda: PatchDiscriminator(), (1, 6, 32, 32)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def subject(request):
    """A network at its usual width; the share of each layer in the MACs does not depend on the image size."""
    make, shape = NETWORKS[request.param]
    network, inputs = make().eval(), [torch.zeros(shape)]
    groups = find_groups(network, inputs)
    return Subject(network, inputs, groups, MaskedCost(network, groups, inputs, "exact"))


def scores(subject: Subject, seed: int) -> Tensor:
    return torch.randn(subject.groups.total, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.03])
def test_macs_are_within_a_hundredth_of_the_budget_and_never_above(subject, fraction):
    budget = parse_budget(fraction, subject.cost.full)
    for candidate in (scores(subject, 0), scores(subject, 1).sign(), torch.zeros(subject.groups.total)):
        mask = fit_budget(candidate, subject.groups, subject.cost, budget)
        assert set(mask.tolist()) <= {0.0, 1.0}
        assert 0.99 * budget <= float(subject.cost(mask)) <= budget
    assert min(subject.groups.kept(mask).values()) >= 1


def test_the_small_network_itself_meets_the_budget(subject):
    budget = parse_budget(0.1, subject.cost.full)
    mask = fit_budget(scores(subject, 2), subject.groups, subject.cost, budget)
    small = slim(subject.network, subject.groups, mask)
    assert 0.99 * budget <= count_macs(small, subject.inputs) <= budget


def test_min_channels_stay_in_every_group(subject):
    budget = parse_budget(0.03, subject.cost.full)
    uneven = torch.cat(
        [part + 4 * number for number, part in enumerate(subject.groups.split(scores(subject, 3)))]
    )
    kept = subject.groups.kept(fit_budget(uneven, subject.groups, subject.cost, budget, min_channels=3))
    assert min(kept.values()) == 3


def test_widths_are_multiples_or_whole(subject):
    budget = parse_budget(0.3, subject.cost.full)
    mask = fit_budget(scores(subject, 4), subject.groups, subject.cost, budget, 1, channel_multiple=8)
    assert 0.9 * budget <= float(subject.cost(mask)) <= budget
    assert all(kept % 8 == 0 for kept in subject.groups.kept(mask).values())


def test_within_a_group_the_best_channels_stay(subject):
    candidate = scores(subject, 5)
    mask = fit_budget(candidate, subject.groups, subject.cost, parse_budget(0.2, subject.cost.full))
    for kept, values in zip(subject.groups.split(mask > 0.5), subject.groups.split(candidate), strict=True):
        assert kept.all() or values[kept].min() > values[~kept].max()


def test_the_whole_network_fits_the_whole_budget(subject):
    assert fit_budget(scores(subject, 6), subject.groups, subject.cost, subject.cost.full).all()


def test_out_of_reach_says_the_smallest(subject):
    with pytest.raises(UserError) as error:
        fit_budget(scores(subject, 7), subject.groups, subject.cost, 1000, 2, 8, "generator budget")
    message = str(error.value)
    assert "generator budget: 1e-06 GMACs can't be reached" in message
    assert "min_channels=2 and channel_multiple=8" in message
    smallest = float(re.search(r"has (\S+) GMACs", message)[1]) * 1e9
    mask = fit_budget(
        scores(subject, 7),
        subject.groups,
        subject.cost,
        int(smallest * 1.001) + 1,
        min_channels=2,
        channel_multiple=8,
    )
    assert float(subject.cost(mask)) == pytest.approx(smallest, rel=1e-3)


GROUPS = ChannelGroups(["a", "b"], [20, 4], {})


def price(mask: Tensor) -> Tensor:
    a, b = mask.double().split([20, 4])
    return a.sum() * 10 + b.sum()


def test_one_cut_then_what_still_fits():
    best_first = torch.cat([torch.arange(20, 0, -1), torch.tensor([50, 7.5, 5.5, 3.5])])
    mask = fit_budget(best_first, GROUPS, price, 154)
    # down to a score of 7: 14 of a and 2 of b are 142; one more of a makes 152, two more of b fill it up
    assert GROUPS.kept(mask) == {"a": 15, "b": 4}


@pytest.mark.parametrize(
    ("budget", "kept"), [(93, {"a": 8, "b": 4}), (163, {"a": 8, "b": 4}), (164, {"a": 16, "b": 4})]
)
def test_a_narrower_rest_never_takes_the_place_of_a_bundle(budget, kept):
    """20 = 8 + 8 + 4: the four would fit where the eight don't, but twelve is no multiple of eight."""
    assert GROUPS.kept(fit_budget(torch.zeros(24), GROUPS, price, budget, 1, 8)) == kept


@pytest.mark.parametrize("value", [0.1, 0.2, 1.1, -0.7])
def test_equal_scores_are_bundled_in_order(value):
    """20 = 6 + 6 + 6 + 2, and the mean of six equal numbers may round below the mean of two."""
    mask = fit_budget(torch.full((24,), value, dtype=torch.float64), GROUPS, price, 184, 1, 6)
    assert GROUPS.kept(mask) == {"a": 18, "b": 4}
