"""Files of other people's networks: classes of the test's own, which name their modules as they like."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.checkpoints import (
    load_network,
    load_small,
    load_upstream,
    save_small,
    tensors_for,
)
from lightning_gancompress.networks import (
    MobileResnetGenerator,
    PatchDiscriminator,
    PixelDiscriminator,
    ResnetGenerator,
    UnetGenerator,
)

NORMS = {
    "plain": lambda width: nn.InstanceNorm2d(width),
    "affine": lambda width: nn.InstanceNorm2d(width, affine=True),
    "tracking": lambda width: nn.InstanceNorm2d(width, affine=True, track_running_stats=True),
    "tracking alone": lambda width: nn.InstanceNorm2d(width, track_running_stats=True),
    "batch": nn.BatchNorm2d,
    "batch without scale": lambda width: nn.BatchNorm2d(width, affine=False),
}
READ_AS = {"plain": "instance", "affine": "instance_affine"}


class Residual(nn.Module):
    def __init__(self, width, norm, drop=(), pad=True, act=False):
        super().__init__()
        pads = [nn.ReflectionPad2d(1)] if pad else []
        self.main = nn.Sequential(
            *pads, nn.Conv2d(width, width, 3, padding=0 if pad else 1), norm(width), nn.ReLU(), *drop,
            *pads, nn.Conv2d(width, width, 3, padding=0 if pad else 1), norm(width),
        )  # fmt: skip
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x):
        return self.act(x + self.main(x))


def stages(norm, bias=True, drop=(), up=None, blocks=2, ngf=4, **options):
    """Lists of layers: the stem, two halvings, the blocks, two doublings, the image."""
    up = up or (lambda a, b: [nn.ConvTranspose2d(a, b, 3, 2, 1, 1, bias=bias)])
    return [
        [nn.ReflectionPad2d(3), nn.Conv2d(1, ngf, 7, bias=bias), norm(ngf), nn.ReLU()],
        [nn.Conv2d(ngf, 2 * ngf, 3, 2, 1, bias=bias), norm(2 * ngf), nn.ReLU()],
        [nn.Conv2d(2 * ngf, 4 * ngf, 3, 2, 1, bias=bias), norm(4 * ngf), nn.ReLU()],
        [Residual(4 * ngf, norm, drop, **options) for _ in range(blocks)],
        [*up(4 * ngf, 2 * ngf), norm(2 * ngf), nn.ReLU()],
        [*up(2 * ngf, ngf), norm(ngf), nn.ReLU()],
        [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()],
    ]


class Flat(nn.Module):
    """The layout of pytorch-CycleGAN-and-pix2pix under other names."""

    def __init__(self, norm=NORMS["affine"], **options):
        super().__init__()
        self.wrapped = nn.Module()
        self.wrapped.layers = nn.Sequential(*(layer for stage in stages(norm, **options) for layer in stage))

    def forward(self, x):
        return self.wrapped.layers(x)


class Staged(nn.Module):
    """The same layers in lists of their own."""

    def __init__(self, norm=NORMS["affine"], **options):
        super().__init__()
        stem, down1, down2, blocks, up1, up2, image = (nn.Sequential(*s) for s in stages(norm, **options))
        self.initial, self.down_blocks = stem, nn.ModuleList([down1, down2])
        self.res_blocks, self.up_blocks, self.last = blocks, nn.ModuleList([up1, up2]), image

    def forward(self, x):
        stages = self.initial, *self.down_blocks, self.res_blocks, *self.up_blocks, self.last
        return nn.Sequential(*stages)(x)


class FlatUnet(nn.Module):
    """A U-Net of five levels whose skips come last and are not rectified."""

    def __init__(self):
        super().__init__()
        widths = [1, 4, 8, 16, 32, 32]
        self.down = nn.ModuleList()
        for level in range(1, 6):
            norm = [nn.InstanceNorm2d(widths[level], affine=True)] if 1 < level < 5 else []
            self.down.append(nn.Sequential(nn.Conv2d(widths[level - 1], widths[level], 4, 2, 1), *norm))
        self.up = nn.ModuleList()
        for level in range(5, 1, -1):
            width = widths[level] * (1 if level == 5 else 2)
            up = nn.ConvTranspose2d(width, widths[level - 1], 4, 2, 1)
            self.up.append(nn.Sequential(up, nn.InstanceNorm2d(widths[level - 1], affine=True)))
        self.image = nn.ConvTranspose2d(8, 3, 4, 2, 1)

    def forward(self, x):
        skips = []
        for down in self.down:
            x = F.leaky_relu(down(x), 0.2)
            skips.append(x)
        for up, skip in zip(self.up, skips[-2::-1], strict=True):
            x = torch.cat([F.relu(up(x)), skip], 1)
        return torch.tanh(self.image(x))


def trained(network):
    """Give it weights and statistics that all matter, and put it into eval mode."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight)
        for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if tensor.ndim == 1:
                spread = 0.3 * torch.rand_like(tensor)
                tensor.data = 0.8 + spread if name in ("weight", "running_var") else spread
    return network.eval()


