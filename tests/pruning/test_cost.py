import pytest
import torch
from small_networks import FITTING, Net, conv, random_inputs, random_mask, read, zeros
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_gancompress.networks import (
    MobileResnetGenerator,
    PatchDiscriminator,
    ResnetGenerator,
    UnetGenerator,
)
from lightning_gancompress.pruning import MaskedCost, count_macs, count_params, find_groups, layer_costs, slim

SHIPPED = {
    "resnet": lambda: Net(lambda n, x: n.it(x), (1, 3, 16, 16), it=ResnetGenerator(ngf=4, n_blocks=2)),
    "unet": lambda: Net(lambda n, x: n.it(x), (1, 3, 64, 64), it=UnetGenerator(ngf=4, n_downs=6)),
    "patch": lambda: Net(lambda n, x: n.it(x), (1, 6, 32, 32), it=PatchDiscriminator(ndf=4)),
}
# all that multiply in layers only
COUNTABLE = SHIPPED | {n: make for n, (make, _) in FITTING.items() if "filter" not in n}


@pytest.mark.parametrize(
    ("network", "channels", "exact", "literature", "params"),
    [
        (ResnetGenerator, 3, 49.55, 56.80, 11.378),
        (MobileResnetGenerator, 3, 11.07, 18.31, 1.987),
        (UnetGenerator, 3, 6.05, 18.14, 54.41),
        (PatchDiscriminator, 6, 3.20, 3.20, None),
    ],
)
def test_reference_numbers(network, channels, exact, literature, params):
    with torch.device("meta"):
        whole, inputs = network(), [torch.zeros(1, channels, 256, 256)]
        assert round(count_macs(whole, inputs, "exact") / 1e9, 2) == exact
        assert round(count_macs(whole, inputs, "literature") / 1e9, 2) == literature
    if params is not None:
        assert round(count_params(whole) / 1e6, 3) == pytest.approx(params, abs=0.005)


def test_cost_of_each_layer_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 16 -> 8
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.ConvTranspose2d(8, 4, 4, 2, 1),  # 8 -> 16
        nn.Flatten(),
        nn.Linear(4 * 16 * 16, 2),
    )
    costs = layer_costs(network, [torch.zeros(1, 3, 16, 16)])
    assert [(c.name, c.kind, c.macs_exact, c.macs_literature, c.params) for c in costs] == [
        ("0", "Conv2d", 8 * 8 * 8 * 3 * 9, 8 * 8 * 8 * 3 * 9, 8 * 3 * 9 + 8),
        ("1", "BatchNorm2d", 0, 0, 16),
        ("3", "Conv2d", 8 * 8 * 8 * 9, 8 * 8 * 8 * 9, 8 * 9),
        ("4", "ConvTranspose2d", 8 * 8 * 8 * 4 * 16, 16 * 16 * 8 * 4 * 16, 8 * 4 * 16 + 4),
        ("6", "Linear", 2 * 1024, 2 * 1024, 2 * 1024 + 2),
    ]
    assert [c.output_shape for c in costs] == [
        (1, 8, 8, 8),
        (1, 8, 8, 8),
        (1, 8, 8, 8),
        (1, 4, 16, 16),
        (1, 2),
    ]


def test_a_layer_used_twice_costs_twice_and_owns_its_parameters_once():
    network = Net(lambda n, x: n.a(n.a(x)), a=conv(3, 3))
    (cost,) = layer_costs(network, zeros(network))
    assert cost.macs_exact == 2 * 16 * 16 * 81
    assert cost.params == 84


def test_parameters_of_a_network_with_several_outputs_are_listed():
    network = Net(
        lambda n, x: {"a": n.a(x), "b": x * n.scale}, a=conv(3, 3), scale=nn.Parameter(torch.ones(1))
    )
    costs = layer_costs(network, zeros(network))
    assert [(c.name, c.params) for c in costs] == [("a", 84), ("", 1)]


