import copy
import math

import pytest
import torch
from small_networks import FITTING, KEPT, random_inputs, randomise, zeros
from torch import nn

from lightning_gancompress import UserError
from lightning_gancompress.pruning import NetworkGroup, PrunedSide, count_macs, find_groups, fit_budget, slim


@pytest.fixture
def network():
    make, _ = FITTING["residual"]
    return NetworkGroup({"generator": randomise(make(), 0)})


def inputs(bundle):
    """What the networks of a bundle read: blank images."""
    return [x for network in bundle.values() for x in zeros(network)]


def test_a_side_masks_prices_and_slims_its_network(network):
    side = PrunedSide("generator", network, inputs(network), 0.5, min_channels=2)
    assert side.budget == int(0.5 * count_macs(network, inputs(network)))
    assert side.kept_macs() == 1.0
    x = random_inputs(network["generator"].inputs, 0)[0]
    (whole,) = network(x)

    mask = side.fit(torch.arange(side.groups.total, dtype=torch.float32))
    side.masks.set(mask)
    (masked,) = network(x)
    small = side.slim(network, mask)
    assert 0.8 * side.budget <= count_macs(small, [x]) <= side.budget
    assert side.kept_macs() == count_macs(small, [x]) / side.cost.full
    torch.testing.assert_close(small.eval()(x)[0], masked, atol=1e-5, rtol=0)
    assert (masked - whole).abs().max() > 0.1
    assert torch.equal(network(x)[0], whole)  # its gates are off again


def test_networks_share_one_mask_and_one_budget(network):
    both = NetworkGroup(
        {"generator_AtoB": network["generator"], "generator_BtoA": FITTING["concatenation"][0]()}
    )
    alone = {
        role: PrunedSide("generator", NetworkGroup({role: copy.deepcopy(net)}), zeros(net), 0.5)
        for role, net in both.items()
    }
    side = PrunedSide("generator", both, inputs(both), 0.5)
    assert side.groups.total == sum(one.groups.total for one in alone.values())
    assert side.cost.full == sum(one.cost.full for one in alone.values())
    assert {name.partition(".")[0] for name in side.groups.names} == set(both)

    # one network's channels go first, as far as the budget wants: it is no budget for each
    scores = torch.cat([torch.full((one.groups.total,), float(n)) for n, one in enumerate(alone.values())])
    mask = side.fit(scores)
    small = side.slim(both, mask)
    macs = {role: count_macs(net, zeros(both[role])) for role, net in small.items()}
    assert 0.8 * side.budget <= sum(macs.values()) <= side.budget
    kept = [macs[role] / alone[role].cost.full for role in both]
    assert kept[0] < 0.5 < kept[1]


def test_layers_are_named_with_or_without_their_network(network):
    both = NetworkGroup({"generator_AtoB": network["generator"], "generator_BtoA": FITTING["residual"][0]()})
    of_both = ["generator_AtoB.a", "generator_BtoA.a"]
    assert both.qualified(["a"]) == of_both
    assert both.qualified(of_both[1:]) == of_both[1:]
    assert both.qualified(["n*"]) == ["generator_AtoB.n*", "generator_BtoA.n*"]
    assert both.qualified(["nothing", "*.nothing"]) == []


def test_the_penalty_falls_due_with_progress(network):
    side = PrunedSide("generator", network, inputs(network), 0.5)
    whole = torch.ones(side.groups.total, requires_grad=True)
    assert side.penalty(whole, 0.0).item() == 0
    assert side.penalty(whole, 0.5).item() == pytest.approx(-math.log(0.5) / 2, rel=1e-3)
    assert side.penalty(whole, 1.0).item() == pytest.approx(-math.log(0.5), rel=1e-3)
    assert side.penalty(whole, 3.0).item() == side.penalty(whole, 1.0).item()
    side.penalty(whole, 1.0).backward()
    assert (whole.grad > 0).all()


def test_a_budget_out_of_reach_fails_at_once(network):
    with pytest.raises(UserError, match=r"discriminator budget: .* can't be reached"):
        PrunedSide("discriminator", network, inputs(network), 0.001)


def test_a_bad_budget_is_named(network):
    with pytest.raises(UserError, match="generator budget is 'half': give a fraction"):
        PrunedSide("generator", network, inputs(network), "half")


