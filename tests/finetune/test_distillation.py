"""What ties student and teacher in the fine-tuning."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn
from torchvision.models import vgg16

from lightning_gancompress import load_generator
from lightning_gancompress.cli import main
from lightning_gancompress.errors import UserError
from lightning_gancompress.finetune.distillation import (
    Distillation,
    called_convolutions,
    gram,
    load_vgg,
    total_variation,
)
from lightning_gancompress.networks import MobileResnetGenerator, ResnetGenerator, UnetGenerator
from lightning_gancompress.tasks import Pix2Pix

SOURCES = {"generator": torch.zeros(1, 3, 16, 16)}


class Networks(nn.ModuleDict):
    """A generator of three convolutions and a discriminator of two, by width."""

    def __init__(self, width: int) -> None:
        layers = [nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1), nn.Conv2d(width, 3, 1)]
        judge = nn.Sequential(nn.Conv2d(6, 4, 1), nn.Conv2d(4, 1, 1))
        super().__init__({"generator": nn.Sequential(*layers), "discriminator": judge})


@pytest.fixture
def networks() -> dict[str, Networks]:
    torch.manual_seed(0)
    return {"teacher": Networks(4).requires_grad_(False), "student": Networks(2)}


def terms(networks: dict[str, Networks], distillation: Distillation, seed: int = 1) -> dict[str, Any]:
    """Loss and values for one batch, and the images."""
    task, source = Pix2Pix(), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    distillation.prepare(task, networks["teacher"], networks["student"], {"generator": source[:1]})
    with distillation.watching(networks["teacher"], networks["student"]):
        images = task.generate(networks["student"], {"source": source})
        references = task.generate(networks["teacher"], {"source": source})
        loss, logs = distillation(task, networks["teacher"], {"source": source}, images, references)
    teacher = references["generator"]
    return {"loss": loss, "source": source, "teacher": teacher, "student": images["generator"], **logs}


def test_without_weights_the_task_alone_is_trained(networks: dict[str, Networks]) -> None:
    found = terms(networks, Distillation())
    assert found["loss"] == 0
    assert [name for name in found if name.startswith("distill_")] == []


def test_terms_of_the_images(networks: dict[str, Networks]) -> None:
    found = terms(networks, Distillation(output=2.0, tv=0.5, critic=3.0))
    a, b = found["student"], found["teacher"]
    assert torch.allclose(found["distill_output"], (a - b).abs().mean())
    rows, columns = (a[:, :, 1:] - a[:, :, :-1]).abs().sum(), (a[..., 1:] - a[..., :-1]).abs().sum()
    assert torch.allclose(found["distill_tv"], (rows + columns) / 2)
    first, last = networks["teacher"]["discriminator"]
    maps = []
    for image in (a, b):
        first_map = first(torch.cat([found["source"], image], dim=1))
        maps.append([first_map, last(first_map)])
    critic = [(x - y).abs().mean() for x, y in zip(*maps, strict=True)]
    assert torch.allclose(found["distill_critic"], (critic[0] + critic[1]) / 2)
    parts = 2 * found["distill_output"] + 0.5 * found["distill_tv"] + 3 * found["distill_critic"]
    assert torch.allclose(found["loss"], parts)


def test_terms_of_the_maps(networks: dict[str, Networks]) -> None:
    distillation = Distillation(features=1.0, channels=1.0, layers=["1"])
    found = terms(networks, distillation)
    (adapter,) = distillation.adapters
    x, y = (networks[part]["generator"][:2](found["source"]) for part in ("student", "teacher"))
    assert adapter(x).shape == y.shape
    assert torch.allclose(found["distill_features"], (adapter(x) - y).square().mean())
    averages = (adapter(x).mean((2, 3)) - y.mean((2, 3))).square().mean()
    assert torch.allclose(found["distill_channels"], averages)
    found["loss"].backward()
    assert adapter.weight.grad is not None
    assert networks["student"]["generator"][0].weight.grad is not None
    hooks = [layer._forward_hooks for net in networks.values() for layer in net.modules()]
    assert not any(hooks)
    assert not distillation._seen


def test_layers_are_spread_and_the_last_is_left_out(networks: dict[str, Networks]) -> None:
    for count, expected in ((1, ["1"]), (2, ["0", "1"]), (9, ["0", "1"])):
        distillation = Distillation(features=1.0, count=count)
        distillation.prepare(Pix2Pix(), networks["teacher"], networks["student"], SOURCES)
        assert [layer for _, layer in distillation._pairs] == expected


def test_layers_are_ordered_by_their_calls() -> None:
    class LastFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tail, self.spare, self.middle = (nn.Conv2d(4, n, 1) for n in (3, 4, 4))
            self.head = nn.Conv2d(3, 4, 1)

        def forward(self, source: Tensor) -> Tensor:
            return self.tail(self.middle(self.head(source)))

    network = nn.ModuleDict({"generator": LastFirst()})
    distillation = Distillation(features=1.0)
    distillation.prepare(Pix2Pix(), network, network, SOURCES)
    assert [layer for _, layer in distillation._pairs] == ["head", "middle"]


@pytest.mark.parametrize(
    "network",
    [UnetGenerator(ngf=1, n_downs=5), ResnetGenerator(ngf=1, n_blocks=2), MobileResnetGenerator(ngf=1)],
)
def test_shipped_layers_are_registered_in_that_order(network: nn.Module) -> None:
    layers = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert called_convolutions(network, torch.zeros(1, 3, 32, 32)) == layers


def test_images_that_a_vgg_does_not_read(vgg: str) -> None:
    networks = nn.ModuleDict({"generator": nn.Conv2d(3, 6, 1)})
    with pytest.raises(UserError, match="images of 1 or 3 channels, and 6 are what Conv2d makes"):
        Distillation(style=1.0, backbone=vgg).check(Pix2Pix(), networks, networks, SOURCES)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = vgg16(weights=None).state_dict()
    torch.save({name: tensor for name, tensor in state.items() if name.startswith("features")}, path)
    return str(path)


def test_equal_images_are_at_no_distance(networks: dict[str, Networks], vgg: str) -> None:
    networks["student"] = copy.deepcopy(networks["teacher"])
    names = ("output", "ssim", "critic", "perceptual", "style")
    found = terms(networks, Distillation(**dict.fromkeys(names, 1.0), backbone=vgg))
    assert all(abs(float(found[f"distill_{name}"])) < 1e-6 for name in names)


def test_terms_through_vgg(networks: dict[str, Networks], vgg: str) -> None:
    distillation = Distillation(perceptual=1.0, style=1.0, backbone=vgg)
    found = terms(networks, distillation)
    assert "distillation" not in "".join(distillation.state_dict())
    assert not distillation.state_dict()  # the VGG enters no checkpoint
    network, mean, std = vgg16(weights=None).features, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    network.load_state_dict({k.removeprefix("features."): v for k, v in torch.load(vgg).items()})
    styles, maps = [], []
    for image in (found["student"], found["teacher"]):
        x = ((image + 1) / 2 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        maps.append([network[: n + 1](x) for n in (3, 8, 15, 22)])
    for x, y in zip(*maps, strict=True):
        grams = [torch.einsum("bihw,bjhw->bij", m, m) / m[0].numel() for m in (x, y)]
        styles.append((grams[0] - grams[1]).abs().mean())
    assert torch.allclose(found["distill_style"], torch.stack(styles).sum(), rtol=1e-4)
    assert torch.allclose(found["distill_perceptual"], (maps[0][1] - maps[1][1]).abs().mean(), rtol=1e-4)


def test_gram_and_total_variation_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # two channels of one row
    assert torch.equal(gram(maps), torch.tensor([[[5.0, 3.0], [3.0, 9.0]]]) / 4)
    assert total_variation(maps) == 1 + 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"style": 1.0}, "distillation.backbone: perceptual and style look through a VGG-16"),
        ({"task": 0.0}, "distillation: all weights are 0"),
    ],
)
def test_settings_that_can_not_work(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Distillation(**arguments)


def test_what_is_not_there_is_named(networks: dict[str, Networks], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no convolution named 7; they have 0, 1, 2\."):
        terms(networks, Distillation(features=1.0, layers=["7"]))
    del networks["teacher"]["discriminator"]
    with pytest.raises(UserError, match=r"distillation\.critic looks through the teacher's discriminator"):
        terms(networks, Distillation(critic=1.0))
    with pytest.raises(UserError, match=r"distillation\.critic looks through the teacher's discriminator"):
        Distillation(critic=1.0).check(Pix2Pix(), networks["teacher"], networks["student"], SOURCES)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="isn't torchvision's VGG-16, which has"):
        load_vgg(str(tmp_path / "other.pth"))


def test_without_the_task_no_discriminator_is_trained(tmp_path: Path, facades: list[str], unet: Path) -> None:
    args = tiny.compression(tmp_path / "run", unet, "UniformWidth", "--model.student_weights=fresh")
    terms = ["--model.distillation=Distillation", "--model.distillation.task=0"]
    terms += ["--model.distillation.output=1", "--model.distillation.channels=1", "--model.lr=2e-3"]
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}"]
    main([*[a for a in args if "logger" not in a], *terms, *logger, *facades])
    states = tiny.read(tiny.last(tmp_path / "run"))
    assert not states["optimizer_states"][1]["state"]  # the discriminator's
    assert "generator_gan" not in next(tmp_path.rglob("metrics.csv")).read_text()
    assert any(key.startswith("distillation.adapters") for key in states["state_dict"])
    small = load_generator(tmp_path / "run" / "generator.pth")
    assert not any("adapter" in key for key in small.state_dict())
    # and whoever looks at the run needs no distillation
    main(["test", f"--ckpt_path={tiny.last(tmp_path / 'run')}", *tiny.QUICK, "--model.distillation=null"])


def test_it_can_not_come_later(tmp_path: Path, facades: list[str], unet: Path) -> None:
    main([*tiny.compression(tmp_path / "run", unet, "UniformWidth"), "--trainer.max_epochs=1", *facades])
    terms = ["--model.distillation=Distillation", "--model.distillation.features=1"]
    args = [*tiny.compression(tmp_path / "run", unet, "UniformWidth"), *terms, *facades]
    with pytest.raises(SystemExit):
        main([*args, f"--ckpt_path={tiny.last(tmp_path / 'run')}"])


def test_both_directions(tmp_path: Path, domains: list[str], cyclegan: Path) -> None:
    args = [*tiny.compression(tmp_path, cyclegan, "UniformWidth"), *tiny.cyclegan("both")]
    terms = ["output", "ssim", "features", "critic"]
    options = ["--model.distillation=Distillation", *(f"--model.distillation.{name}=1" for name in terms)]
    main([*args, *options, *domains])
    state = tiny.read(tiny.last(tmp_path))["state_dict"]
    assert sum(key.startswith("distillation.adapters") for key in state) == 16  # four layers each, with bias
