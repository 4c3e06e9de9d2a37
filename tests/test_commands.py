"""Export and profile of CycleGAN's networks and of foreign ones; of Pix2Pix's in `test_cli.py`."""

import json

import pytest
import torch
from torch import nn

from lightning_gancompress import UserError
from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.cli.commands import export, profile, teachers_of
from lightning_gancompress.modules import TeacherModule
from lightning_gancompress.networks import NetworkSpec, PatchDiscriminator, ResnetGenerator
from lightning_gancompress.pruning import count_macs
from lightning_gancompress.tasks import CycleGAN

SOURCE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SPECS = {
    role: NetworkSpec("lightning_gancompress.networks.ResnetGenerator", {"ngf": ngf, "n_blocks": 1})
    for role, ngf in (("generator_AtoB", 4), ("generator_BtoA", 6))
}


class Twofold(nn.Module):
    """Of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, image, style):
        return self.conv(image) + style


class Named(nn.Module):
    """Of several outputs, at odd sizes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, image):
        assert image.shape[-1] % 2, "odd sizes alone"
        return {"image": self.conv(image)}


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return {
        f"{part}.{role}": spec.build().eval()
        for part in ("teacher", "student")
        for role, spec in SPECS.items()
    }


@pytest.fixture
def file(tmp_path, networks):
    file = tmp_path / "last.ckpt"
    state = {f"{p}.{key}": value for p, net in networks.items() for key, value in net.state_dict().items()}
    header = {
        "version": 1,
        "kind": "compression",
        "phase": "finetune",
        "networks": {prefix: SPECS[prefix.partition(".")[2]].to_dict() for prefix in networks},
        "preprocessing": {"crop_size": 16},
    }
    torch.save({"state_dict": state, "gancompress": header}, file)
    return file


@pytest.mark.parametrize("network", ["generator_AtoB", "generator_BtoA", "teacher.generator_BtoA"])
def test_each_direction_is_exported_beside_the_checkpoint(file, networks, network):
    export(str(file), "torch", network=network)
    path = file.with_name(f"last_{network[-4:]}.pt2")
    expected = networks[network if "." in network else f"student.{network}"](SOURCE)
    torch.testing.assert_close(torch.export.load(path).module()(SOURCE), expected)


def test_an_export_asks_for_the_direction(file):
    with pytest.raises(UserError, match=r"generator_AtoB or generator_BtoA \(.*--network"):
        export(str(file), "torch")
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_a_name_with_a_direction_is_not_given_it_again(tmp_path, networks):
    path = tmp_path / "generator_AtoB.pth"
    recorded = {"preprocessing": {"crop_size": 16}, "provenance": {}}
    save_small(networks["student.generator_AtoB"], SPECS["generator_AtoB"], path, **recorded)
    export(str(path), "torch", network="generator_AtoB")
    assert path.with_suffix(".pt2").is_file()
    with pytest.raises(UserError, match="network of AtoB by its name, where generator_BtoA is needed"):
        export(str(path), "torch", network="generator_BtoA")


def macs(path):
    return {name: total["macs_exact"] for name, total in json.loads(path.read_text()).items()}


def test_a_profile_shows_every_generator(file, networks):
    profile(ckpt_path=str(file), json=str(file.with_suffix(".json")))
    expected = {
        prefix.replace(".generator", ""): count_macs(net, [SOURCE]) for prefix, net in networks.items()
    }
    assert macs(file.with_suffix(".json")) == expected
    assert expected["student_AtoB"] != expected["student_BtoA"]


def test_a_profile_of_one_network_tells_its_direction(tmp_path, networks):
    file = tmp_path / "latest_net_G_B.pth"
    torch.save(networks["teacher.generator_BtoA"].state_dict(), file)
    profile(ckpt_path=str(file), size=16, json=str(tmp_path / "macs.json"))
    assert macs(tmp_path / "macs.json") == {
        "teacher_BtoA": count_macs(networks["teacher.generator_BtoA"], [SOURCE])
    }


def test_a_module_shows_its_teachers():
    module = TeacherModule(ResnetGenerator(ngf=2, n_blocks=1), PatchDiscriminator(3, 2, 1), CycleGAN())
    assert teachers_of(module) == {
        f"teacher_{direction}": module.networks[f"generator_{direction}"] for direction in ("AtoB", "BtoA")
    }


@pytest.mark.parametrize("command", [export, profile])
@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            Twofold,
            r"Twofold can't be given its inputs: forward\(image, style\) is called with one image batch",
        ),
        (Named, r"Named .*images? .*16.*odd sizes alone.*another (--)?size"),
    ],
)
def test_a_foreign_network_that_takes_no_image_is_refused(tmp_path, command, network, words):
    path = tmp_path / "own.pth"
    spec = NetworkSpec(f"{__name__}.{network.__name__}", {})
    save_small(network(), spec, path, preprocessing={"crop_size": 16}, provenance={})
    with pytest.raises(UserError, match=words):
        command(ckpt_path=str(path))
    assert {path.name for path in tmp_path.iterdir()} == {"own.pth", "own.json"}
