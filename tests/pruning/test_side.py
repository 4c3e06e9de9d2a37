import math

import pytest
import torch
from small_networks import FITTING, REFUSED, random_inputs, randomise, zeros

from lightning_gancompress import UserError
from lightning_gancompress.pruning import Side, count_macs


@pytest.fixture
def network():
    make, _ = FITTING["residual"]
    return randomise(make(), 0)


def test_a_side_masks_prices_and_slims_its_network(network):
    side = Side("generator", network, zeros(network), 0.5, min_channels=2)
    assert side.budget == int(0.5 * count_macs(network, zeros(network)))
    assert side.kept_macs() == 1.0
    (x,) = random_inputs(network.inputs, 0)
    whole = network(x)

    mask = side.fit(torch.arange(side.groups.total, dtype=torch.float32))
    side.masks.set(mask)
    masked = network(x)
    small = side.slim(network, mask)
    assert 0.8 * side.budget <= count_macs(small, [x]) <= side.budget
    assert side.kept_macs() == count_macs(small, [x]) / side.cost.full
    torch.testing.assert_close(small.eval()(x), masked, atol=1e-5, rtol=0)
    assert (masked - whole).abs().max() > 0.1
    assert torch.equal(network(x), whole)  # its gates are off again


def test_the_penalty_falls_due_with_progress(network):
    side = Side("generator", network, zeros(network), 0.5)
    whole = torch.ones(side.groups.total, requires_grad=True)
    assert side.penalty(whole, 0.0).item() == 0
    assert side.penalty(whole, 0.5).item() == pytest.approx(-math.log(0.75), rel=1e-3)
    assert side.penalty(whole, 1.0).item() == pytest.approx(-math.log(0.5), rel=1e-3)
    assert side.penalty(whole, 3.0).item() == side.penalty(whole, 1.0).item()
    side.penalty(whole, 1.0).backward()
    assert (whole.grad > 0).all()


def test_a_budget_out_of_reach_fails_at_once(network):
    with pytest.raises(UserError, match=r"discriminator budget: .* can't be reached"):
        Side("discriminator", network, zeros(network), 0.001)


def test_a_bad_budget_is_named(network):
    with pytest.raises(UserError, match="generator budget: 'half' is no budget"):
        Side("generator", network, zeros(network), "half")


def test_a_network_that_hides_a_mixture_is_refused_on_blank_images():
    make, layer, _ = REFUSED["functional group norm"]
    network = make()
    with pytest.raises(UserError, match=f"'{layer}'"):
        Side("generator", network, zeros(network), 0.5)
    Side("generator", network, zeros(network), 0.9, ignored_layers=[layer])


def test_the_random_numbers_of_the_run_are_not_touched(network):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    Side("generator", network, zeros(network), 0.5)
    assert torch.equal(torch.get_rng_state(), before)
