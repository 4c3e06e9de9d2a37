import copy

import pytest
import torch
from small_networks import Net, conv, zeros
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_gancompress.pruning import ChannelMasks, find_groups
from lightning_gancompress.pruning.convolution import Kept, convolve, is_plain, pays

C_IN, C_OUT = 40, 48
LAYERS = {
    "plain": nn.Conv2d(C_IN, C_OUT, 3, padding=1),
    "stride, without bias": nn.Conv2d(C_IN, C_OUT, 4, stride=2, padding=1, bias=False),
    "dilated": nn.Conv2d(C_IN, C_OUT, (3, 1), padding=(2, 0), dilation=2),
    "transposed": nn.ConvTranspose2d(C_IN, C_OUT, 3, stride=2, padding=1, output_padding=1),
    "transposed, without bias": nn.ConvTranspose2d(C_IN, C_OUT, 4, stride=2, padding=1, bias=False),
}


def gates(count: int, open_: int, seed: int) -> torch.Tensor:
    """So many gates in (0, 1], the others 0."""
    generator = torch.Generator().manual_seed(seed)
    gate = torch.zeros(count, dtype=torch.float64)
    gate[torch.randperm(count, generator=generator)[:open_]] = 1 - torch.rand(
        open_, generator=generator, dtype=torch.float64
    )
    return gate


def gradients(layer, output, x, gate, read):
    """Of a loss that reads the output as a gated layer would."""
    loss = (output * read.view(-1, 1, 1)).square().sum()
    wanted = [t for t in (x, gate, *layer.parameters()) if t.requires_grad]
    return torch.autograd.grad(loss, wanted)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("frozen", ["nothing", "gate", "weights", "input"])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_output_and_gradients_are_those_of_the_gated_input(name, frozen, last):
    layer = copy.deepcopy(LAYERS[name]).double().requires_grad_(frozen != "weights")
    x = torch.rand(2, C_IN, 9, 8, dtype=torch.float64, requires_grad=frozen != "input")
    if last:
        layer, x = (
            layer.to(memory_format=torch.channels_last),
            x.detach().to(memory_format=torch.channels_last),
        )
        x.requires_grad_(frozen != "input")
    gate = gates(C_IN, 10, 0).requires_grad_(frozen != "gate")
    read = gates(C_OUT, 5, 1)
    kept = Kept.of(gate.detach(), read)
    assert kept.inputs is not None
    assert kept.outputs is not None
    assert (len(kept.inputs), len(kept.outputs)) == (16, 16)
    plain, output = layer(x * gate.view(-1, 1, 1)), convolve(x, gate, layer, kept)
    torch.testing.assert_close(output, plain)
    for own, expected in zip(
        gradients(layer, output, x, gate, read), gradients(layer, plain, x, gate, read), strict=True
    ):
        torch.testing.assert_close(own, expected)


def test_closed_gates_have_gradients():
    """By these an agent learns that a dropped channel is worth keeping."""
    layer = LAYERS["plain"]
    gate = gates(C_IN, 10, 0).float().requires_grad_()
    x = torch.rand(1, C_IN, 8, 8)
    output = convolve(x, gate, layer, Kept.of(gate.detach(), torch.ones(C_OUT)))
    (of_gate,) = torch.autograd.grad(output.square().sum(), gate)
    assert (of_gate[gate == 0] != 0).all()


