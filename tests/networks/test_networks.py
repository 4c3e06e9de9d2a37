import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_gancompress import UserError
from lightning_gancompress.networks import (
    MobileResnetGenerator,
    PatchDiscriminator,
    PixelDiscriminator,
    ResnetGenerator,
    UnetGenerator,
    init_weights,
)

PUBLISHED = [  # millions of exact MACs at 256x256, and millions of parameters
    (ResnetGenerator, {}, 3, 49_551.507456, 11.378179),
    (ResnetGenerator, {"n_blocks": 6}, 3, 35_055.992832, 7.837699),
    (MobileResnetGenerator, {}, 3, 11_066.671104, 1.987075),
    (MobileResnetGenerator, {"ngf": 48}, 3, 6_488.064, 1.130883),
    (UnetGenerator, {}, 3, 6_048.186368, 54.413955),
    (UnetGenerator, {"ngf": 32}, 3, 1_549.795328, 13.608259),
    (PatchDiscriminator, {}, 6, 3_197.140992, 2.768705),
    (PatchDiscriminator, {"in_channels": 3, "norm": "instance"}, 3, 3_146.809344, 2.764737),
]


@pytest.mark.parametrize(("network_class", "args", "channels", "megamacs", "megaparams"), PUBLISHED)
def test_macs_and_parameters_are_the_published_ones(network_class, args, channels, megamacs, megaparams):
    with torch.device("meta"):
        network = network_class(**args)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, channels, 256, 256))
    assert counter.get_total_flops() == 2 * round(megamacs * 1e6)
    assert sum(p.numel() for p in network.parameters()) == round(megaparams * 1e6)


@pytest.mark.parametrize("norm", ["instance", "instance_affine", "batch"])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(
    ("network_class", "depth", "size"),
    [
        (ResnetGenerator, {"n_blocks": 2}, 8),
        (MobileResnetGenerator, {"n_blocks": 2}, 8),
        (UnetGenerator, {"n_downs": 6}, 64),
    ],
)
def test_generators_keep_size_and_range_with_any_channels(network_class, depth, size, norm, dropout):
    network = network_class(1, 5, ngf=2, norm=norm, dropout=dropout, init_gain=1.0, **depth)
    source = torch.rand(2, 1, size, 2 * size) * 2 - 1
    image = network(source)
    assert image.shape == (2, 5, size, 2 * size)
    assert image.abs().max() <= 1
    assert torch.equal(network(source), network(source)) is not dropout
    network.eval()
    assert torch.equal(network(source), network(source))


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("dropout", [False, True])
def test_the_mobile_resnet_bears_the_names_of_gan_compression(norm, dropout):
    keys = set(MobileResnetGenerator(ngf=1, n_blocks=3, norm=norm, dropout=dropout).state_dict())
    blocks = [f"model.{10 + n}.conv_block" for n in range(3)]
    layers = [f"{block}.{n}.conv.{k}" for block in blocks for n in (1, 6) for k in (0, 2)]
    layers += [f"model.{n}" for n in (1, 4, 7, 13, 16, 20)]
    biased = layers if norm == "instance" else ["model.20"]
    norms = [f"{block}.{n}" for block in blocks for n in (2, 7)] + [f"model.{n}" for n in (2, 5, 8, 14, 17)]
    tensors = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert keys == {
        *(f"{layer}.weight" for layer in layers),
        *(f"{layer}.bias" for layer in biased),
        *(f"{layer}.{tensor}" for layer in norms for tensor in tensors if norm == "batch"),
    }


def test_unet_has_dropout_in_all_but_five_levels():
    layers = [type(layer) for layer in UnetGenerator(ngf=1, n_downs=8).modules()]
    assert layers.count(nn.Dropout) == 3
    assert layers.count(nn.ConvTranspose2d) == 8


@pytest.mark.parametrize(("n_layers", "patches"), [(1, 30), (2, 14), (3, 6)])
def test_patch_discriminator_halves_n_times(n_layers, patches):
    logits = PatchDiscriminator(4, ndf=2, n_layers=n_layers)(torch.rand(2, 4, 64, 64))
    assert logits.shape == (2, 1, patches, patches)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_one_pass_of_a_discriminator_does_what_two_do(norm, training):
    torch.manual_seed(0)
    one = PatchDiscriminator(3, ndf=4, n_layers=2, norm=norm, init_gain=0.3).double().train(training)
    two = copy.deepcopy(one)
    real, fake = torch.randn(2, 3, 32, 32).double(), 5 + torch.randn(2, 3, 32, 32).double()
    calls: list[int] = []
    one.model[0].register_forward_hook(lambda _, args, output: calls.append(len(args[0])))
    found, expected = one.both(real, fake), (two(real), two(fake))
    assert calls == [4]
    for logits in (found, expected):
        (logits[0].square().mean() + logits[1].exp().mean()).backward()
    torch.testing.assert_close(found, expected)
    for (name, tensor), other in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, other, msg=name)
    for parameter, other in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


def test_large_images_and_unequal_batches_take_two_passes():
    network = PatchDiscriminator(1, ndf=1, n_layers=1)
    calls: list[int] = []
    network.model[0].register_forward_hook(lambda _, args, output: calls.append(len(args[0])))
    for first, second, size in ((1, 1, 256), (2, 2, 256), (1, 2, 8)):
        network.both(torch.zeros(first, 1, size, size), torch.zeros(second, 1, size, size))
    assert calls == [2, 2, 2, 1, 2]