def test_counting_leaves_mode_and_hooks_alone():
    network = PatchDiscriminator(ndf=4)
    network.model[2].eval()
    statistics = network.model[3].running_mean.clone()
    count_macs(network, [torch.ones(1, 6, 32, 32)])
    assert network.training
    assert network.model[0].training
    assert not network.model[2].training
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(network.model[3].running_mean, statistics)


@pytest.mark.parametrize("name", COUNTABLE)
def test_masked_cost_is_what_the_small_network_does(name):
    network = COUNTABLE[name]()
    groups = read(name) if name in FITTING else find_groups(network, zeros(network))
    inputs = random_inputs(network.inputs, 0)
    cost = MaskedCost(network, groups, inputs, "exact")
    assert cost.full == float(cost(torch.ones(groups.total))) == count_macs(network, inputs)
    for seed in range(2):
        mask = random_mask(groups, seed)
        small = slim(network, groups, mask).eval()
        with FlopCounterMode(display=False) as counter:
            small(*inputs)
        assert float(cost(mask)) * 2 == counter.get_total_flops()


@pytest.mark.parametrize("convention", ["exact", "literature"])
def test_masked_cost_by_hand_with_its_gradient(convention):
    network = Net(
        lambda n, x: n.c(n.b(n.a(x))),
        a=conv(3, 2),
        b=nn.ConvTranspose2d(2, 3, 4, 2, 1),
        c=conv(3, 1),
    )
    groups = find_groups(network, zeros(network))
    cost = MaskedCost(network, groups, zeros(network), convention)
    parts = {"a": torch.tensor([0.5, 1.0]), "b": torch.tensor([0.25, 0.5, 1.0])}
    mask = torch.cat([parts[name] for name in groups.names]).requires_grad_(True)
    a, b = 9 * 256, 16 * (256 if convention == "exact" else 1024)
    macs = cost(mask)
    assert macs.item() == a * 3 * 1.5 + b * 1.5 * 1.75 + 9 * 1024 * 1.75
    macs.backward()
    gradient = dict(zip(groups.names, groups.split(mask.grad), strict=True))
    assert gradient["a"].tolist() == [a * 3 + b * 1.75] * 2
    assert gradient["b"].tolist() == [b * 1.5 + 9 * 1024] * 3


def test_gradient_check():
    make, _ = FITTING["depthwise"]
    network = make()
    groups = find_groups(network, zeros(network))
    cost = MaskedCost(network, groups, zeros(network), "exact")
    mask = torch.rand(groups.total, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda m: cost(m) / cost.full, mask.requires_grad_(True))


def test_macs_are_exact_where_single_precision_is_not():
    network = Net(lambda n, x: n.b(n.a(x)), (1, 3, 1, 1), a=nn.Conv2d(3, 5002, 1), b=nn.Conv2d(5002, 4098, 1))
    cost = MaskedCost(network, find_groups(network, zeros(network)), zeros(network), "exact")
    mask = torch.ones(5002)
    mask[7] = 0
    expected = 5001 * (3 + 4098)
    assert float(torch.tensor(expected, dtype=torch.float32)) != expected
    assert float(cost(mask)) == expected


def test_layers_of_other_kinds_count_as_they_are():
    network = Net(
        lambda n, x: n.last(n.c(n.b(n.grouped(n.a(x)))).flatten(2)),
        a=conv(3, 6),
        grouped=conv(6, 6, groups=3),
        b=conv(6, 5),
        c=conv(5, 3),
        last=nn.Conv1d(3, 2, 1),
    )
    groups = find_groups(network, zeros(network), ["grouped", "last"])
    cost = MaskedCost(network, groups, zeros(network), "exact")
    fixed = 256 * (9 * (3 * 6 + 2 * 6) + 3 * 2)
    assert groups.names == ["b"]
    assert cost.full == fixed + 256 * 9 * (6 * 5 + 5 * 3)
    assert float(cost(torch.tensor([1.0, 0, 0, 1, 0]))) == fixed + 256 * 9 * (6 * 2 + 2 * 3)
