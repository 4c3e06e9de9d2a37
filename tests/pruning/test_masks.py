import copy

import pytest
import torch
import torch.nn.functional as F
from small_networks import FITTING, Adapted, Equalised, Gated, Net, conv, randomise, zeros
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_gancompress.pruning import ChannelMasks, find_groups
from lightning_gancompress.pruning.cost import layer_costs


def chain() -> Net:
    """1x1 convolutions with two and three hidden channels."""
    return Net(
        lambda n, x: n.c(n.b(n.a(x))),
        (1, 1, 1, 1),
        a=nn.Conv2d(1, 2, 1, bias=False),
        b=nn.Conv2d(2, 3, 1, bias=False),
        c=nn.Conv2d(3, 1, 1, bias=False),
    )


@pytest.fixture
def network():
    return randomise(chain(), 0)


@pytest.fixture(scope="module")
def groups():
    return find_groups(chain(), zeros(chain()))


@pytest.fixture
def masks(network, groups):
    masks = ChannelMasks(groups)
    masks.attach(network)
    return masks


def expected(network: Net, mask: torch.Tensor, masks: ChannelMasks, x: float) -> torch.Tensor:
    parts = dict(zip(masks.groups.names, masks.groups.split(mask), strict=True))
    a, b, c = (layer.weight.flatten(1) for layer in (network.a, network.b, network.c))
    return c @ (parts["b"].unsqueeze(1) * (b @ (parts["a"].unsqueeze(1) * (a * x))))


def test_without_a_mask_nothing_changes(network, masks):
    x = torch.full((1, 1, 1, 1), 2.0)
    output = network(x)
    masks.detach()
    assert torch.equal(output, network(x))


def test_a_soft_mask_scales_what_is_read(network, masks):
    mask = torch.tensor([0.3, 1.0, 0.0, 0.7, 0.25])
    masks.set(mask)
    output = network(torch.full((1, 1, 1, 1), 2.0))
    torch.testing.assert_close(output.flatten(1), expected(network, mask, masks, 2.0))


def test_gradients_reach_the_mask_until_it_is_frozen(network, masks):
    network.requires_grad_(False)
    mask = torch.tensor([0.3, 1.0, 0.0, 0.7, 0.25], requires_grad=True)
    masks.set(mask)
    x = torch.full((1, 1, 1, 1), 2.0)
    network(x).sum().backward()
    other = mask.detach().clone().requires_grad_(True)
    expected(network, other, masks, 2.0).sum().backward()
    torch.testing.assert_close(mask.grad, other.grad)
    assert masks.live is mask
    assert not masks.mask.requires_grad

    before = network(x).detach()
    masks.freeze()
    output = network(x)
    assert not output.requires_grad
    assert torch.equal(output, before)


def test_detach_takes_the_gates_off(network, masks):
    masks.set(torch.zeros(5))
    x = torch.ones(1, 1, 1, 1)
    assert network(x) == 0
    masks.detach()
    assert network(x) != 0


def test_a_checkpoint_brings_the_mask_into_use(network, masks):
    masks.set(torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]))
    x = torch.ones(1, 1, 1, 1)
    output = network(x)
    masks.detach()

    fresh = ChannelMasks(masks.groups)
    fresh.attach(network)
    fresh.load_state_dict(copy.deepcopy(masks.state_dict()))
    assert torch.equal(network(x), output)
    assert list(fresh.state_dict()) == ["mask"]


def test_a_mask_follows_to_another_precision(network, masks):
    masks.set(torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]))
    output = network(torch.ones(1, 1, 1, 1)).item()
    unused = ChannelMasks(masks.groups).double()
    unused.freeze()
    assert unused.live.dtype is torch.float64
    masks.double()
    assert network.double()(torch.ones(1, 1, 1, 1).double()).item() == pytest.approx(output)
    assert masks.live.dtype is torch.float64


