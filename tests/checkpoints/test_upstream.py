"""Files as pytorch-CycleGAN-and-pix2pix writes them, against forward passes that know its key names alone."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.checkpoints import load_network, load_upstream, sibling, upstream_preprocessing
from lightning_gancompress.networks import NetworkSpec

OPTIONS = """----------------- Options ---------------
               batch_size: 1
                crop_size: 128                           \t[default: 256]
                direction: BtoA                          \t[default: AtoB]
                 input_nc: 1                             \t[default: 3]
                load_size: 143                           \t[default: 286]
                     netG: {netG}                     \t[default: unet_256]
               no_dropout: {no_dropout}
                     norm: {norm}
               preprocess: resize_and_crop
----------------- End -------------------
"""


def conv_tensors(name, out_channels, in_channels, kernel, bias):
    weight = torch.randn(out_channels, in_channels, kernel, kernel) * (in_channels * kernel**2) ** -0.5
    return {f"{name}.weight": weight} | ({f"{name}.bias": torch.randn(out_channels) * 0.3} if bias else {})


def up_tensors(name, in_channels, out_channels, kernel, bias):
    tensors = conv_tensors(name, in_channels, out_channels, kernel, bias=False)  # transposed: in before out
    return tensors | ({f"{name}.bias": torch.randn(out_channels) * 0.3} if bias else {})


def norm_tensors(name, channels, norm):
    if norm != "batch":
        return {}
    return {
        f"{name}.weight": 1 + 0.3 * torch.randn(channels),
        f"{name}.bias": 0.3 * torch.randn(channels),
        f"{name}.running_mean": 0.3 * torch.randn(channels),
        f"{name}.running_var": 0.5 + torch.rand(channels),
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


class Reference:
    """Apply layers by the names of their tensors; `norms` says how to read norms, or that there are none."""

    def __init__(self, tensors, norms="running"):
        self.tensors, self.norms = tensors, norms

    def conv(self, name, x, **options):
        return F.conv2d(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"), **options)

    def up(self, name, x, **options):
        weight, bias = self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias")
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, **options)

    def norm(self, name, x):
        if self.norms == "none":
            return x
        if f"{name}.weight" not in self.tensors:
            return F.instance_norm(x)
        mean, var, weight, bias = (
            self.tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        if self.norms == "running":
            return F.batch_norm(x, mean, var, weight, bias)
        return F.batch_norm(x, None, None, weight, bias, training=True)


def resnet_tensors(norm, second, channels=(1, 3), ngf=4, n_blocks=2):
    """`second` is the index of a block's second convolution: 5, or 6 where a dropout comes before it."""
    bias = norm == "instance"
    tensors = {}

    def layer(name, norm_name, out_channels, in_channels, kernel):
        tensors.update(conv_tensors(name, out_channels, in_channels, kernel, bias))
        tensors.update(norm_tensors(norm_name, out_channels, norm))

    layer("model.1", "model.2", ngf, channels[0], 7)
    layer("model.4", "model.5", 2 * ngf, ngf, 3)
    layer("model.7", "model.8", 4 * ngf, 2 * ngf, 3)
    for block in range(10, 10 + n_blocks):
        for index in (1, second):
            name = f"model.{block}.conv_block"
            layer(f"{name}.{index}", f"{name}.{index + 1}", 4 * ngf, 4 * ngf, 3)
    for index, width in ((10 + n_blocks, 2 * ngf), (13 + n_blocks, ngf)):
        tensors.update(up_tensors(f"model.{index}", 2 * width, width, 3, bias))
        tensors.update(norm_tensors(f"model.{index + 1}", width, norm))
    tensors.update(conv_tensors(f"model.{17 + n_blocks}", channels[1], ngf, 7, bias=True))
    return tensors


