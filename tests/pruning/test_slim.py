import re
from dataclasses import replace

import pytest
import torch
from foreign import TransformerNet
from small_networks import (
    FITTING,
    KEPT,
    Fitted,
    Net,
    conv,
    random_inputs,
    random_mask,
    randomise,
    read,
    zeros,
)
from torch import nn

from lightning_gancompress import UserError
from lightning_gancompress.networks import NetworkSpec, channel_widths
from lightning_gancompress.pruning import (
    ChannelGroups,
    ChannelMasks,
    MaskedCost,
    check_groups,
    count_macs,
    find_groups,
    slim,
    slim_by_mask,
)
from lightning_gancompress.pruning.graph import flatten

NORMS = ("instance", "batch")
SHIPPED = {
    **{
        f"resnet {blocks} {norm} dropout={dropout}": (
            "ResnetGenerator",
            {"ngf": 4, "n_blocks": blocks, "norm": norm, "dropout": dropout},
            "running",
            (1, 3, 16, 16),
        )
        for blocks, norm, dropout in (
            (6, "instance", False),
            (6, "batch", True),
            (9, "instance", True),
            (9, "batch", False),
        )
    },
    **{
        f"mobile resnet {norm}": (
            "MobileResnetGenerator",
            {"ngf": 4, "n_blocks": 3, "norm": norm},
            "running",
            (1, 3, 16, 16),
        )
        for norm in NORMS
    },
    **{
        f"unet {downs} {norm}": (
            "UnetGenerator",
            {"ngf": 4, "n_downs": downs, "norm": norm},
            "running",
            (1, 3, 2**downs, 2**downs),
        )
        for downs in (6, 7, 8)
        for norm in NORMS
    },
    "resnet by image": (
        "ResnetGenerator",
        {"ngf": 4, "n_blocks": 2, "norm": "batch"},
        "image",
        (1, 3, 16, 16),
    ),
    "unet by image": ("UnetGenerator", {"ngf": 4, "n_downs": 6}, "image", (1, 3, 64, 64)),
    **{
        f"patch {layers} {norm}": (
            "PatchDiscriminator",
            {"ndf": 4, "n_layers": layers, "norm": norm},
            "running",
            (1, 6, 64, 64),
        )
        for layers in (1, 2, 3, 4)
        for norm in NORMS
    },
    **{
        f"pixel {norm}": ("PixelDiscriminator", {"ndf": 4, "norm": norm}, "running", (1, 6, 16, 16))
        for norm in NORMS
    },
}


@torch.no_grad()
def test_masked_equals_slim_on_a_foreign_network():
    network = TransformerNet(4).eval()
    groups = find_groups(network, [torch.zeros(1, 3, 16, 16)])  # also where the caller computes no gradients
    assert_masked_equals_slim(network, groups, [(1, 3, 16, 16)])
    small = slim(network, groups, random_mask(groups, 0)).eval()
    twin = NetworkSpec("foreign.TransformerNet", {"channels": 4}, widths=channel_widths(small))
    inputs = random_inputs([(1, 3, 16, 16)], 0)
    assert difference(run(twin.build(small.state_dict()).eval(), inputs), run(small, inputs)) == 0