def test_three_layers_see_patches_of_70_pixels():
    network = PatchDiscriminator(1, ndf=1, norm="batch").eval()
    image = torch.rand(1, 1, 128, 128, requires_grad=True)
    network(image)[0, 0, 7, 7].backward()
    seen = image.grad[0, 0].nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


def test_pixel_discriminator_sees_one_pixel():
    network = PixelDiscriminator(2, ndf=4).eval()
    image = torch.rand(1, 2, 5, 7, requires_grad=True)
    logits = network(image)
    logits[0, 0, 3, 2].backward()
    assert logits.shape == (1, 1, 5, 7)
    assert image.grad.any(1)[0].nonzero().tolist() == [[3, 2]]


@pytest.mark.parametrize(
    ("network", "shape", "words"),
    [
        (UnetGenerator(ngf=1, n_downs=6), (1, 3, 96, 64), "96x64.*a multiple of 64"),
        (ResnetGenerator(ngf=1, n_blocks=1), (1, 3, 18, 16), "18x16.*a multiple of 4 and at least 8"),
        (ResnetGenerator(ngf=1, n_blocks=1), (1, 3, 4, 8), "4x8.*at least 8"),
        (MobileResnetGenerator(ngf=1, n_blocks=1), (1, 3, 4, 10), "4x10.*a multiple of 4 and at least 8"),
        (PatchDiscriminator(ndf=1), (1, 6, 23, 64), "23x64.*at least 24"),
        (UnetGenerator(ngf=1), (1, 1, 256, 256), r"\(batch, 3, height, width\), not \(1, 1, 256, 256\)"),
        (ResnetGenerator(1, ngf=1), (1, 16, 16), r"\(batch, 1, height, width\), not \(1, 16, 16\)"),
        (PixelDiscriminator(ndf=1), (2, 3, 8, 8), r"\(batch, 6, height, width\)"),
    ],
)
def test_an_image_that_does_not_fit_is_named(network, shape, words):
    with pytest.raises(UserError, match=words):
        network(torch.zeros(shape))


def test_the_smallest_images_pass():
    assert PatchDiscriminator(ndf=1)(torch.zeros(1, 6, 24, 24)).shape == (1, 1, 1, 1)
    assert UnetGenerator(ngf=1, n_downs=6, norm="instance")(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_too_few_levels_are_refused():
    with pytest.raises(UserError, match="n_downs of UnetGenerator is 4: give a whole number from 5 to 16"):
        UnetGenerator(n_downs=4)
    with pytest.raises(UserError, match="n_layers of PatchDiscriminator is 0"):
        PatchDiscriminator(n_layers=0)


def test_an_affine_instance_norm_has_a_scale_and_a_shift_per_channel():
    plain, affine = (
        ResnetGenerator(ngf=2, n_blocks=1, norm=norm) for norm in ("instance", "instance_affine")
    )
    more = {key: tensor for key, tensor in affine.state_dict().items() if key not in plain.state_dict()}
    widths = {2: 2, 5: 4, 8: 8, "10.conv_block.2": 8, "10.conv_block.6": 8, 12: 4, 15: 2}
    assert {key: list(tensor.shape) for key, tensor in more.items()} == {
        f"model.{layer}.{part}": [width] for layer, width in widths.items() for part in ("weight", "bias")
    }
    affine.load_state_dict(plain.state_dict() | more)
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(affine(image), plain(image))  # fresh ones leave all as it is
    assert torch.equal(more["model.2.weight"], torch.ones(2))


@pytest.mark.parametrize(
    "network",
    [
        ResnetGenerator(ngf=2, n_blocks=1),
        ResnetGenerator(ngf=2, n_blocks=1, norm="instance_affine"),
        UnetGenerator(ngf=2, n_downs=5),
    ],
)
def test_generators_export_with_free_batch_and_size(network):
    network.eval()
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    exported = torch.export.export(network, (torch.rand(2, 3, 64, 64),), dynamic_shapes=(free,)).module()
    source = torch.rand(3, 3, 128, 96)
    torch.testing.assert_close(exported(source), network(source))


@pytest.mark.parametrize(
    ("init", "deviation"),
    [("normal", 0.05), ("xavier", 0.05 * (2 / (9 * (40 + 60))) ** 0.5), ("kaiming", (2 / (9 * 40)) ** 0.5)],
)
def test_weights_have_the_asked_deviation(init, deviation):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(40, 60, 3), nn.BatchNorm2d(2000))
    init_weights(network, init, 0.05)
    convolution, norm = network
    assert convolution.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert not convolution.bias.any()
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.005)
    assert norm.weight.std().item() == pytest.approx(0.05, rel=0.1)


def test_orthogonal_weights_are_orthogonal():
    layer = nn.Conv2d(4, 6, 3)
    init_weights(layer, "orthogonal", 0.5)
    rows = layer.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, 0.25 * torch.eye(6))


@pytest.mark.parametrize("network", [UnetGenerator(ngf=4, n_downs=5), ResnetGenerator(ngf=4, n_blocks=1)])
def test_generators_become_torchscript(network):
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(torch.jit.script(network.eval())(image), network(image))