def narrow_resnet_tensors(norm):
    """Stem of 4, then 6, a stream of 13, blocks of 5 and 7 within, and 3 and 6 on the way up."""
    bias, tensors = norm == "instance", {}

    def layer(name, norm_name, out_channels, in_channels, kernel, make=conv_tensors):
        widths = (in_channels, out_channels) if make is up_tensors else (out_channels, in_channels)
        tensors.update(make(name, *widths, kernel, bias) | norm_tensors(norm_name, out_channels, norm))

    for index, out_channels, in_channels, kernel in ((1, 4, 1, 7), (4, 6, 4, 3), (7, 13, 6, 3)):
        layer(f"model.{index}", f"model.{index + 1}", out_channels, in_channels, kernel)
    for block, within in ((10, 5), (11, 7)):
        name = f"model.{block}.conv_block"
        layer(f"{name}.1", f"{name}.2", within, 13, 3)
        layer(f"{name}.5", f"{name}.6", 13, within, 3)
    layer("model.12", "model.13", 3, 13, 3, up_tensors)
    layer("model.15", "model.16", 6, 3, 3, up_tensors)
    return tensors | conv_tensors("model.19", 3, 6, 7, bias=True)


def resnet_forward(tensors, x, second, norms="running", n_blocks=2):
    net = Reference(tensors, norms)

    def filtered(name, x):
        if f"{name}.weight" in tensors:
            return net.conv(name, x)
        x = F.instance_norm(net.conv(f"{name}.conv.0", x, groups=x.shape[1]))
        return net.conv(f"{name}.conv.2", x)

    x = F.relu(net.norm("model.2", net.conv("model.1", F.pad(x, [3] * 4, "reflect"))))
    for index in (4, 7):
        x = F.relu(net.norm(f"model.{index + 1}", net.conv(f"model.{index}", x, stride=2, padding=1)))
    for block in range(10, 10 + n_blocks):
        y = x
        for index in (1, second):
            name = f"model.{block}.conv_block"
            y = net.norm(f"{name}.{index + 1}", filtered(f"{name}.{index}", F.pad(y, [1] * 4, "reflect")))
            y = F.relu(y) if index == 1 else y
        x = x + y
    for index in (10 + n_blocks, 13 + n_blocks):
        x = F.relu(net.norm(f"model.{index + 1}", net.up(f"model.{index}", x, output_padding=1)))
    return torch.tanh(net.conv(f"model.{17 + n_blocks}", F.pad(x, [3] * 4, "reflect")))


