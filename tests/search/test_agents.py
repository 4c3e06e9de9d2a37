import math

import pytest
import torch
from torch import Tensor

from lightning_gancompress.search.agents import PruningAgent, binarize, gumbel, relax

SIZES, PEER_SIZES = [8, 16, 4], [3, 5]


def agent(seed: int = 0, peer_sizes: list[int] | None = None) -> PruningAgent:
    torch.manual_seed(seed)
    return PruningAgent(SIZES, peer_sizes)


@pytest.mark.parametrize("peer_sizes", [None, PEER_SIZES])
def test_every_agent_starts_from_the_full_network(peer_sizes):
    for seed in range(5):
        logits = agent(seed, peer_sizes)(torch.ones(8) if peer_sizes else None)
        assert logits.shape == (28,)
        assert binarize(relax(logits, None, 0.4), SIZES, 1).all()
        noisy = binarize(relax(logits, gumbel(28, (seed,)), 0.4), SIZES, 1)
        assert noisy.mean() > 0.95


def test_groups_are_told_apart_from_the_start():
    """Orthogonal inputs: each group has its own logits, also where sizes are equal."""
    torch.manual_seed(0)
    twin = PruningAgent([6, 6])
    a, b = twin(None).split(6)
    assert not torch.allclose(a, b)
    inputs = twin.inputs.squeeze(1)
    torch.testing.assert_close(inputs @ inputs.T, torch.eye(2))


def test_inputs_are_saved_but_not_trained():
    names = dict(agent().named_parameters())
    assert "inputs" not in names
    assert "inputs" in agent().state_dict()


def test_more_groups_than_inputs_have_dimensions():
    assert PruningAgent([2] * 70)(None).shape == (140,)


def test_the_prior_is_added_to_the_logits_and_goes_with_its_channels():
    prior = torch.linspace(-2, 2, 28)
    plain = agent()
    torch.manual_seed(0)
    with_prior = PruningAgent(SIZES, prior=prior)
    torch.testing.assert_close(with_prior(), plain() + prior)
    keep = torch.ones(28)
    keep[3] = keep[20] = 0
    torch.testing.assert_close(with_prior.narrowed(keep, None)(), with_prior()[keep > 0.5])


def test_feedback_changes_the_logits_and_no_gradient_reaches_the_peer():
    with_peer = agent(peer_sizes=PEER_SIZES)
    first = torch.ones(8, requires_grad=True)
    second = torch.tensor([1.0, 0, 0, 1, 1, 0, 0, 0])
    logits = with_peer(first)
    assert not torch.allclose(logits, with_peer(second))
    logits.sum().backward()
    assert first.grad is None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in with_peer.parameters())


def test_the_peers_mask_may_be_overwritten_before_the_backward_pass():
    with_peer, mask = agent(peer_sizes=PEER_SIZES), torch.ones(8)
    logits = with_peer(mask)
    mask.zero_()
    logits.sum().backward()


def test_without_feedback_the_peer_is_ignored():
    alone = agent()
    assert torch.equal(alone(torch.ones(8)), alone(torch.zeros(8)))
    assert torch.equal(alone(torch.ones(8)), alone(None))
    assert not any(name.startswith("peer") for name, _ in alone.named_parameters())


def test_noise_is_the_same_for_the_same_seed_on_any_rank():
    random_state = torch.get_rng_state()
    draw = gumbel(1000, (1, 2, 3))
    assert torch.equal(draw, gumbel(1000, (1, 2, 3)))
    for other in ((1, 2, 4), (1, 3, 2), (3, 2, 1), (1, 2), (0, 1, 2, 3)):
        assert not torch.equal(draw, gumbel(1000, other))
    assert torch.equal(torch.get_rng_state(), random_state)
    gumbel(3, (2**62, 2**62, 2**62))


def test_noise_is_gumbel():
    draw = gumbel(100_000, (0,))
    assert float(draw.mean()) == pytest.approx(0.57722, abs=0.02)
    assert float(draw.std()) == pytest.approx(math.pi / 6**0.5, abs=0.02)
    for x in (-1.0, 0.0, 2.0):
        assert float((draw < x).float().mean()) == pytest.approx(math.exp(-math.exp(-x)), abs=0.01)


def test_relax_by_hand():
    logits, noise = torch.tensor([-3.0, 0.0, -5.0]), torch.tensor([0.0, 1.0, 2.0])
    torch.testing.assert_close(relax(logits, noise, 2.0), torch.tensor([0.0, 4.0, 0.0]).div(2).sigmoid())


def test_without_noise_stays_what_is_drawn_more_often_than_not():
    median = 0.366513
    logits = torch.tensor([-3.0 - median, -2.9 - median, -3.1 - median])
    expected = torch.tensor([0.5, 1 / (1 + math.exp(-0.1 / 0.4)), 1 / (1 + math.exp(0.1 / 0.4))])
    torch.testing.assert_close(relax(logits, None, 0.4), expected)
    draws = torch.stack([relax(logits, gumbel(3, (n,)), 0.4) for n in range(20_000)])
    torch.testing.assert_close(
        (draws > 0.5).float().mean(0), torch.tensor([0.5, 0.535, 0.466]), atol=0.015, rtol=0
    )


def test_binary_values_are_exact_and_gradients_go_straight_through():
    soft = torch.rand(200, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    hard = binarize(soft, [150, 50], 1)
    assert torch.equal(hard.detach(), (soft > 0.5).float())
    weights = torch.linspace(-1, 1, 200)
    (hard * weights).sum().backward()
    assert torch.equal(soft.grad, weights)


def kept(soft: list[float], sizes: list[int], min_channels: int) -> list[float]:
    mask: Tensor = binarize(torch.tensor(soft), sizes, min_channels)
    return mask.tolist()


def test_min_channels_keep_the_best_of_each_group():
    soft = [0.1, 0.4, 0.3, 0.9, 0.2, 0.0]
    assert kept(soft, [3, 3], 1) == [0, 1, 0, 1, 0, 0]
    assert kept(soft, [3, 3], 2) == [0, 1, 1, 1, 1, 0]
    assert kept(soft, [1, 5], 4) == [1, 1, 1, 1, 1, 0]
    assert kept(soft, [3, 3], 9) == [1] * 6


def test_binarize_leaves_its_argument():
    soft = torch.full((4,), 0.2)
    binarize(soft, [4], 2)
    assert soft.tolist() == pytest.approx([0.2] * 4)


def test_a_narrowed_agent_says_the_same_of_what_is_left():
    whole = agent(peer_sizes=PEER_SIZES)
    keep, peer_keep = (torch.rand(n, generator=torch.Generator().manual_seed(n)) > 0.3 for n in (28, 8))
    narrow = whole.narrowed(keep.float(), peer_keep.float())
    peer = peer_keep * torch.tensor([1.0, 1, 0, 1, 1, 0, 1, 1])
    torch.testing.assert_close(narrow(peer[peer_keep]), whole(peer)[keep], rtol=0, atol=1e-6)
    torch.testing.assert_close(narrow(None), whole(None)[keep], rtol=0, atol=1e-6)
    assert [(n, p.ndim) for n, p in narrow.named_parameters()] == [
        (n, p.ndim) for n, p in whole.named_parameters()
    ]
    assert whole(peer).shape == (28,)
