"""Optimizers of networks that lose channels within a run."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from lightning_gancompress.pruning import find_groups, slim
from lightning_gancompress.training.narrowing import carry_over, elements_left


@pytest.mark.parametrize(
    "optimizer", [partial(torch.optim.AdamW, amsgrad=True), partial(torch.optim.SGD, momentum=0.9)]
)
def test_the_next_step_is_that_of_the_kept_channels(optimizer):
    torch.manual_seed(0)
    whole = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)
    )
    x, target = torch.randn(2, 4, 3, 8, 8)
    groups = find_groups(whole, [x[:1]])
    keep = torch.tensor([1.0, 0, 1, 1, 0, 0, 1, 1])
    with torch.no_grad():
        whole[3].weight[:, keep == 0] = 0  # as with a mask
    whole[3].weight.register_hook(lambda gradient: gradient * keep.view(1, -1, 1, 1))

    def step(network, optimizer):
        optimizer.zero_grad()
        (network(x) - target).square().mean().backward()
        optimizer.step()

    old = optimizer(whole.parameters(), lr=0.01)
    for _ in range(3):
        step(whole, old)
    cut = partial(slim, groups=groups, mask=keep)
    left, narrow = elements_left(whole, cut), cut(whole)
    new = optimizer(narrow.parameters(), lr=0.01)
    carry_over(old, new, left)
    before = copy.deepcopy(narrow.state_dict())
    step(narrow, new)
    step(whole, old)
    for name, tensor in cut(whole).state_dict().items():
        torch.testing.assert_close(narrow.state_dict()[name], tensor)
    assert not torch.equal(before["0.weight"], narrow[0].weight)