def test_the_summary_says_what_stays_whole_and_how_small_it_can_get():
    make, *_ = KEPT["softmax over channels"]
    network = NetworkGroup({"generator": make()})
    side = PrunedSide("generator", network, inputs(network), 0.9)
    one = torch.tensor([1.0, 0, 0, 0, 0, 0])
    least, most = count_macs(side.slim(network, one), inputs(network)) / 1e9, side.cost.full / 1e9
    assert side.summary() == (
        f"generator: 6 channels in 1 group can be dropped, down to {least:.4g} of {most:.4g} GMACs; the "
        f"budget is {side.budget / 1e9:.4g}. What stays whole: 1 layer: softmax mixes all channels in "
        "'generator' (small_networks.py, line 36); 1 layer: makes the output."
    )


def test_a_discriminator_of_which_nothing_can_be_dropped_has_a_remedy():
    network = NetworkGroup({"discriminator": nn.Conv2d(6, 1, 3)})
    with pytest.raises(
        UserError, match=r"Conv2d has no .*model\.discriminator_budget: 1\.0 keeps the discrim"
    ):
        PrunedSide("discriminator", network, [torch.zeros(1, 6, 8, 8)], 0.5)


def test_the_random_numbers_of_the_run_are_not_touched(network):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    PrunedSide("generator", network, inputs(network), 0.5)
    assert torch.equal(torch.get_rng_state(), before)


def slim_without_hooks(side: PrunedSide, network: NetworkGroup, mask: torch.Tensor) -> NetworkGroup:
    """The small networks of a mask; the hooks of the masks stay."""
    small = side.slim(network, mask)
    side.masks.attach(network)
    return small


@torch.no_grad()
def test_a_narrowed_side_goes_on_as_before(network):
    side = PrunedSide("generator", network, inputs(network), 0.3)
    whole, budget = side.cost.full, side.budget
    x = random_inputs(network["generator"].inputs, 0)[0]
    scores = torch.randperm(side.groups.total, generator=torch.Generator().manual_seed(0)).float()
    small = network
    for macs in (0.8, 0.5):  # twice, so that what is left of the whole is not what is left of the rest
        keep = fit_budget(scores, side.groups, side.cost, int(macs * whole))
        before = side.fit(scores), side.penalty(keep, 0.7)
        side.masks.set(keep)
        (image,) = small(x)
        small = side.slim(small, keep)
        side.narrow(keep, small)
        scores = scores[keep > 0]
        torch.testing.assert_close(small(x)[0], image, atol=1e-5, rtol=1e-5)
        mask = side.fit(scores)
        assert torch.equal(mask, before[0][keep > 0])
        everything = torch.ones(side.groups.total)
        assert side.cost(everything) == count_macs(small, [x])
        assert side.penalty(everything, 0.7) == before[1]
        side.masks.set(mask)
        assert side.kept_macs() == count_macs(slim_without_hooks(side, small, mask), [x]) / whole
    assert (side.cost.full, side.budget) == (whole, budget)
    assert int(side.left.sum()) == side.groups.total == len(side.masks.mask)
    direct = slim(network, find_groups(network, inputs(network)), side.left)
    torch.testing.assert_close(direct(x)[0], side.slim(small, everything)(x)[0])


def test_what_is_in_reach_has_slack_above_the_fall(network):
    side = PrunedSide("generator", network, inputs(network), 0.2, channel_multiple=2)
    scores = torch.arange(side.groups.total, dtype=torch.float32)
    mask = side.fit(scores)

    def reach(progress: float, slack: float) -> float:
        kept = side.in_reach(scores, mask, progress, slack)
        assert kept[mask > 0].all()
        assert all(int(own.sum()) % 2 == 0 or own.all() for own in side.groups.split(kept))
        return float(side.cost(kept)) / side.cost.full

    assert reach(0, 0.5) == reach(1, 1) == 1
    assert 0.7 * 0.2 < reach(1, 0) <= 0.2
    assert 0.7 * 0.2**0.5 < reach(1, 0.5) <= 0.2**0.5
    assert reach(1, 0.5) < reach(0.5, 0.5) <= 0.2**0.25
    # a search that has not followed the fall keeps what it would choose
    everything = torch.ones(side.groups.total)
    assert side.in_reach(scores, everything, 1, 0).all()


@pytest.mark.parametrize("tied", [False, True])
def test_weights_that_depend_on_each_other_are_not_narrowed(tied: bool):
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)]
    if tied:
        layers[2].weight = layers[1].weight
    else:
        layers[1] = nn.utils.parametrizations.spectral_norm(layers[1])
    network = NetworkGroup({"generator": nn.Sequential(*layers, nn.Conv2d(8, 3, 1))})
    side = PrunedSide("generator", network, [torch.zeros(1, 3, 16, 16)], 0.5)
    assert not side.narrowable
    assert side.summary().endswith("Parametrized or tied weights are cut at the end of the search alone.")