def test_the_state_of_the_network_knows_no_masks():
    make, _ = FITTING["residual"]
    network = make()
    keys = list(network.state_dict())
    ChannelMasks(find_groups(network, zeros(network))).attach(network)
    assert list(network.state_dict()) == keys


class Recursive(nn.Module):
    """Calls itself, with a filter of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 1, 1))

    def forward(self, h: torch.Tensor, again: bool = True) -> torch.Tensor:
        return F.conv2d(self(h, again=False) if again else h, self.weight).relu()


@pytest.mark.parametrize(
    ("module", "readers"),
    [
        (Adapted(8, 8), ["weight", "down.weight"]),
        (Gated(8, 8, 1), ["weight"]),
        (Equalised(8, 8), ["weight"]),
        (Recursive(8), ["weight"]),
    ],
    ids=["adapted", "gated", "equalised", "recursive"],
)
def test_a_soft_mask_scales_every_filter_once(module, readers):
    """Also where a module has a forward of its own, and uses what it reads for other things as well."""
    network = randomise(Net(lambda n, x: n.out(n.m(n.a(x))), a=conv(3, 8), m=module, out=conv(8, 3)), 0)
    groups = find_groups(network, zeros(network))
    masks = ChannelMasks(groups)
    masks.attach(network)
    mask = torch.rand(groups.total, generator=torch.Generator().manual_seed(0))
    masks.set(mask)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    masked = network(x)
    masks.detach()

    scaled = copy.deepcopy(network)
    whole = torch.cat([mask, torch.ones(1)])
    with torch.no_grad():
        read = whole[groups.layers["a"].outputs]
        for name in readers:
            scaled.m.get_parameter(name).mul_(read.view(1, -1, 1, 1))
        if "m.down" in groups.layers:
            scaled.m.up.weight.mul_(whole[groups.layers["m.up"].inputs].view(1, -1, 1, 1))
        scaled.out.weight.mul_(whole[groups.layers["out"].inputs].view(1, -1, 1, 1))
    torch.testing.assert_close(masked, scaled(x))


def test_a_layer_may_be_called_by_keyword():
    network = Net(lambda n, x: n.out(input=n.a(input=x)), a=conv(3, 8), out=conv(8, 3))
    groups = find_groups(network, zeros(network))
    masks = ChannelMasks(groups)
    masks.attach(network)
    masks.set(torch.zeros(8))
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(network(x), network.out.bias.view(1, -1, 1, 1).expand(1, 3, 16, 16))


def test_filters_that_the_network_computes_stay_whole():
    """Spectral norm around a function's filter leaves no tensor that a mask could be put on."""
    judge = nn.utils.parametrizations.spectral_norm(Equalised(8, 8))
    network = Net(lambda n, x: n.out(n.m(n.a(x)).relu()), a=conv(3, 8), m=judge, out=conv(8, 3))
    groups = find_groups(network, zeros(network))
    assert "'m.weight' is computed" in groups.whole["a"]
    masks = ChannelMasks(groups)
    masks.attach(network)
    masks.set(torch.zeros(groups.total))
    network(torch.rand(1, 3, 16, 16))


def test_what_masks_drop_is_counted():
    """On a CPU it is not computed: the MACs would be neither the network's own nor the slim one's."""
    network = randomise(Net(lambda n, x: n.b(n.a(x)), (1, 3, 8, 8), a=conv(3, 64), b=conv(64, 3)), 0)
    groups = find_groups(network, zeros(network))
    whole = layer_costs(network, zeros(network))
    masks = ChannelMasks(groups)
    masks.attach(network)
    mask = torch.zeros(groups.total)
    mask[:3] = 1
    masks.set(mask)
    assert layer_costs(network, zeros(network)) == whole
    with FlopCounterMode(display=False) as counter:
        network(*zeros(network))
    assert counter.get_total_flops() < 2 * sum(cost.macs_exact for cost in whole)