def mobile_tensors(norm, second=6, stream=12, within=(12, 12), channels=(1, 3), ngf=3):
    """Of stem `ngf`, then `stream // 2`, `stream`, blocks of `within`, and as many on the way up."""
    bias, tensors = norm == "instance", {}
    for index, out_channels, in_channels, kernel in (
        (1, ngf, channels[0], 7),
        (4, stream // 2, ngf, 3),
        (7, stream, stream // 2, 3),
    ):
        tensors |= conv_tensors(f"model.{index}", out_channels, in_channels, kernel, bias)
        tensors |= norm_tensors(f"model.{index + 1}", out_channels, norm)
    for block, width in enumerate(within, 10):
        for index, out_channels, in_channels in ((1, width, stream), (second, stream, width)):
            name = f"model.{block}.conv_block.{index}"
            tensors |= conv_tensors(f"{name}.conv.0", in_channels, 1, 3, bias)
            tensors |= conv_tensors(f"{name}.conv.2", out_channels, in_channels, 1, bias)
            tensors |= norm_tensors(f"model.{block}.conv_block.{index + 1}", out_channels, norm)
    up = 10 + len(within)
    for index, out_channels, in_channels in ((up, stream // 2, stream), (up + 3, ngf, stream // 2)):
        tensors |= up_tensors(f"model.{index}", in_channels, out_channels, 3, bias)
        tensors |= norm_tensors(f"model.{index + 1}", out_channels, norm)
    return tensors | conv_tensors(f"model.{up + 7}", channels[1], ngf, 7, bias=True)


def unet_tensors(norm, channels=(1, 3), ngf=4, n_downs=6):
    bias = norm == "instance"
    widths = [ngf * min(2**level, 8) for level in range(n_downs)]
    tensors = conv_tensors("model.model.0", ngf, channels[0], 4, bias)
    prefix = "model.model.1.model"
    for level in range(1, n_downs):
        outer, inner = widths[level - 1], widths[level]
        tensors |= conv_tensors(f"{prefix}.1", inner, outer, 4, bias)
        innermost = level == n_downs - 1
        up, up_norm = (3, 4) if innermost else (5, 6)
        if not innermost:
            tensors |= norm_tensors(f"{prefix}.2", inner, norm)
        tensors |= up_tensors(f"{prefix}.{up}", inner if innermost else 2 * inner, outer, 4, bias)
        tensors |= norm_tensors(f"{prefix}.{up_norm}", outer, norm)
        prefix += ".3.model"
    return tensors | up_tensors("model.model.3", 2 * ngf, channels[1], 4, bias=True)


def unet_forward(tensors, x, norms="running"):
    net = Reference(tensors, norms)

    def level(prefix, x):
        y = net.conv(f"{prefix}.1", F.leaky_relu(x, 0.2), stride=2, padding=1)
        if f"{prefix}.5.weight" in tensors:
            y = level(f"{prefix}.3.model", net.norm(f"{prefix}.2", y))
            y = net.norm(f"{prefix}.6", net.up(f"{prefix}.5", F.relu(y)))
        else:
            y = net.norm(f"{prefix}.4", net.up(f"{prefix}.3", F.relu(y)))
        return torch.cat([x, y], 1)

    x = level("model.model.1.model", net.conv("model.model.0", x, stride=2, padding=1))
    return torch.tanh(net.up("model.model.3", F.relu(x)))


def patch_tensors(norm, n_layers=3, ndf=4, in_channels=4):
    bias = norm == "instance"
    tensors = conv_tensors("model.0", ndf, in_channels, 4, bias=True)
    widths = [ndf * min(2**level, 8) for level in range(n_layers + 1)]
    for level in range(1, n_layers + 1):
        index = 3 * level - 1
        tensors |= conv_tensors(f"model.{index}", widths[level], widths[level - 1], 4, bias)
        tensors |= norm_tensors(f"model.{index + 1}", widths[level], norm)
    return tensors | conv_tensors(f"model.{3 * n_layers + 2}", 1, widths[-1], 4, bias=True)


def patch_forward(tensors, x, n_layers=3, norms="running"):
    net = Reference(tensors, norms)
    x = F.leaky_relu(net.conv("model.0", x, stride=2, padding=1), 0.2)
    for level in range(1, n_layers + 1):
        index = 3 * level - 1
        x = net.conv(f"model.{index}", x, stride=2 if level < n_layers else 1, padding=1)
        x = F.leaky_relu(net.norm(f"model.{index + 1}", x), 0.2)
    return net.conv(f"model.{3 * n_layers + 2}", x, padding=1)


def pixel_tensors(norm, ndf=4, in_channels=4):
    bias = norm == "instance"
    tensors = conv_tensors("net.0", ndf, in_channels, 1, bias=True)
    tensors |= conv_tensors("net.2", 2 * ndf, ndf, 1, bias) | norm_tensors("net.3", 2 * ndf, norm)
    return tensors | conv_tensors("net.5", 1, 2 * ndf, 1, bias)


def pixel_forward(tensors, x, norms="running"):
    net = Reference(tensors, norms)
    x = net.conv("net.2", F.leaky_relu(net.conv("net.0", x), 0.2))
    return net.conv("net.5", F.leaky_relu(net.norm("net.3", x), 0.2))


def as_old_parallel_profiled(tensors, norm_layers):
    """Dress `tensors` up with all that files in the wild carry besides."""
    tensors = dict(tensors)
    for name, channels in norm_layers.items():
        tensors[f"{name}.running_mean"] = torch.full((channels,), 9.0)
        tensors[f"{name}.running_var"] = torch.full((channels,), 9.0)
        tensors[f"{name}.num_batches_tracked"] = torch.tensor(9)
    tensors |= {"total_ops": torch.zeros(1), "model.1.total_params": torch.zeros(1)}
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def assert_same_picture(actual, expected):
    assert expected.std() > 0.05  # else any two agree
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "latest_net_G.pth"


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("second", [5, 6])
def test_instance_norm_resnet(file, second, wild):
    tensors = resnet_tensors("instance", second)
    stale = {"model.2": 4, "model.10.conv_block.2": 16, f"model.11.conv_block.{second + 1}": 16}
    torch.save(as_old_parallel_profiled(tensors, stale) if wild else tensors, file)
    source = torch.rand(2, 1, 16, 24) * 2 - 1
    assert_same_picture(load_generator(file)(source), resnet_forward(tensors, source, second))
    _, spec = load_upstream(file, role="generator")
    assert spec.init_args == {
        "in_channels": 1,
        "out_channels": 3,
        "ngf": 4,
        "n_blocks": 2,
        "norm": "instance",
        "dropout": second == 6,
    }


@pytest.mark.parametrize("batch_norm", ["running", "image"])
@pytest.mark.parametrize("second", [5, 6])
def test_batch_norm_resnet(file, second, batch_norm):
    tensors = resnet_tensors("batch", second)
    torch.save(tensors, file)
    source = torch.rand(1, 1, 16, 24) * 2 - 1
    expected = resnet_forward(tensors, source, second, batch_norm)
    assert_same_picture(load_generator(file, batch_norm=batch_norm)(source), expected)


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("batch_norm", [None, "running", "image"])
def test_batch_norm_unet(file, batch_norm, wild):
    tensors = unet_tensors("batch")
    torch.save(as_old_parallel_profiled(tensors, {}) if wild else tensors, file)
    source = torch.rand(2, 1, 64, 128) * 2 - 1
    expected = [unet_forward(tensors, image[None], batch_norm or "running") for image in source]
    assert_same_picture(load_generator(file, batch_norm=batch_norm)(source), torch.cat(expected))
    _, spec = load_upstream(file)
    assert spec.init_args == {
        "in_channels": 1,
        "out_channels": 3,
        "ngf": 4,
        "n_downs": 6,
        "norm": "batch",
        "dropout": True,
    }


@pytest.mark.parametrize("second", [5, 6])
def test_a_resnet_without_norms(file, second):
    tensors = resnet_tensors("none", second)
    torch.save(tensors, file)
    source = torch.rand(2, 1, 16, 24) * 2 - 1
    assert_same_picture(load_generator(file)(source), resnet_forward(tensors, source, second, "none"))
    assert load_upstream(file)[1].init_args["norm"] == "none"


def test_a_unet_without_norms(file):
    tensors = unet_tensors("none")
    torch.save(tensors, file)
    source = torch.rand(2, 1, 64, 64) * 2 - 1
    assert_same_picture(load_generator(file)(source), unet_forward(tensors, source, "none"))
    assert load_upstream(file)[1].init_args["norm"] == "none"


@pytest.mark.parametrize("letter", ["A", "B"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("second", [5, 6])
@pytest.mark.parametrize("n_blocks", [6, 9])
def test_cyclegan_generators_of_every_kind(tmp_path, letter, norm, second, n_blocks):
    tensors = resnet_tensors(norm, second, (3, 3), 2, n_blocks)
    file = tmp_path / f"latest_net_G_{letter}.pth"
    torch.save(as_old_parallel_profiled(tensors, {"model.2": 2} if norm == "instance" else {}), file)
    source = torch.rand(1, 3, 16, 16) * 2 - 1
    norms = "none" if norm == "none" else "running"
    role = {"A": "generator_AtoB", "B": "generator_BtoA"}[letter]
    network, spec = load_network(file, role)
    assert_same_picture(network(source), resnet_forward(tensors, source, second, norms, n_blocks))
    assert (spec.init_args["n_blocks"], spec.init_args["norm"]) == (n_blocks, norm)
    assert not spec.init_args["dropout"]  # upstream never trains them with any, whatever the keys allow for


@pytest.mark.parametrize(("name", "dropout"), [("latest_net_G_A.pth", False), ("latest_net_G.pth", True)])
def test_unets_have_the_dropout_that_upstream_trains_with(tmp_path, name, dropout):
    torch.save(unet_tensors("instance"), tmp_path / name)
    assert load_upstream(tmp_path / name)[1].init_args["dropout"] is dropout


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("latest_net_G_B.pth", "generator_AtoB"),
        ("latest_net_G_A.pth", "generator_BtoA"),
        ("40_net_D_B.pth", "discriminator_AtoB"),
        ("generator_AtoB.pth", "generator_BtoA"),
    ],
)
def test_a_network_of_the_other_direction_is_refused(tmp_path, name, role):
    torch.save(resnet_tensors("instance", 5), tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} is a network of .to. by its name, .* {role}") as error:
        load_network(tmp_path / name, role)
    assert "\n" not in str(error.value)


def test_a_generator_that_is_alone_serves_any_direction(file):
    tensors = resnet_tensors("instance", 5)
    torch.save(tensors, file)
    source = torch.rand(1, 1, 16, 16)
    for role in ("generator", "generator_AtoB", "generator_BtoA"):
        assert_same_picture(load_network(file, role)[0](source), resnet_forward(tensors, source, 5))


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_file_of_narrow_layers_keeps_their_widths(file, norm):
    tensors = narrow_resnet_tensors(norm)
    torch.save(tensors, file)
    source = torch.rand(2, 1, 16, 24) * 2 - 1
    network, spec = load_network(file)
    assert_same_picture(network(source), resnet_forward(tensors, source, 5))
    assert spec.widths["model.11.conv_block.1"] == [13, 7]
    twin = NetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).build(network.state_dict())
    assert torch.equal(twin.eval()(source), network(source))


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("second", [5, 6])
def test_a_mobile_resnet(file, norm, second):
    tensors = mobile_tensors(norm, second)
    torch.save(as_old_parallel_profiled(tensors, {}), file)
    source = torch.rand(2, 1, 16, 24) * 2 - 1
    norms = "none" if norm == "none" else "running"
    network, spec = load_network(file)
    assert_same_picture(network(source), resnet_forward(tensors, source, second, norms))
    assert spec.class_path == "lightning_gancompress.networks.MobileResnetGenerator"
    assert spec.init_args == {
        "in_channels": 1,
        "out_channels": 3,
        "ngf": 3,
        "n_blocks": 2,
        "norm": norm,
        "dropout": False,
    }
    assert spec.widths is None


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_compressed_mobile_resnet_keeps_its_widths(file, norm):
    tensors = mobile_tensors(norm, stream=10, within=(4, 16, 6))
    torch.save(tensors, file)
    source = torch.rand(2, 1, 16, 24) * 2 - 1
    network, spec = load_network(file)
    assert_same_picture(network(source), resnet_forward(tensors, source, 6, n_blocks=3))
    assert spec.widths["model.11.conv_block.6.conv.0"] == [16, 16, 16]
    assert torch.equal(spec.build(network.state_dict()).eval()(source), network(source))


@pytest.mark.parametrize(("rate", "dropout"), [("0", False), ("0.5", True)])
@pytest.mark.parametrize("make", [mobile_tensors, lambda norm: resnet_tensors(norm, 6)])
def test_gan_compression_notes_the_rate_of_its_dropout(file, make, rate, dropout):
    file.with_name("train_opt.txt").write_text(f"  dropout_rate: {rate}      \n")
    torch.save(make("instance"), file)
    assert load_upstream(file)[1].init_args["dropout"] is dropout


def test_instance_norm_unet(file):
    tensors = unet_tensors("instance")
    torch.save(tensors, file)
    source = torch.rand(2, 1, 64, 64) * 2 - 1
    assert_same_picture(load_generator(file)(source), unet_forward(tensors, source))


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("n_layers", [1, 2, 3, 4, 5])
def test_patch_discriminator(tmp_path, norm, n_layers):
    tensors = patch_tensors(norm, n_layers)
    torch.save(tensors, tmp_path / "latest_net_D.pth")
    network, spec = load_upstream(tmp_path / "latest_net_D.pth", role="discriminator")
    images = 8 * torch.rand(2, 4, 128, 160)
    norms = "none" if norm == "none" else "running"
    assert_same_picture(network(images), patch_forward(tensors, images, n_layers, norms))
    assert spec.init_args == {"in_channels": 4, "ndf": 4, "n_layers": n_layers, "norm": norm}


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_pixel_discriminator(tmp_path, norm):
    tensors = pixel_tensors(norm)
    torch.save(tensors, tmp_path / "latest_net_D.pth")
    network, spec = load_upstream(tmp_path / "latest_net_D.pth")
    images = torch.rand(2, 4, 8, 8)
    norms = "none" if norm == "none" else "running"
    assert_same_picture(network(images), pixel_forward(tensors, images, norms))
    assert spec.init_args == {"in_channels": 4, "ndf": 4, "norm": norm}


@pytest.mark.parametrize("no_dropout", [True, False])
def test_options_tell_of_dropout_and_preprocessing(file, no_dropout):
    options = OPTIONS.format(netG="unet_64", no_dropout=no_dropout, norm="batch")
    file.with_name("train_opt.txt").write_text(options)
    torch.save(unet_tensors("batch"), file)
    assert load_upstream(file)[1].init_args["dropout"] is not no_dropout
    assert upstream_preprocessing(file) == {
        "in_channels": 1,
        "direction": "BtoA",
        "preprocess": "resize_and_crop",
        "load_size": 143,
        "crop_size": 128,
    }


@pytest.mark.parametrize(("second", "no_dropout"), [(6, True), (6, False), (5, True), (5, False)])
def test_a_resnet_has_dropout_where_keys_and_options_say_so(file, second, no_dropout):
    options = OPTIONS.format(netG="resnet_9blocks", no_dropout=no_dropout, norm="instance")
    file.with_name("train_opt.txt").write_text(options)
    tensors = resnet_tensors("instance", second)
    torch.save(tensors, file)
    network, spec = load_upstream(file)
    assert spec.init_args["dropout"] is (second == 6 and not no_dropout)
    source = torch.rand(1, 1, 16, 16)
    assert_same_picture(network(source), resnet_forward(tensors, source, second))


def test_tensors_win_over_contrary_options(file):
    file.with_name("train_opt.txt").write_text(OPTIONS.format(netG="unet_256", no_dropout=True, norm="batch"))
    torch.save(resnet_tensors("instance", 5), file)
    assert load_upstream(file)[1].init_args["norm"] == "instance"


def test_without_options_no_preprocessing_is_known(file):
    assert upstream_preprocessing(file) == {}


def test_a_discriminator_is_no_generator_nor_the_reverse(file):
    torch.save(patch_tensors("batch"), file)
    with pytest.raises(
        UserError, match=r"latest_net_G.pth.*discriminator \(PatchDiscriminator\) where a generator"
    ):
        load_generator(file)
    torch.save(unet_tensors("batch"), file)
    with pytest.raises(UserError, match=r"generator \(UnetGenerator\) where a discriminator"):
        load_upstream(file, role="discriminator")


def test_another_architecture_is_told_by_its_keys_and_shapes(file):
    tensors = resnet_tensors("instance", 5)
    del tensors["model.4.weight"]
    tensors["model.7.weight"] = torch.zeros(16, 7, 3, 3)
    tensors["attention.query.weight"] = torch.zeros(1)
    torch.save(tensors, file)
    with pytest.raises(UserError) as error:
        load_generator(file)
    message = str(error.value)
    assert str(file) in message
    assert "missing keys: model.4.weight;" in message
    assert "unexpected keys: attention.query.weight;" in message
    assert "model.7.weight is (16, 7, 3, 3) instead of (16, 8, 3, 3)" in message
    assert "Give its own class, as model.generator.class_path" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "empty or no state dict"),
        ([torch.zeros(1)], "empty or no state dict"),
        (torch.zeros(3), "empty or no state dict"),
        ({"model.1.weight": torch.zeros(1), "epoch": 3}, "epoch in it is no tensor"),
        ({"optimizer": {"state": {}, "param_groups": []}, "epoch": 3}, "optimizer, epoch in it is no tensor"),
        ({0: torch.zeros(1)}, r"its keys \(0, ...\) are of no"),
        (
            {"conv1.weight": torch.zeros(1, 1, 3, 3)},
            r"its keys \(conv1.weight, ...\) are of no architecture known",
        ),
        ({"model.10.conv_block.1.conv.0.weight": torch.zeros(1, 1, 3, 3)}, "model.1.weight.*is missing"),
        ({"model.0.weight": torch.zeros(4)}, "model.0.weight.*of another shape"),
        ({"model.0.weight": torch.zeros(4, 3, 4, 4)}, "n_layers of PatchDiscriminator is -1"),
    ],
)
def test_what_is_no_network_is_named(file, content, words):
    torch.save(content, file)
    with pytest.raises(UserError, match=words) as error:
        load_upstream(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("name", "role", "expected"),
    [
        ("latest_net_G.pth", "generator", "latest_net_G.pth"),
        ("latest_net_G.pth", "discriminator", "latest_net_D.pth"),
        ("latest_net_G_A.pth", "generator_AtoB", "latest_net_G_A.pth"),
        ("latest_net_G_A.pth", "generator_BtoA", "latest_net_G_B.pth"),
        ("40_net_G_B.pth", "discriminator_AtoB", "40_net_D_A.pth"),
        ("iter_500_net_D_A.pth", "discriminator_BtoA", "iter_500_net_D_B.pth"),
        ("latest_net_G.pth", "generator_BtoA", "latest_net_G_B.pth"),
        ("last.ckpt", "discriminator_AtoB", "last.ckpt"),
        ("my_net_Great.pth", "discriminator", "my_net_Great.pth"),
    ],
)
def test_the_networks_of_one_model_lie_side_by_side(name, role, expected):
    assert sibling(Path("model_net_G.pth", name), role) == Path("model_net_G.pth", expected)


@pytest.mark.parametrize(("letter", "direction"), [("A", "AtoB"), ("B", "BtoA")])
def test_cyclegan_discriminators(tmp_path, letter, direction):
    tensors = patch_tensors("instance", 2, in_channels=3)
    file = tmp_path / f"latest_net_D_{letter}.pth"
    torch.save(as_old_parallel_profiled(tensors, {"model.3": 8, "model.6": 16}), file)
    images = torch.rand(2, 3, 32, 32)
    network, spec = load_network(file, f"discriminator_{direction}")
    assert_same_picture(network(images), patch_forward(tensors, images, 2))
    assert spec.init_args == {"in_channels": 3, "ndf": 4, "n_layers": 2, "norm": "instance"}
    with pytest.raises(UserError, match=r"holds a discriminator .* where a generator is needed"):
        load_network(file, f"generator_{direction}")