def renamed(network, *pairs):
    """The tensors of one of our networks under other names."""
    tensors = dict(trained(network).state_dict())
    for old, new in pairs:
        tensors = {re.sub(old, new, key): tensor for key, tensor in tensors.items()}
    return tensors


def assert_same_picture(actual, expected):
    assert expected.std() > 0.05  # else any two agree
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture
def source():
    return torch.rand(2, 1, 16, 24) * 2 - 1


# -- read by the path alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("drop", [(), (nn.Dropout(0.5),)])
def test_the_usual_layout_is_read_under_any_names(file, source, caplog, norm, drop):
    network = trained(Flat(NORMS[norm], drop=drop))
    torch.save(network.state_dict(), file)
    read, spec = load_network(file)
    assert_same_picture(read(source), network(source))
    assert spec.init_args == {
        "in_channels": 1,
        "out_channels": 3,
        "ngf": 4,
        "n_blocks": 2,
        "norm": READ_AS.get(norm, "batch"),
        "dropout": bool(drop),
    }
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith(f"{file} is read as ResnetGenerator(in_channels=1, ")
    assert "padding, activations" in line
    assert "\n" not in line
    assert_same_picture(spec.build(read.state_dict()).eval()(source), network(source))


@pytest.mark.parametrize("norm", ["batch", "affine", "tracking"])
def test_convolutions_may_lack_their_biases(file, source, norm):
    network = trained(Flat(NORMS[norm], bias=False))
    torch.save(network.state_dict(), file)
    assert_same_picture(load_generator(file)(source), network(source))


@pytest.mark.parametrize("norm", ["batch", "tracking", "tracking alone"])
def test_statistics_of_the_image_are_those_of_training_mode(file, source, norm):
    network = trained(Flat(NORMS[norm]))
    torch.save(network.state_dict(), file)
    read = load_generator(file, batch_norm="image")
    network.train()
    assert_same_picture(read(source), torch.cat([network(image[None]) for image in source]))


@pytest.mark.parametrize("norm", ["instance_affine", "batch"])
@pytest.mark.parametrize(
    ("network_class", "args", "size"),
    [
        (ResnetGenerator, {"ngf": 2, "n_blocks": 1}, 16),
        (MobileResnetGenerator, {"ngf": 2, "n_blocks": 3}, 16),
        (UnetGenerator, {"ngf": 2, "n_downs": 6}, 64),
        (PixelDiscriminator, {"in_channels": 3, "ndf": 2}, 16),
    ],
)
def test_each_architecture_is_read_under_other_names(file, network_class, args, size, norm):
    network = network_class(**args, norm=norm)
    torch.save(renamed(network, (r"\b(model|net)\b", "layers"), ("conv_block", "b"), ("^", "a.")), file)
    picture = torch.rand(2, 3, size, size) * 2 - 1
    read, spec = load_upstream(file)
    assert type(read) is network_class
    assert spec.init_args["norm"] == norm
    assert_same_picture(read(picture), network(picture))


def test_upstream_names_may_have_affine_norms(file, source):
    network = ResnetGenerator(1, ngf=2, n_blocks=1, norm="instance_affine")
    torch.save(trained(network).state_dict(), file)
    assert_same_picture(load_generator(file)(source), network(source))


def test_a_file_that_was_sorted_by_name_is_put_in_order(file, source):
    network = trained(Flat())
    torch.save(dict(sorted(network.state_dict().items())), file)
    assert_same_picture(load_generator(file)(source), network(source))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single(file, source, kind):
    network = trained(Flat(NORMS["batch"])).to(kind)
    torch.save(network.state_dict(), file)
    read = load_generator(file)
    assert next(read.parameters()).dtype is torch.float32
    assert_same_picture(read(source), network.float()(source))


def test_what_was_read_is_saved_and_loaded_again(file, source):
    network = trained(Flat())
    torch.save(network.state_dict(), file)
    read, spec = load_network(file)
    save_small(read, spec, file.with_name("small.pth"), preprocessing={}, provenance={})
    assert_same_picture(load_small(file.with_name("small.pth"))[0](source), network(source))


