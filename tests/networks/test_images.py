"""Which images networks read, found by trying, and what trying leaves behind."""

import random
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import PatchDiscriminator, ResnetGenerator, UnetGenerator, blank_image
from lightning_gancompress.networks.dry_run import dry_run
from lightning_gancompress.networks.images import pixels


class LastFirst(nn.Module):
    """Registers its output layer first."""

    def __init__(self, channels=3, width=8):
        super().__init__()
        self.tail = nn.Conv2d(width, channels, 3, padding=1)
        self.head = nn.Conv2d(channels, width, 3, padding=1)

    def forward(self, image):
        return self.tail(self.head(image).relu())


class Coordinates(LastFirst):
    """Shows its first layer where each pixel is."""

    def __init__(self, channels=3, width=8):
        super().__init__(channels, width)
        self.head = nn.Conv2d(channels + 2, width, 3, padding=1)

    def forward(self, image):
        b, _, h, w = image.shape
        y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        places = torch.stack([y, x]).expand(b, 2, h, w)
        return super().forward(torch.cat([image, places], 1))


class Masked(LastFirst):
    """Shows its first layer which pixels are dark."""

    def __init__(self, channels=3, width=8):
        super().__init__(channels, width)
        self.head = nn.Conv2d(channels + 1, width, 3, padding=1)

    def forward(self, image):
        return super().forward(torch.cat([image, (image.mean(1, keepdim=True) < 0).to(image)], 1))


class Functional(nn.Module):
    """Has weights, and no layers."""

    def __init__(self, channels=3):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8, channels, 3, 3))

    def forward(self, image):
        return F.conv2d(image, self.weight)


class PerPixel(nn.Module):
    """Begins with a linear layer, after a norm that would broadcast a single channel."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(1, 1, 1)
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.layer = nn.Linear(3, 8)

    def forward(self, image):
        return self.layer((image - self.mean).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Deciding(Coordinates):
    """Looks at values, which shapes alone don't have."""

    def forward(self, image):
        return super().forward(image if image.mean() > 0.5 else -image)


def unshuffled(channels, *layers):
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, 8, 3), *layers)


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (LastFirst(), 3),
        (LastFirst(6), 6),
        (unshuffled(3), 3),
        (unshuffled(1), 1),
        (unshuffled(6, nn.Conv2d(8, 3, 1)), 6),
        (Coordinates(), 3),
        (Coordinates(1), 1),
        (Coordinates(6), 6),
        (Masked(), 3),
        (Masked(1), 1),
        (Functional(5), 5),
        (PerPixel(), 3),
        (Deciding(), 3),
        (nn.ConvTranspose2d(7, 3, 2), 7),
        (nn.Identity(), 3),
        (PatchDiscriminator(in_channels=5, ndf=4).to(torch.float64), 5),
    ],
    ids=lambda x: x if isinstance(x, int) else type(x).__name__,
)
def test_channels_are_found(network, channels):
    assert blank_image(network, 32).shape == (1, channels, 32, 32)
    image = blank_image(network, (32, 64))
    assert image.shape == (1, channels, 32, 64)
    network(image)  # of the type, too, that it computes with


def test_likely_channels_come_first():
    assert blank_image(nn.Identity(), 8, [4, 2]).shape[1] == 4
    assert blank_image(Coordinates(6), 8, [3, 6]).shape[1] == 6


def test_a_network_without_memory():
    image = blank_image(UnetGenerator(5, ngf=4, n_downs=5).to("meta"), 32)
    assert (image.device.type, image.shape[1]) == ("meta", 5)


class Twofold(nn.Module):
    def forward(self, image, style):
        return image + style


@pytest.mark.parametrize(
    ("network", "size", "words"),
    [
        (Twofold(), 8, r"Twofold can't be given its inputs: forward\(image, style\)"),
        (UnetGenerator(ngf=2, n_downs=6), 96, r"UnetGenerator can't work on images of 96x96 pixels"),
        (
            nn.Sequential(unshuffled(3), nn.Conv2d(8, 8, 9)),
            (16, 8),
            r"Sequential can't read images of 16x8 pixels: with 3 channels, .*[Kk]ernel size.* another size",
        ),
    ],
)
def test_no_image_would_do(network, size, words):
    with pytest.raises(UserError, match=words):
        blank_image(network, size)


def test_a_large_network_is_tried_in_a_moment():
    network = ResnetGenerator()
    blank_image(network, 32)  # imports
    start = time.process_time()
    assert blank_image(network, 1024).shape[1] == 3
    assert time.process_time() - start < 0.5  # in numbers it takes half a minute


class Forgetful(nn.Module):
    """Changes whatever a forward pass can."""

    def __init__(self, decides):
        super().__init__()
        normed = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 1))
        self.layers = nn.Sequential(normed, nn.BatchNorm2d(4), nn.Dropout())
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.decides, self.last = decides, None

    def forward(self, image):
        self.count += 1
        self.mean = 0.9 * self.mean + image.mean((0, 2, 3))[:, None, None]
        if self.decides and image.mean() > random.random() + 1:
            return image
        self.last = self.layers(image - self.mean)
        return self.last


@pytest.mark.parametrize("decides", [False, True])
def test_trying_leaves_no_trace(decides):
    network = Forgetful(decides)
    network.layers[1].eval()
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    states = torch.get_rng_state(), random.getstate()
    assert dry_run(network, lambda x: network.train()(x), torch.ones(2, 3, 5, 7)).shape == (2, 4, 5, 7)
    assert blank_image(network, 8).shape[1] == 3
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(type(buffer) is torch.Tensor for buffer in network.buffers())
    assert network.last is None
    assert (torch.equal(states[0], torch.get_rng_state()), random.getstate()) == (True, states[1])


GRIDS = {}


class Keeping(Coordinates):
    """Keeps what it has computed once, for itself and for others of its kind."""

    def __init__(self):
        super().__init__()
        self.masks = {}

    def forward(self, image):
        size = tuple(image.shape[-2:])
        if size not in GRIDS:
            GRIDS[size] = torch.linspace(-1, 1, size[0])[:, None] * torch.linspace(-1, 1, size[1])
        if size not in self.masks:
            self.masks[size] = image.new_ones(size)
        places = torch.stack([GRIDS[size], self.masks[size]]).expand(len(image), 2, *size)
        return LastFirst.forward(self, torch.cat([image, places], 1))


def test_what_a_network_keeps_has_values():
    network = Keeping()
    image = blank_image(network, (6, 7))
    assert torch.equal(GRIDS[6, 7], torch.linspace(-1, 1, 6)[:, None] * torch.linspace(-1, 1, 7))
    assert not network.masks
    assert float(network(image).square().sum()) > 0


@pytest.mark.parametrize(
    ("preprocessing", "size"),
    [
        ({}, 256),
        ({"crop_size": 64}, 64),
        ({"crop_size": [32, 48]}, (32, 48)),
        ({"crop_size": 256, "image_size": [32, 48]}, (32, 48)),
    ],
)
def test_the_size_in_a_description(preprocessing, size):
    assert pixels(preprocessing) == size