def difference(first: object, second: object) -> float:
    pairs = zip(flatten(first), flatten(second), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@torch.no_grad()
def masked_and_slim(network: nn.Module, groups: ChannelGroups, mask, inputs) -> tuple[object, nn.Module]:
    small, masks = slim(network, groups, mask).eval(), ChannelMasks(groups)
    masks.attach(network)
    masks.set(mask)
    output = run(network, inputs)
    masks.detach()
    return output, small


def run(network: nn.Module, inputs: list[torch.Tensor]) -> object:
    """A forward may change its inputs."""
    return network(*[x.clone() for x in inputs])


def assert_masked_equals_slim(network: nn.Module, groups: ChannelGroups, shapes) -> None:
    """In eval mode, for several masks, weights and inputs; the cost under the mask is the small network's."""
    worst, moved = 0.0, 0.0
    for seed in range(3):
        randomise(network, seed)
        inputs, mask = random_inputs(shapes, seed), random_mask(groups, seed)
        masked, small = masked_and_slim(network, groups, mask, inputs)
        assert not any(module.training for module in small.modules())
        with torch.no_grad():
            worst = max(worst, relative(masked, run(small, inputs)))
            moved = max(moved, relative(masked, run(network, inputs)))
        for convention in ("exact", "literature"):
            cost = MaskedCost(network, groups, inputs, convention)
            assert float(cost(mask)) == count_macs(small, inputs, convention)
    assert worst <= 1e-5
    assert moved > 1e-3


@pytest.mark.parametrize("name", SHIPPED)
def test_masked_equals_slim_on_the_shipped_networks(name):
    class_name, arguments, batch_norm, shape = SHIPPED[name]
    spec = NetworkSpec(f"lightning_gancompress.networks.{class_name}", arguments, batch_norm)
    network = spec.build().eval()
    groups = find_groups(network, [torch.zeros(shape)])
    check_groups(network, groups, [torch.zeros(shape)])
    assert_masked_equals_slim(network, groups, [shape])


@pytest.mark.parametrize("name", FITTING)
def test_masked_equals_slim_wherever_channels_meet(name):
    make, sizes = FITTING[name]
    network, groups = make().eval(), read(name)
    assert sorted(groups.sizes) == sizes
    assert len(set(groups.names)) == len(groups.names)
    assert check_groups(network, groups, zeros(network)) <= 1e-12
    assert_masked_equals_slim(network, groups, network.inputs)


@pytest.mark.parametrize("name", FITTING)
def test_the_small_network_is_built_again_from_its_recipe(name):
    network = randomise(Fitted(name), 0)
    shapes, groups = network.it.inputs, within(read(name), "it")
    small = slim(network, groups, random_mask(groups, 0)).eval()
    spec = NetworkSpec("small_networks.Fitted", {"name": name}, widths=channel_widths(small))
    twin = spec.build(small.state_dict()).eval()
    inputs = random_inputs(shapes, 0)
    with torch.no_grad():
        assert difference(run(twin, inputs), run(small, inputs)) == 0
    assert spec.build().state_dict().keys() == small.state_dict().keys()  # before a checkpoint brings tensors
    # and the whole one, with weights that it computes, if it does
    whole = NetworkSpec("small_networks.Fitted", {"name": name}).build(network.state_dict()).eval()
    with torch.no_grad():
        assert difference(run(whole, inputs), run(network, inputs)) == 0


# Gates of 0 and 1 change no product, and sums are taken in single precision; only their order may differ,
# which now and then turns the rounding of a layer's result to bfloat16: by 2^-8 of it, through four layers.
HALF = 4 * 2**-8
# constants of the forward are of single precision; a Fourier transform is for no other
NOT_HALF = {("coordinates", False), ("Fourier convolution", True), ("Fourier convolution", False)}


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16"])
@pytest.mark.parametrize("name", FITTING)
def test_masked_equals_slim_in_half_precision(name, autocast):
    if (name, autocast) in NOT_HALF:
        pytest.skip("the network itself can't do that")
    network, groups = randomise(FITTING[name][0](), 0), read(name)
    inputs, mask = random_inputs(network.inputs, 0), random_mask(groups, 0)
    if not autocast:
        network, inputs = network.bfloat16(), [x.bfloat16() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), torch.no_grad():
        masked, small = masked_and_slim(network, groups, mask, inputs)
        assert relative(masked, run(small, inputs)) <= HALF
        assert relative(masked, run(network, inputs)) > HALF


def relative(first: object, second: object) -> float:
    """Largest difference of any output, relative to its largest value."""
    pairs = zip(flatten(first), flatten(second), strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def within(groups: ChannelGroups, name: str) -> ChannelGroups:
    """The groups of a network that is a module of another."""
    return replace(
        groups,
        layers={f"{name}.{key}": channels for key, channels in groups.layers.items()},
        tensors={f"{name}.{key}": axes for key, axes in groups.tensors.items()},
        filters={
            f"{name}.{key}": replace(one, module=f"{name}.{one.module}".rstrip("."))
            for key, one in groups.filters.items()
        },
    )


@pytest.mark.parametrize("name", KEPT)
def test_what_can_not_be_followed_stays_whole_and_says_why(name):
    make, whole, left = KEPT[name]
    network, groups = make().eval(), read(name)
    assert dict(zip(groups.names, groups.sizes, strict=True)) == left
    reasons = {layer: reason for layer, reason in groups.whole.items() if layer != "out"}
    assert reasons.keys() == whole.keys()
    for layer, words in whole.items():
        assert re.search(words, reasons[layer])
    assert groups.whole["out"] == "makes the output"
    assert check_groups(network, groups, zeros(network)) <= 1e-12
    assert_masked_equals_slim(network, groups, network.inputs)


def refusal(network: nn.Module) -> str | None:
    try:
        find_groups(network, zeros(network))
    except UserError as error:
        return str(error)
    return None


def test_a_layer_behind_a_condition_is_left_alone():
    network = Net(
        lambda n, x: n.out(n.b(n.a(x)) if len(x) > 1 else n.c(n.a(x))),
        a=conv(3, 8),
        b=conv(8, 8),
        c=conv(8, 8),
        out=conv(8, 3),
    )
    groups = find_groups(network, zeros(network))
    assert groups.names == ["a", "c"]
    assert slim(network, groups, random_mask(groups, 0)).b.weight.shape == (8, 8, 3, 3)


def _bright(n, x):
    h = n.a(x)
    return n.out(h if h.mean() > 0 else -h)


def _normalised(n, x):
    h = n.a(x)
    return n.out(h / float(h.std()))


@pytest.mark.parametrize("forward", [_bright, _normalised])
def test_a_condition_on_values_is_refused_with_its_place(forward):
    line = forward.__code__.co_firstlineno + 2
    message = refusal(Net(forward, a=conv(3, 8), out=conv(8, 3)))
    assert re.match(rf"Net looks at the values of its features \(.*test_slim.py, line {line}\)", message)


@pytest.mark.parametrize("flag", [torch.ones(1), nn.Parameter(torch.ones(1))], ids=["buffer", "parameter"])
def test_values_that_come_from_no_image_may_be_looked_at(flag):
    network = Net(lambda n, x: n.out(n.a(x) if n.flag.item() else x), a=conv(3, 8), out=conv(8, 3), flag=flag)
    assert find_groups(network, zeros(network)).names == ["a"]


def test_a_network_may_draw_noise_of_its_own():
    network = Net(
        lambda n, x: n.out(n.b(n.a(x) + n.amount * torch.randn_like(x[:, :1])).relu()),
        a=conv(3, 8),
        amount=torch.nn.Parameter(torch.ones(1, 8, 1, 1)),
        b=conv(8, 6),
        out=conv(6, 3),
    )
    before = torch.get_rng_state()
    assert refusal(network) is None
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(find_groups(network, zeros(network)).sizes) == [6, 8]


def test_the_check_is_not_blind_to_weights_of_zero():
    """A branch that starts with scale 0 still counts: training will open it."""
    network = KEPT["shuffle by views of any width"][0]()
    with torch.no_grad():
        network.b.weight.zero_()
        network.out.bias.fill_(1e4)
    assert "a" in find_groups(network, zeros(network)).whole


@pytest.mark.parametrize("second", [lambda y: y * torch.nan, lambda y: (y - y) / (y - y)])
def test_what_is_not_finite_is_refused_in_whatever_output(second):
    network = Net(lambda n, x: [n.out(n.a(x)), second(n.out(n.a(x)))], a=conv(3, 8), out=conv(8, 3))
    assert "Net has outputs that are not finite" in refusal(network)


def test_slim_leaves_the_network_and_keeps_what_it_inherits():
    make, _ = FITTING["scalar activations"]
    network = randomise(make(), 0).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    mask = torch.tensor([1.0, 0, 1, 1, 0, 0, 1, 0])
    small = slim(network, find_groups(network, zeros(network)), mask)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert list(small.state_dict()) == list(before)
    assert torch.equal(small.a.weight, network.a.weight[mask > 0.5])
    assert torch.equal(small.out.weight, network.out.weight[:, mask > 0.5])
    assert torch.equal(small.out.bias, network.out.bias)
    assert all(p.requires_grad for p in small.parameters())
    assert all(p.is_leaf for p in small.parameters())


@torch.no_grad()
@pytest.mark.parametrize("name", FITTING)
def test_slimming_twice_is_slimming_once(name):
    network, groups = randomise(FITTING[name][0](), 0).eval(), read(name)
    first, second = (random_mask(groups, seed) for seed in (1, 2))
    both = torch.cat(
        [
            a * b if (a * b).any() else a
            for a, b in zip(groups.split(first), groups.split(second), strict=True)
        ]
    )
    keep = torch.maximum(first, both) > 0
    half, rest = slim(network, groups, keep), groups.narrowed(keep)
    assert rest.kept(both[keep]) == groups.kept(both)
    at_once, in_turn = slim(network, groups, both), slim(half, rest, both[keep])
    assert channel_widths(at_once) == channel_widths(in_turn)
    state = in_turn.state_dict()
    assert [k for k, tensor in at_once.state_dict().items() if not torch.equal(tensor, state[k])] == []
    cost = MaskedCost(network, groups, zeros(network), "exact")
    assert float(cost.narrowed(keep)(both[keep])) == pytest.approx(float(cost(both)))
    anew = MaskedCost(half, rest, zeros(network), "exact")
    assert float(anew(both[keep])) == pytest.approx(float(cost(both)))


def test_slim_by_mask_needs_the_ignored_layers_of_the_search():
    make, _ = FITTING["depthwise"]
    network = randomise(make(), 0)
    mask = torch.tensor([1.0, 0, 0, 1, 0, 1])
    small = slim_by_mask(network, mask, zeros(network), ["out"])
    assert (small.a.out_channels, small.point.in_channels, small.point.out_channels) == (3, 3, 8)
    with pytest.raises(UserError, match=r"6 channels.*14.*ignored_layers"):
        slim_by_mask(network, mask, zeros(network))