@pytest.mark.parametrize("layer", [LAYERS["plain"], LAYERS["transposed"]], ids=["plain", "transposed"])
def test_gradients_of_gradients_reach_closed_gates(layer):
    """As a penalty on the gradients of a masked discriminator needs them."""
    layer = copy.deepcopy(layer).double()
    x = torch.rand(1, C_IN, 6, 6, dtype=torch.float64, requires_grad=True)
    gate, read = gates(C_IN, 10, 0).requires_grad_(), gates(C_OUT, 5, 1).requires_grad_()
    kept = Kept.of(gate.detach(), read.detach())

    def of_penalty(output: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = torch.autograd.grad((output * read.view(-1, 1, 1)).sin().sum(), x, create_graph=True)[0]
        return torch.autograd.grad(first.square().sum(), [gate, read, layer.weight])

    own, expected = of_penalty(convolve(x, gate, layer, kept)), of_penalty(layer(x * gate.view(-1, 1, 1)))
    for mine, plain in zip(own, expected, strict=True):
        torch.testing.assert_close(mine, plain)


def test_little_is_computed_for_what_is_dropped():
    """Counted in multiply-accumulates of a pair of channels at one position, twice as many operations."""
    layer = nn.Conv2d(64, 128, 1, bias=False)
    x = torch.rand(1, 64, 4, 4, requires_grad=True)
    gate, read = gates(64, 16, 0).float(), gates(128, 32, 1).float()
    for learns, backward in ((True, 64 * 32 + 16 * 32), (False, 2 * 16 * 32)):
        own = gate.clone().requires_grad_(learns)
        with FlopCounterMode(display=False) as counter:
            output = convolve(x, own, layer, Kept.of(gate, read))
        assert counter.get_total_flops() == 2 * 16 * (16 * 128)
        with FlopCounterMode(display=False) as counter:
            (output * read.view(-1, 1, 1)).sum().backward()
        assert counter.get_total_flops() == 2 * 16 * backward


def test_most_channels_are_not_worth_taking_out():
    assert Kept.of(gates(64, 33, 0), gates(64, 64, 0)).all
    assert Kept.of(torch.zeros(64), torch.ones(64)).inputs.tolist() == list(range(16))
    assert Kept.of(torch.zeros(16), torch.ones(16)).all  # the least number is all of them


def test_sixteen_bits_are_computed_as_autocast_would():
    layer = copy.deepcopy(LAYERS["plain"])
    gate = gates(C_IN, 10, 0).float().requires_grad_()
    x = torch.rand(1, C_IN, 8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = convolve(x, gate, layer, Kept.of(gate.detach(), torch.ones(C_OUT)))
        plain = layer(x * gate.view(-1, 1, 1))
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output, plain, atol=0.02, rtol=0.02)
    output.float().square().sum().backward()
    assert {t.grad.dtype for t in (x, gate, layer.weight, layer.bias)} == {torch.float32}
    with torch.autocast("cpu", dtype=torch.bfloat16):  # lets double precision be
        output = convolve(x.double(), gate, layer.double(), Kept.of(gate.detach(), torch.ones(C_OUT)))
    assert output.dtype is torch.float64


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(32, 32, 3, groups=2),
        nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(32, 32, 3, padding="same"),
        nn.Conv1d(32, 32, 3),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(32, 32, 3)),
        nn.Linear(32, 32),
    ],
    ids=["groups", "reflect", "same", "1d", "parametrized", "linear"],
)
def test_other_layers_keep_their_own_forward(layer):
    assert not is_plain(layer)


@pytest.mark.parametrize("change", [{"_conv_forward": print}, {"forward": print}, {"stride": 2}])
def test_a_layer_that_somebody_changed_keeps_its_own_forward(change):
    """Such as by setting `_conv_forward` on the layers of a network, for pictures that tile."""
    layer = nn.Conv2d(32, 32, 3)
    vars(layer).update(change)
    assert not is_plain(layer)


def test_a_masked_network_is_traced_as_it_was():
    network, _ = masked()
    x = torch.rand(1, 3, 16, 16)
    expected = network(x)
    traced = torch.jit.trace(network, x)
    exported = torch.export.export(network, (x,)).module()
    for other in (traced, exported):
        torch.testing.assert_close(other(x), expected)


def test_a_gpu_leaves_small_calls_alone():
    layer = nn.Conv2d(256, 256, 3, stride=2, device="meta")
    assert pays(layer, torch.empty(64, 256, 64, 64, device="meta"))  # 38.7 GMACs
    assert not pays(layer, torch.empty(4, 256, 64, 64, device="meta"))  # 2.4 GMACs
    assert pays(layer, torch.empty(1, 256, 8, 8))


def masked() -> tuple[nn.Module, ChannelMasks]:
    torch.manual_seed(0)
    network = Net(lambda n, x: n.out(n.b(n.a(x).relu())), a=conv(3, 64), b=conv(64, 64), out=conv(64, 3))
    masks = ChannelMasks(find_groups(network, zeros(network)))
    masks.attach(network)
    masks.set((torch.rand(128, generator=torch.Generator().manual_seed(0)) < 0.2).float())
    return network, masks


def test_a_copy_of_a_masked_network_uses_its_own_weights():
    network, _ = masked()
    other, x = copy.deepcopy(network), torch.rand(1, 3, 16, 16)
    output = network(x)
    torch.testing.assert_close(other(x), output)
    with torch.no_grad():
        network.b.weight.zero_()
    torch.testing.assert_close(other(x), output)
    assert not torch.allclose(network(x), output)


def test_the_mask_in_use_counts_whatever_the_buffer_says():
    """DDP copies rank 0's buffers to the others before each forward; their masks in use are their own."""
    network, masks = masked()
    x = torch.rand(1, 3, 16, 16)
    expected = network(x)
    own = masks.mask.clone()
    masks.set(own)
    masks.mask.copy_(1 - own)
    torch.testing.assert_close(network(x), expected)
    masks.freeze()
    torch.testing.assert_close(network(x), expected)
    assert torch.equal(masks.mask, own)


def test_a_new_mask_takes_other_channels():
    network, masks = masked()
    x = torch.rand(1, 3, 16, 16)
    first = network(x)
    masks.set(1 - masks.mask)
    second = network(x)
    masks.load_state_dict({"mask": 1 - masks.mask})
    torch.testing.assert_close(network(x), first)
    assert not torch.allclose(first, second)
    network.out.forward = network.a.forward
    masks.detach()
    assert "forward" not in vars(network.b)
    assert network.out.forward == network.a.forward  # that somebody has put there since
