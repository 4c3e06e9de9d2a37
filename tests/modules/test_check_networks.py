"""What only training would meet is told before the search, and the remedies that are named help."""

import pytest
import torch
from torch import nn

from lightning_gancompress import UserError, compress
from lightning_gancompress.callbacks import UniformWidth
from lightning_gancompress.data import DatasetDataModule
from lightning_gancompress.modules.check_networks import check_networks, check_training
from lightning_gancompress.networks import PatchDiscriminator, ResnetGenerator
from lightning_gancompress.tasks import CycleGAN, Pix2Pix

SIZE = 16


class Net(nn.Module):
    """A convolution on either side of what comes between."""

    def __init__(self, *between):
        super().__init__()
        self.head, self.between = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(*between)
        self.tail = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, source):
        features = self.head(source).relu()
        return self.tail(features + self.between(features))


def pooled(norm=nn.BatchNorm2d):
    """What the mean of the features adds to them, by way of a norm that sees it as a pixel."""
    return Net(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), norm(8))


class Deep(Net):
    """Returns what it has in the middle as well, while it trains."""

    def forward(self, source):
        image = super().forward(source)
        return (image, self.head(source)) if self.training else image


class Labelled(Net):
    def forward(self, source):
        image = super().forward(source)
        return {"image": image} if self.training else image


class Coarse(Net):
    def forward(self, source):
        image = super().forward(source)
        return image[:, :, ::2, ::2] if self.training else image


class Unfinished(Net):
    def forward(self, source):
        if self.training:
            source = source + self.noise
        return super().forward(source)


class Alone(nn.Module):
    """Picks the image."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, source):
        image = self.network(source)
        image = image["image"] if isinstance(image, dict) else image
        return image[0] if isinstance(image, tuple | list) else image


class Refined(Alone):
    """Brings the image to the size of its source."""

    def forward(self, source):
        return nn.functional.interpolate(super().forward(source), source.shape[2:])


class Several(PatchDiscriminator):
    """Looks at halves of the image, too, while it trains."""

    def forward(self, image):
        found = super().forward(image)
        return [found, super().forward(image[:, :, ::2, ::2])] if self.training else found


class Switched(PatchDiscriminator):
    def forward(self, image):
        return super().forward(image + self.noise if self.training else image)


def images(count=16):
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def quick(folder, generator, discriminator=None, **arguments):
    data = torch.utils.data.TensorDataset(images(), images())
    settings = {"budget": 0.6, "epochs": 1, "decay_epochs": 0}
    # what a policy or a data module has of its own
    settings |= {} if "policy" in arguments else {"search_epochs": 1}
    settings |= {} if isinstance(arguments.get("data"), DatasetDataModule) else {"batch_size": 7}
    settings |= {"folder": folder, "accelerator": "cpu", "logger": False, "data": data} | arguments
    return compress(generator, discriminator, **settings)


def judge(kind=PatchDiscriminator, **arguments):
    return kind(6, ndf=4, n_layers=1, **arguments)


@pytest.mark.parametrize(
    ("networks", "remedy", "words"),
    [
        (
            [pooled()],
            {"batch_size": 2},
            r"data\.batch_size: with 1 image in a step the batch norm 'between\.2' of the generator can't be "
            "trained, since it sees each channel at 1x1 pixel alone: set it to 2 or more",
        ),
        (
            [Net(), nn.Sequential(judge(), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1))],
            {"batch_size": 2},
            r"batch norm '2' of the discriminator can't",
        ),
        ([Deep()], [Alone(Deep())], "Deep returns a tuple in training mode for a source 3x16x16, .* wrap"),
        ([Labelled()], [Alone(Labelled())], "Labelled returns a dict in training mode for a source"),
        (
            [Coarse()],
            [Refined(Coarse())],
            "Coarse makes images 3x8x8 in training mode, but 3x16x16 in eval mode .* wrap",
        ),
        ([Unfinished()], None, "Unfinished fails in training mode on a source .*'noise'.* that mode alone"),
        (
            [Net(), judge(Several, norm="none")],
            [Net(), Alone(judge(Several, norm="none"))],
            "Several returns a list in training mode, not one tensor: wrap",
        ),
        ([Net(), judge(Switched)], None, "Switched fails in training mode on an image of the generator"),
    ],
)
def test_training_is_tried_before_the_search(tmp_path, networks, remedy, words):
    arguments = {"batch_size": 1} if isinstance(remedy, dict) else {}
    before = [{name: tensor.clone() for name, tensor in net.state_dict().items()} for net in networks]
    with pytest.raises(UserError, match=words):
        quick(tmp_path, *networks, **arguments)
    assert not (tmp_path / "cache").exists()  # of the neighbourhoods, with which a search begins
    for network, tensors in zip(networks, before, strict=True):
        assert all(torch.equal(tensors[name], tensor) for name, tensor in network.state_dict().items())
    if isinstance(remedy, list):
        networks, remedy = remedy, {}
    if remedy is not None:
        assert quick(tmp_path, *networks, policy=UniformWidth(), **remedy)(images(1)).shape == (1, 3, 16, 16)


def test_a_fresh_discriminator_is_tried(tmp_path):
    data = torch.utils.data.TensorDataset(images(), images())
    with pytest.raises(UserError, match=r"PatchDiscriminator fails on an image .*at least 24"):
        quick(tmp_path, Net(), missing="train", data=data)


def test_a_search_of_single_images(tmp_path):
    data = DatasetDataModule(torch.utils.data.TensorDataset(images()), batch_size=2, search_batch_size=1)
    with pytest.raises(UserError, match=r"data\.search_batch_size: with 1 image in a step"):
        quick(tmp_path, pooled(), data=data)
    quick(tmp_path, pooled(), data=data, policy=UniformWidth())


def test_others_train_on_single_images(tmp_path):
    quick(tmp_path, pooled(nn.Identity), batch_size=1, policy=UniformWidth())
    quick(tmp_path, Net(nn.Conv2d(8, 8, 15, 1, 7), nn.BatchNorm2d(8)), batch_size=1, policy=UniformWidth())


def test_norms_that_need_several_devices_are_passed_over():
    network = nn.ModuleDict({"generator": pooled(nn.SyncBatchNorm)})
    check_training(Pix2Pix(), network, {"source": images(1)}, "batch_size", 1)
    assert network["generator"].between[2].training


def test_the_other_generator_of_a_cyclegan_is_tried():
    networks = nn.ModuleDict({f"generator_{d}": ResnetGenerator(ngf=2, n_blocks=1) for d in ("AtoB", "BtoA")})
    batch = {"A": images(1), "B": images(1)} | {f"{n}_{d}": [0] for n in ("index", "path") for d in "AB"}
    task = CycleGAN("AtoB")
    check_training(task, networks, batch, "batch_size", 1)
    networks["generator_BtoA"] = Deep()
    check_networks(task, networks, batch)
    with pytest.raises(UserError, match="Deep returns a tuple in training mode"):
        check_training(task, networks, batch, "batch_size", 1)
