import pytest
import torch
import torch.nn.functional as F
from foreign import TransformerNet
from small_networks import FITTING, Net, conv, zeros
from torch import nn

from lightning_gancompress import UserError
from lightning_gancompress.networks import (
    MobileResnetGenerator,
    PatchDiscriminator,
    PixelDiscriminator,
    ResnetGenerator,
    UnetGenerator,
)
from lightning_gancompress.pruning import ChannelGroups, check_groups, find_groups
from lightning_gancompress.pruning import groups as reading_of_groups

IMAGE = [torch.zeros(1, 3, 64, 64)]
PAIR = [torch.zeros(1, 6, 64, 64)]


def by_name(groups: ChannelGroups) -> dict[str, int]:
    return dict(zip(groups.names, groups.sizes, strict=True))


@pytest.mark.parametrize(
    ("network", "inputs", "sizes"),
    [
        # stem, down, residual stream, two blocks, up, up; groups come in this order
        (ResnetGenerator(ngf=4, n_blocks=2), IMAGE, [4, 8, 16, 16, 16, 8, 4]),
        # the same, and what each block's separable convolutions hand to one another
        (MobileResnetGenerator(ngf=4, n_blocks=2), IMAGE, [4, 8, 16, 16, 16, 8, 4]),
        # six down, five up
        (UnetGenerator(ngf=4, n_downs=6), IMAGE, [4, 8, 16, 32, 32, 32, 32, 32, 16, 8, 4]),
        (PatchDiscriminator(ndf=4), PAIR, [4, 8, 16, 32]),
        (PixelDiscriminator(ndf=4), PAIR, [4, 8]),
    ],
    ids=["resnet", "mobile resnet", "unet", "patch", "pixel"],
)
def test_groups_of_the_shipped_networks(network, inputs, sizes):
    groups = find_groups(network, inputs)
    assert groups.sizes == sizes
    assert groups.total == sum(sizes)
    order = [name for name, _ in network.named_modules()]
    assert groups.names == sorted(groups.names, key=order.index)


def test_a_residual_stream_is_one_group_and_image_and_output_are_none():
    groups = find_groups(ResnetGenerator(ngf=4, n_blocks=2), IMAGE)
    layers, always = groups.layers, groups.total
    stream = layers["model.7"].outputs  # the last convolution before the blocks
    assert len(stream.unique()) == 16
    assert always not in stream
    for block in ("model.10", "model.11"):
        assert torch.equal(layers[f"{block}.conv_block.1"].inputs, stream)
        assert torch.equal(layers[f"{block}.conv_block.5"].outputs, stream)
        assert torch.equal(layers[f"{block}.conv_block.6"].outputs, stream)
    assert torch.equal(layers["model.12"].inputs, stream)
    assert layers["model.1"].inputs.tolist() == [always] * 3
    assert layers["model.19"].outputs.tolist() == [always] * 3


def test_a_concatenation_lays_its_groups_side_by_side():
    make, _ = FITTING["concatenation"]
    network = make()
    layers = find_groups(network, zeros(network)).layers
    side_by_side = torch.cat([layers["a"].outputs, layers["b"].outputs])
    assert torch.equal(layers["norm"].inputs, side_by_side)
    assert torch.equal(layers["norm"].outputs, side_by_side)
    assert torch.equal(layers["out"].inputs, torch.cat([side_by_side, layers["c"].outputs]))


def test_channels_that_part_ways_are_groups_of_their_own():
    """Else one of the layers could lose all of its channels while its group keeps some."""
    make, _ = FITTING["halves onto the whole"]
    network = make()
    assert by_name(find_groups(network, zeros(network))) == {"a": 5, "a:1": 3}


def test_split_and_kept_go_by_group():
    groups = ChannelGroups(["a", "b"], [2, 3], {})
    mask = torch.tensor([1.0, 0.4, 0.6, 0.0, 1.0])
    assert [part.tolist() for part in groups.split(mask > 0.5)] == [[True, False], [True, False, True]]
    assert groups.kept(mask) == {"a": 1, "b": 2}


