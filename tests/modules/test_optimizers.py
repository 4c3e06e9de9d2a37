"""Fused steps: the same numbers as others, also from states that lie otherwise in memory."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from lightning_gancompress.modules.optimizers import fit_states, fused, parameters

FORMATS = [torch.contiguous_format, torch.channels_last]


class Network(nn.Sequential):
    def __init__(self, layout: torch.memory_format = torch.contiguous_format) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
        self.to(memory_format=layout)


def step(network: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    network(image).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_a_fused_one_has_the_options_of_its_groups(kind):
    network = Network()
    groups = [{"params": network[0].parameters()}, {"params": network[1].parameters(), "lr": 0.3}]
    plain = kind(groups, lr=0.1, betas=(0.5, 0.9), weight_decay=0.2)
    anew = fused(plain)
    assert type(anew) is kind
    for own, others in zip(anew.param_groups, plain.param_groups, strict=True):
        assert own == others | {"fused": True}
    assert [id(p) for p in parameters(anew)] == [id(p) for p in network.parameters()]


def test_what_torch_can_not_fuse_stays():
    for optimizer in (SGD(Network().parameters(), lr=0.1), Adam(Network().parameters(), foreach=True)):
        assert fused(optimizer) is optimizer
    away = Adam(Network().to("meta").parameters())
    assert fused(away) is away


@pytest.mark.parametrize("saved_fused", [True, False])
@pytest.mark.parametrize("now_fused", [True, False])
@pytest.mark.parametrize("was", FORMATS)
@pytest.mark.parametrize("now", FORMATS)
def test_a_state_goes_on_in_another_memory_format(was, now, saved_fused, now_fused):
    def optimizer_of(network: nn.Module, fuse: bool) -> Optimizer:
        plain = Adam(network.parameters(), lr=0.1)
        return fused(plain) if fuse else plain

    one = Network(was)
    first = optimizer_of(one, saved_fused)
    step(one, first)
    other = Network(now)
    other.load_state_dict(one.state_dict())
    second = optimizer_of(other, now_fused)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for group in second.param_groups:
        group["fused"] = now_fused
    fit_states(second)
    step(one, first)
    step(other, second)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
        assert second.state[b]["exp_avg"].stride() == b.stride()