# -- refused, and the remedies ---------------------------------------------------------------------------


def refusal(file, load=load_generator, **options):
    with pytest.raises(UserError) as error:
        load(file, **options)
    message = str(error.value)
    assert message.startswith(f"{file} can't be loaded: ")
    assert "\n" not in message
    return message


def named_in(message):
    """The network of ours in a message, made as it stands there."""
    return eval(re.search(r"\w+(Generator|Discriminator)\(.*?\)", message)[0])


@pytest.mark.parametrize("options", [{}, {"act": True}])
@pytest.mark.parametrize("norm", NORMS)
def test_lists_of_ones_own_leave_it_open_how_the_layers_work(file, source, norm, options):
    network = trained(Staged(NORMS[norm], **options))
    torch.save(network.state_dict(), file)
    message = refusal(file)
    assert "in order and shape those of ResnetGenerator(in_channels=1, out_channels=3, ngf=4" in message
    assert "neither they nor names such as initial.1 show padding" in message
    assert "model.generator.class_path in a configuration or as architecture=... in Python" in message
    assert_same_picture(
        load_generator(file, architecture=Staged(NORMS[norm], **options))(source), network(source)
    )
    if not options:  # then it is built like ours
        assert_same_picture(load_generator(file, architecture=named_in(message))(source), network(source))
        own = named_in(message)
        own.load_state_dict(tensors_for(own, file, "generator"))
        assert_same_picture(own.eval()(source), network(source))


def test_padding_within_convolutions_is_no_evidence(file):
    torch.save(trained(Flat(pad=False)).state_dict(), file)
    assert "neither they nor names such as wrapped.layers.1 show padding" in refusal(file)


def test_without_norms_and_biases_nothing_shows_which_norms_there_are(file):
    torch.save(trained(Flat(NORMS["plain"], bias=False)).state_dict(), file)
    message = refusal(file)
    assert "norm='instance'" in message
    assert "kinds of norms" in message


def test_an_upsampling_with_a_convolution_is_another_layer(file, source):
    def up(a, b):
        return [nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1)]

    network = trained(Flat(up=up))
    torch.save(network.state_dict(), file)
    message = refusal(file)
    assert "most similar is ResnetGenerator(in_channels=1, " in message
    assert (
        "in 17 of 19 layers; first, it has wrapped.layers.13 with weight (8, 16, 3, 3), bias (8,)" in message
    )
    assert "where that has weight (16, 8, 3, 3), bias (8,)." in message
    assert_same_picture(load_generator(file, architecture=Flat(up=up))(source), network(source))
    with pytest.raises(
        UserError, match=r"not those of this ResnetGenerator under other names: it has wrap.*13"
    ):
        load_generator(file, architecture=named_in(message))


def test_a_unet_in_lists_does_not_show_its_skips(file):
    network = trained(FlatUnet())
    torch.save(network.state_dict(), file)
    message = refusal(file)
    assert "those of UnetGenerator(in_channels=1, out_channels=3, ngf=4, n_downs=5, norm=" in message
    assert "how branches join" in message
    source = torch.rand(1, 1, 32, 64)
    assert_same_picture(load_generator(file, architecture=FlatUnet())(source), network(source))
    other = load_generator(file, architecture=named_in(message))(source)
    assert (other - network(source)).abs().max() > 0.1  # which is why it isn't read


@pytest.mark.parametrize("norm", ["instance_affine", "batch"])
def test_a_patch_discriminator_does_not_show_its_strides(file, norm):
    network = PatchDiscriminator(3, ndf=2, norm=norm)
    names = () if norm == "instance_affine" else (("model", "main"),)
    torch.save(renamed(network, *names), file)
    message = refusal(file, load_network, network="discriminator")
    assert f"those of PatchDiscriminator(in_channels=3, ndf=2, n_layers=3, norm='{norm}')" in message
    assert "strides" in message
    assert "model.discriminator.class_path" in message
    picture = torch.rand(1, 3, 32, 32)
    read, _ = load_network(file, "discriminator", architecture=named_in(message))
    assert_same_picture(read(picture), network(picture))


def test_a_role_is_looked_at_whatever_the_names(file):
    torch.save(renamed(PixelDiscriminator(3, ndf=2), ("net", "main")), file)
    assert "holds a discriminator (PixelDiscriminator) where a generator is needed" in refusal(file)