def test_the_network_is_left_as_it_was_frozen_or_not():
    network = PatchDiscriminator(ndf=4).train().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(3)
    random_state = torch.get_rng_state()
    groups = find_groups(network, PAIR)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert network.training
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    thawed = find_groups(network.requires_grad_(True), PAIR)
    assert by_name(groups) == by_name(thawed)


def test_ignored_layers_keep_every_group_they_touch():
    network = ResnetGenerator(ngf=4, n_blocks=2)
    whole = by_name(find_groups(network, IMAGE))
    # the second convolution of a block writes the stream and reads the first
    kept = by_name(find_groups(network, IMAGE, ["model.10.conv_block.5"]))
    assert whole.keys() - kept.keys() == {"model.7", "model.10.conv_block.1"}
    always = sum(kept.values())
    layers = find_groups(network, IMAGE, ["model.10.conv_block.5"]).layers
    assert set(layers["model.7"].outputs.tolist()) == {always}


def test_ignored_layers_may_name_what_holds_them():
    network = ResnetGenerator(ngf=4, n_blocks=2)
    assert by_name(find_groups(network, IMAGE, ["model.10"])) == by_name(
        find_groups(network, IMAGE, ["model.10.conv_block.1", "model.10.conv_block.5"])
    )


def test_an_unknown_ignored_layer_is_named():
    with pytest.raises(UserError, match=r"ignored_layers: .*'model\.99'"):
        find_groups(PatchDiscriminator(ndf=4), PAIR, ["model.0", "model.99"])


def test_ignored_layers_may_be_patterns():
    network = ResnetGenerator(ngf=4, n_blocks=2)
    by_pattern = find_groups(network, IMAGE, ["*.conv_block.1"])
    assert by_name(by_pattern) == by_name(
        find_groups(network, IMAGE, ["model.10.conv_block.1", "model.11.conv_block.1"])
    )
    assert by_pattern.whole["model.10.conv_block.1"] == "ignored_layers names it"


def test_nothing_left_to_drop_is_an_error():
    with pytest.raises(
        UserError, match=r"PixelDiscriminator has no channels .*'net\.0': ignored_layers names it"
    ):
        find_groups(PixelDiscriminator(ndf=4), PAIR, ["net"])


def test_a_forward_that_fails_on_the_example_is_named():
    def picky(n, x):
        raise ValueError("too dark")

    with pytest.raises(UserError, match=r"Net can't be traced .*ValueError: too dark"):
        find_groups(Net(picky), [torch.zeros(1, 3, 8, 8)])


class Styled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = conv(3, 4)

    def forward(self, image, style):
        return self.a(image) + style


@pytest.mark.parametrize("network", [Styled(), nn.ModuleDict({"generator": Styled()})], ids=["one", "side"])
def test_an_argument_that_nobody_gives_is_named(network):
    with pytest.raises(UserError, match=r"Styled\.forward can't be called with 1 input alone .*'style'"):
        find_groups(network, [torch.zeros(1, 3, 8, 8)])


def test_inputs_of_whole_numbers_have_no_channels():
    class Labelled(nn.Module):
        def __init__(self):
            super().__init__()
            self.word, self.a, self.b = nn.Embedding(4, 5), conv(8, 6), conv(6, 3)

        def forward(self, image, label):
            words = self.word(label)[:, :, None, None].expand(-1, -1, *image.shape[2:])
            return self.b(self.a(torch.cat([image, words], 1)).relu())

    inputs = [torch.zeros(1, 3, 8, 8), torch.tensor([3])]
    network = Labelled()
    groups = find_groups(network, inputs, ["word"])
    check_groups(network, groups, inputs)
    assert by_name(groups) == {"a": 6}


def test_an_image_in_pixels_laid_into_channels_is_kept_whole():
    """Whatever comes of it: its mean over channels has none that could be missed."""
    network = Net(
        lambda n, x: n.out(n.a(F.pixel_unshuffle(x, 2).mean(1, keepdim=True)).relu()),
        a=conv(1, 6),
        out=conv(6, 3),
    )
    groups = find_groups(network, zeros(network))
    check_groups(network, groups, zeros(network))
    assert by_name(groups) == {"a": 6}


