"""Networks that a teacher has, and those that it lacks."""

import pytest
import tiny
import torch

from lightning_gancompress.cli import main
from lightning_gancompress.errors import UserError
from lightning_gancompress.modules.teacher_loader import TeacherLoader
from lightning_gancompress.networks import (
    MobileResnetGenerator,
    NetworkSpec,
    PatchDiscriminator,
    PixelDiscriminator,
    ResnetGenerator,
    UnetGenerator,
)
from lightning_gancompress.tasks import CycleGAN, Pix2Pix, Role, Side
from lightning_gancompress.training.inputs import Inputs


def recipe(network):
    return network, NetworkSpec.of(network)


def make(task, here, size=64, classes=None, partner="trained", missing="train"):
    loader = TeacherLoader(task, None, classes or {}, False, "running", partner, missing)
    return loader.make_missing(
        {Role(role): recipe(network) for role, network in here.items()}, Inputs(task, {"crop_size": size})
    )


def test_a_discriminator_of_pix2pix_reads_source_and_image():
    # which takes no image smaller than this
    made = make(Pix2Pix(), {"generator": UnetGenerator(1, 3, ngf=2, n_downs=7)}, 128)
    network, spec = made.pop("discriminator")
    assert not made
    assert isinstance(network, PatchDiscriminator)
    assert spec.init_args["in_channels"] == 4
    assert spec.init_args["norm"] == "batch"


@pytest.mark.parametrize("kind", [ResnetGenerator, MobileResnetGenerator])
def test_the_way_back_swaps_channels(kind):
    made = make(CycleGAN("BtoA"), {"generator_BtoA": kind(3, 1, ngf=2, n_blocks=1)})
    assert list(made) == ["generator_AtoB", "discriminator_BtoA", "discriminator_AtoB"]
    back, spec = made["generator_AtoB"]
    assert isinstance(back, kind)
    assert (spec.init_args["in_channels"], spec.init_args["out_channels"]) == (1, 3)
    assert spec.init_args["ngf"] == 2
    channels = {role: made[role][1].init_args["in_channels"] for role in list(made)[1:]}
    assert channels == {"discriminator_BtoA": 1, "discriminator_AtoB": 3}
    assert made["discriminator_AtoB"][1].init_args["norm"] == "instance"


def test_a_discriminator_of_the_users_is_the_pattern():
    classes = {"discriminator": recipe(PixelDiscriminator(3, ndf=2))}
    made = make(CycleGAN(), {r: ResnetGenerator(ngf=2, n_blocks=1) for r in CycleGAN.generators}, 32, classes)
    assert list(made) == ["discriminator_AtoB", "discriminator_BtoA"]
    assert all(isinstance(network, PixelDiscriminator) for network, _ in made.values())
    assert made["discriminator_AtoB"][0] is not made["discriminator_BtoA"][0]


@pytest.mark.parametrize(
    ("partner", "missing", "made"),
    [
        (
            "trained",
            "train",
            {"generator_BtoA": True, "discriminator_AtoB": True, "discriminator_BtoA": True},
        ),
        ("left_out", "train", {"discriminator_AtoB": True}),
        (
            "trained",
            "leave_out",
            {"generator_BtoA": False, "discriminator_AtoB": False, "discriminator_BtoA": False},
        ),
        ("frozen", "leave_out", {"generator_BtoA": False, "discriminator_AtoB": False}),
        ("left_out", "leave_out", {"discriminator_AtoB": False}),
    ],
)
def test_who_is_made(partner, missing, made):
    generator = ResnetGenerator(ngf=2, n_blocks=1)
    found = make(CycleGAN("AtoB"), {"generator_AtoB": generator}, 32, None, partner, missing)
    assert {role: network is not None for role, network in found.items()} == made


def test_nothing_is_made_in_place_of_what_is_here():
    here = {"generator": ResnetGenerator(ngf=2, n_blocks=1), "discriminator": PixelDiscriminator(6, ndf=2)}
    assert make(Pix2Pix(), here) == {}


@pytest.mark.parametrize("ending", ["pth", "ckpt"])
@pytest.mark.parametrize("other_names", [False, True])
def test_the_file_of_a_given_class_may_be_another_projects(tmp_path, ending, other_names):
    trained = ResnetGenerator(ngf=2, n_blocks=1, norm="instance_affine", init_gain=0.5)
    tensors = {f"gen.{key}": tensor for key, tensor in trained.state_dict().items()}
    if other_names:
        tensors = {key.replace("model.10.conv_block", "blocks.0"): tensor for key, tensor in tensors.items()}
    content = {"state_dict": tensors | {"disc.0.weight": torch.zeros(3)}, "epoch": 3}
    torch.save(content, tmp_path / f"theirs.{ending}")
    given = {"generator": recipe(ResnetGenerator(ngf=2, n_blocks=1, norm="instance_affine"))}
    files = str(tmp_path / f"theirs.{ending}")
    loader = TeacherLoader(Pix2Pix(), files, given, False, "running", "trained", "leave_out")
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(loader.load()["generator"][0](image), trained(image))


@pytest.mark.parametrize("own_weights", [True, False])
def test_networks_come_with_their_weights_where_that_is_said(own_weights):
    generator, discriminator = tiny.Own(4), tiny.OwnJudge(4)
    own = {Side.GENERATOR: recipe(generator), Side.DISCRIMINATOR: recipe(discriminator)}
    loader = TeacherLoader(Pix2Pix(), None, own, own_weights, "running", "trained", "train")
    loaded = loader.load()
    assert set(loaded) == ({"generator", "discriminator"} if own_weights else {"generator"})
    inputs = Inputs(Pix2Pix(), {"crop_size": 16})
    if own_weights:
        weights = loaded[Role("discriminator")][0].state_dict()
        assert all(torch.equal(weights[key], tensor) for key, tensor in discriminator.state_dict().items())
        assert loader.make_missing(loaded, inputs) == {}
    else:
        with pytest.raises(
            UserError, match=r"no file holds the weights of the discriminator.*own_weights to"
        ):
            loader.make_missing(loaded, inputs)


def test_the_student_of_a_search_is_no_teacher(tmp_path, unet, facades, capsys):
    main([*tiny.compression(tmp_path / "half", unet), *facades, "--trainer.max_epochs=1"])
    half = tiny.last(tmp_path / "half")
    code, words = tiny.fail_code(
        capsys, [*tiny.compression(tmp_path / "next", half, "UniformWidth"), *facades]
    )
    assert code == 2
    assert f"{half} is of a search that isn't over: finish that run" in words