def test_little_resemblance_is_none(file):
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 7), nn.Conv2d(4, 8, 5), nn.Conv2d(8, 3, 5)).state_dict(), file)
    assert "its keys (0.weight, 0.bias, 1.weight, ...) are of no architecture known" in refusal(file)


def test_a_layer_more_or_less_is_named(file):
    tensors = trained(Flat()).state_dict()
    torch.save({**tensors, "extra.weight": torch.zeros(3)}, file)
    assert "it has extra with weight (3,) where that ends." in refusal(file)
    torch.save(dict(list(tensors.items())[:-2]), file)
    assert "most similar is ResnetGenerator" in refusal(file)


# -- what lies around the state dict ---------------------------------------------------------------------


def optimizer_state(network):
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(1, 1, 16, 16)).mean().backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "netG", "G", "generator", "gen", "G_AB", "params", "any"]
)
def test_a_state_dict_may_lie_beside_an_optimizer(file, source, key):
    network = trained(Flat())
    optimizer = optimizer_state(network)
    network.eval()
    torch.save({key: network.state_dict(), "optimizer": optimizer, "epoch": 3, "loss": [0.1]}, file)
    assert_same_picture(load_generator(file)(source), network(source))
    assert_same_picture(load_generator(file, architecture=Flat())(source), network(source))


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "generator.", "model.net_g.", "x.y."]
)
def test_a_prefix_is_taken_away(file, source, prefix):
    network = trained(Flat())
    torch.save({f"{prefix}{key}": tensor for key, tensor in network.state_dict().items()}, file)
    assert_same_picture(load_generator(file)(source), network(source))


@pytest.mark.parametrize(
    ("first", "second", "asked"),
    [
        ("netD", "netG", "generator"),
        ("discriminator_state_dict", "generator_state_dict", "generator"),
        ("G_BA", "G_AB", "generator_AtoB"),
        ("gen_AB", "gen_BA", "generator_BtoA"),
        ("genA2B", "genB2A", "generator_BtoA"),
        ("G_A", "G_B", "G_B"),
        ("params", "params_ema", "generator"),
        ("stats", "model", "generator"),
    ],
)
def test_of_several_networks_the_one_that_is_meant(file, source, first, second, asked):
    one, other = trained(Flat()), trained(Flat(NORMS["batch"]))
    torch.save({first: one.state_dict(), second: other.state_dict(), "epoch": 2}, file)
    assert_same_picture(load_generator(file, network=asked)(source), other(source))
    flat = {
        f"{name}.{key}": tensor
        for name, network in ((first, one), (second, other))
        for key, tensor in network.state_dict().items()
    }
    if re.match("[gG]|net", second):  # as in a checkpoint of Lightning
        torch.save({"state_dict": flat, "epoch": 2}, file)
        assert_same_picture(load_generator(file, network=asked)(source), other(source))


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (("G_AB", "G_BA"), "generator"),
        (("G_A", "G_B"), "generator_AtoB"),
        (("encoder", "decoder"), "generator"),
        (("netD_A", "netD_B"), "generator"),
    ],
)
def test_several_networks_of_which_none_is_surely_meant(file, source, names, asked):
    networks = [trained(Flat()), trained(Flat())]
    torch.save({name: net.state_dict() for name, net in zip(names, networks, strict=True)}, file)
    message = refusal(file, network=asked)
    assert f"it holds {', '.join(names)}, and nothing says which of them is the {asked}." in message
    assert f"network={names[0]!r} (on the command line: --network {names[0]})" in message
    refusal(file, network=asked, architecture=Flat())
    if "D" not in names[0]:
        for given in (None, Flat()):
            read = load_generator(file, network=names[0], architecture=given)
            assert_same_picture(read(source), networks[0](source))


def test_a_given_network_finds_its_tensors_among_others(file, source):
    network = trained(Staged())
    torch.save({"encoder": Flat().state_dict(), "mine": network.state_dict(), "epoch": 1}, file)
    assert_same_picture(load_generator(file, architecture=Staged())(source), network(source))


def test_a_network_of_the_other_direction_is_not_taken(file):
    torch.save({"G_BA": Flat().state_dict(), "epoch": 1}, file)
    assert "it holds G_BA, and nothing says" in refusal(file, network="generator_AtoB")


def test_names_of_a_given_network_are_left_as_they_are(file, source):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = Flat()

        def forward(self, x):
            return self.generator(x)

    network = trained(Holder())
    torch.save(network.state_dict(), file)
    assert_same_picture(load_generator(file, architecture=Holder())(source), network(source))