def test_groups_of_a_foreign_network():
    network = TransformerNet(4)
    names = ["conv1", "conv2", "conv3", *(f"res{n}.conv1" for n in range(1, 6)), "deconv1", "deconv2"]
    sizes = [4, 8, 16, 16, 16, 16, 16, 16, 8, 4]
    expected = {f"{name}.conv2d": size for name, size in zip(names, sizes, strict=True)}
    assert by_name(find_groups(network, IMAGE)) == expected


def test_what_the_network_itself_tells_the_user_comes_through():
    with pytest.raises(UserError, match="multiple of 64"):
        find_groups(UnetGenerator(ngf=4, n_downs=6), [torch.zeros(1, 3, 48, 48)])


def test_a_network_that_does_something_else_at_another_size_is_read_at_its_own():
    def at_one_resolution(n, x):
        h = n.a(x).relu()
        return n.out(n.b(h) if h.shape[-1] > 64 else n.c(h))

    network = Net(at_one_resolution, a=conv(3, 8), b=conv(8, 6), c=conv(8, 6), out=conv(6, 3))
    assert find_groups(network, [torch.zeros(1, 3, 128, 128)]).names == ["a", "b"]
    assert find_groups(network, [torch.zeros(1, 3, 64, 64)]).names == ["a", "c"]


def only_in_training(otherwise):
    return Net(
        lambda n, x: n.out(otherwise(n, n.a(x)) if n.training else n.b(n.a(x))),
        a=conv(3, 8),
        b=conv(8, 6, 1),
        out=conv(6, 3),
    ).eval()


def test_what_only_training_does_is_read_too():
    network = only_in_training(lambda n, h: F.conv2d(h, n.b.weight))
    groups = find_groups(network, zeros(network))
    assert groups.names == ["b"]
    assert groups.whole["a"] == "'b' has a weight that is used without it"


def test_a_batch_norm_is_no_reason_to_read_a_network_twice(monkeypatch):
    graphs = []
    read = reading_of_groups.read_graph
    monkeypatch.setattr(
        reading_of_groups, "read_graph", lambda *args: graphs.append(read(*args)) or graphs[-1]
    )
    network = Net(lambda n, x: n.out(n.norm(n.a(x))), a=conv(3, 8), norm=nn.BatchNorm2d(8), out=conv(8, 3))
    groups = find_groups(network, zeros(network))
    assert (len(graphs), len(groups.products)) == (1, 2)


def test_what_only_training_does_is_compared_too():
    network = only_in_training(lambda n, h: n.b(h) / h.shape[1])
    with pytest.raises(UserError, match="'a': the forward depends on how many there are"):
        find_groups(network, zeros(network))


def test_the_network_and_its_features_keep_their_graph():
    network = Net(lambda n, x: n.out(n.keep(n.a(x))), a=conv(3, 8), out=conv(8, 3))
    network.kept = []
    network.keep = lambda h: network.kept.append(h) or h
    network(torch.zeros(1, 3, 16, 16)).sum()
    find_groups(network, zeros(network))
    assert network.kept[0].grad_fn is not None


def test_an_output_without_an_image_is_named():
    with pytest.raises(UserError, match="Net returns a str in which there is no image"):
        find_groups(Net(lambda n, x: "no image", a=conv(3, 8)), [torch.zeros(1, 3, 16, 16)])


@pytest.mark.slow
def test_three_hundred_residuals_and_a_concatenation_with_the_first():
    def run(n, x):
        first = h = n.a(x)
        for block in n.blocks:
            h = h + block(h).relu()
        return n.out(torch.cat([h, first], 1)).tanh()

    blocks = nn.ModuleList(conv(4, 4) for _ in range(300))
    network = Net(run, (1, 3, 8, 8), a=conv(3, 4), blocks=blocks, out=conv(8, 3))
    assert by_name(find_groups(network, zeros(network))) == {"a": 4}
