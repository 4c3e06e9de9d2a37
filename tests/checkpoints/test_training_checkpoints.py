import copy

import pytest
import torch

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.checkpoints import load_network, load_networks
from lightning_gancompress.networks import NetworkSpec, channel_widths, set_channel_widths
from lightning_gancompress.pruning import ChannelMasks, NetworkGroup, find_groups

GENERATOR = NetworkSpec(
    "lightning_gancompress.networks.UnetGenerator",
    {"ngf": 4, "n_downs": 5, "init_gain": 0.1, "dropout": False},
)
RESNET = NetworkSpec(
    "lightning_gancompress.networks.ResnetGenerator", {"ngf": 4, "n_blocks": 1, "init_gain": 0.1}
)
DISCRIMINATOR = NetworkSpec("lightning_gancompress.networks.PatchDiscriminator", {"ndf": 4, "n_layers": 1})
SOURCE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def checkpoint(kind, phase, networks, specs, **header):
    return {
        "pytorch-lightning_version": "2.6.0",
        "epoch": 1,
        "state_dict": {
            f"{prefix}.{key}": value
            for prefix, net in networks.items()
            for key, value in net.state_dict().items()
        },
        "gancompress": {
            "version": 1,
            "kind": kind,
            "phase": phase,
            "networks": {prefix: spec.to_dict() for prefix, spec in specs.items()},
            "preprocessing": {"crop_size": 32},
            **header,
        },
    }


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    specs = {"networks.generator": GENERATOR, "networks.discriminator": DISCRIMINATOR}
    networks = {prefix: spec.build().eval() for prefix, spec in specs.items()}
    return checkpoint("teacher", "teacher", networks, specs), networks


@pytest.fixture
def search():
    torch.manual_seed(0)
    specs = {"teacher.generator": GENERATOR, "student.generator": GENERATOR}
    networks = {prefix: spec.build().eval() for prefix, spec in specs.items()}
    return checkpoint("compression", "search", networks, specs), networks


@pytest.fixture
def file(tmp_path):
    return tmp_path / "last.ckpt"


def test_a_teacher_checkpoint_gives_its_networks(file, teacher):
    content, networks = teacher
    torch.save(content, file)
    loaded = load_networks(file)
    assert {prefix: spec for prefix, (_, spec) in loaded.items()} == {
        "networks.generator": GENERATOR,
        "networks.discriminator": DISCRIMINATOR,
    }
    for prefix, (network, _) in loaded.items():
        images = torch.rand(1, 6 if "discriminator" in prefix else 3, 32, 32)
        assert not network.training
        assert torch.equal(network(images), networks[prefix](images))
    assert torch.equal(load_generator(file)(SOURCE), networks["networks.generator"](SOURCE))
    assert load_network(file, "discriminator")[1] == DISCRIMINATOR


def test_a_teacher_checkpoint_may_be_read_with_image_statistics(file, teacher):
    content, networks = teacher
    torch.save(content, file)
    expected = networks["networks.generator"].train()(SOURCE[:1])
    torch.testing.assert_close(load_generator(file, batch_norm="image")(SOURCE[:1]), expected)


def test_a_fine_tuning_gives_the_small_student_and_the_whole_teacher(file):
    torch.manual_seed(0)
    student = GENERATOR.build()
    whole = channel_widths(student)
    widths = {name: [w if w <= 3 else w // 2 for w in layer] for name, layer in whole.items()}
    set_channel_widths(student, widths)
    specs = {
        "teacher.generator": GENERATOR,
        "student.generator": NetworkSpec(GENERATOR.class_path, GENERATOR.init_args, widths=widths),
    }
    networks = {"teacher.generator": GENERATOR.build().eval(), "student.generator": student.eval()}
    torch.save(checkpoint("compression", "finetune", networks, specs), file)
    assert torch.equal(load_generator(file)(SOURCE), student(SOURCE))
    teacher = load_generator(file, network="teacher.generator")
    assert torch.equal(teacher(SOURCE), networks["teacher.generator"](SOURCE))


def test_a_search_gives_the_student_slim(file, search):
    content, networks = search
    student = networks["student.generator"]
    groups = find_groups(student, [SOURCE[:1]])
    mask = (torch.rand(groups.total) > 0.4).float()
    for part in groups.split(mask):
        part[0] = 1.0
    content["state_dict"]["sides.generator.masks.mask"] = mask
    torch.save(content, file)

    masks = ChannelMasks(groups)
    masks.attach(student)
    masks.set(mask)
    slim, spec = load_networks(file)["student.generator"]
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in student.parameters())
    torch.testing.assert_close(slim(SOURCE), student(SOURCE), rtol=0, atol=1e-5)
    assert not slim.training
    assert spec.widths == channel_widths(slim)
    assert torch.equal(spec.build(slim.state_dict()).eval()(SOURCE), slim(SOURCE))
    teacher = load_networks(file)["teacher.generator"][0]
    assert channel_widths(teacher) == channel_widths(student)


DIRECTIONS = ["generator_AtoB", "generator_BtoA"]
JUDGES = ["discriminator_AtoB", "discriminator_BtoA"]


def cyclegan(phase="search", **header):
    """A compression of CycleGAN of two quite different generators."""
    torch.manual_seed(0)
    pair = dict(zip(DIRECTIONS, (GENERATOR, RESNET), strict=True)) | dict.fromkeys(JUDGES, DISCRIMINATOR)
    specs = {f"{part}.{role}": spec for part in ("teacher", "student") for role, spec in pair.items()}
    networks = {prefix: spec.build().eval() for prefix, spec in specs.items()}
    return checkpoint("compression", phase, networks, specs, **header), networks


def test_a_search_of_both_directions_shares_one_mask(file):
    ignored = ["generator_BtoA.model.4"]
    content, networks = cyclegan(sides={"generator": DIRECTIONS}, ignored_layers={"generator": ignored})
    bundle = NetworkGroup({role: networks[f"student.{role}"] for role in DIRECTIONS})
    groups = find_groups(bundle, [SOURCE[:1]] * 2, ignored)
    mask = (torch.rand(groups.total) > 0.4).float()
    for part in groups.split(mask):
        part[0] = 1.0
    content["state_dict"]["sides.generator.masks.mask"] = mask
    torch.save(content, file)

    masks = ChannelMasks(groups)
    masks.attach(bundle)
    masks.set(mask)
    loaded = load_networks(file)
    for role, expected in zip(DIRECTIONS, bundle(SOURCE, SOURCE), strict=True):
        slim, spec = loaded[f"student.{role}"]
        whole = networks[f"teacher.{role}"]
        assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in whole.parameters())
        torch.testing.assert_close(slim(SOURCE), expected, rtol=0, atol=1e-5)
        assert torch.equal(load_generator(file, network=role)(SOURCE), slim(SOURCE))
        assert channel_widths(loaded[f"teacher.{role}"][0]) == channel_widths(whole)
        assert torch.equal(spec.build(slim.state_dict()).eval()(SOURCE), slim(SOURCE))
    assert loaded["student.generator_BtoA"][0].get_submodule("model.4").out_channels == 8


def test_a_search_of_one_direction_leaves_the_partner_whole(file):
    content, networks = cyclegan(sides={"generator": ["generator_BtoA"]}, wanted=["generator_BtoA"])
    groups = find_groups(networks["student.generator_BtoA"], [SOURCE[:1]])
    mask = torch.zeros(groups.total)
    for part in groups.split(mask):
        part[0] = 1.0
    content["state_dict"]["sides.generator.masks.mask"] = mask
    torch.save(content, file)
    assert load_network(file)[0].get_submodule("model.1").out_channels == 1
    partner = load_generator(file, network="generator_AtoB")
    assert torch.equal(partner(SOURCE), networks["student.generator_AtoB"](SOURCE))


@pytest.mark.parametrize("wanted", [{}, {"wanted": DIRECTIONS}])
@pytest.mark.parametrize("part", ["", "teacher."])
def test_two_directions_must_be_told_apart(file, wanted, part):
    torch.save(cyclegan("finetune", **wanted)[0], file)
    with pytest.raises(
        UserError,
        match=rf"each direction: ask for {part}generator_AtoB or {part}generator_BtoA \(.*--network",
    ):
        load_generator(file, network=f"{part}generator")


def test_the_one_direction_that_was_compressed_needs_no_name(file):
    content, networks = cyclegan("finetune", wanted=["generator_BtoA"])
    torch.save(content, file)
    assert torch.equal(load_generator(file)(SOURCE), networks["student.generator_BtoA"](SOURCE))
    teacher = load_generator(file, network="teacher.generator")
    assert torch.equal(teacher(SOURCE), networks["teacher.generator_BtoA"](SOURCE))
    judge = load_network(file, "discriminator")[0]
    images = torch.rand(1, 6, 32, 32)
    assert torch.equal(judge(images), networks["student.discriminator_BtoA"](images))


def test_a_single_generator_with_a_direction_needs_no_name(file):
    specs = {"networks.generator_AtoB": RESNET}
    networks = {prefix: spec.build().eval() for prefix, spec in specs.items()}
    torch.save(checkpoint("teacher", "teacher", networks, specs), file)
    assert torch.equal(load_generator(file)(SOURCE), networks["networks.generator_AtoB"](SOURCE))
    with pytest.raises(
        UserError, match=r"no network 'generator_BtoA': choose one of networks\.generator_AtoB"
    ):
        load_generator(file, network="generator_BtoA")


def test_a_network_of_unknown_arguments_is_built_on_one_like_it(file, search):
    content, networks = search
    for recipe in content["gancompress"]["networks"].values():
        recipe["init_args"] = None
    mask = torch.zeros(find_groups(networks["student.generator"], [SOURCE[:1]]).total)
    mask[::2] = 1.0
    content["state_dict"]["sides.generator.masks.mask"] = mask
    torch.save(content, file)
    with pytest.raises(UserError, match=r"student.generator of .*last.ckpt .*pass such a network, whole"):
        load_generator(file)
    whole = GENERATOR.build()
    slim, spec = load_network(file, architecture=whole)
    masks = ChannelMasks(find_groups(networks["student.generator"], [SOURCE[:1]]))
    masks.attach(networks["student.generator"])
    masks.set(mask)
    torch.testing.assert_close(slim(SOURCE), networks["student.generator"](SOURCE), rtol=0, atol=1e-5)
    assert torch.equal(spec.build(slim.state_dict(), whole).eval()(SOURCE), slim(SOURCE))


def test_an_unknown_network_is_named_with_those_there_are(file, teacher):
    torch.save(teacher[0], file)
    with pytest.raises(
        UserError, match=r"no network 'generator_a2b'.*networks.generator, networks.discriminator"
    ):
        load_generator(file, network="generator_a2b")


def test_a_checkpoint_of_another_project_is_read_by_its_tensors(file, teacher):
    content = {key: value for key, value in teacher[0].items() if key != "gancompress"}
    torch.save(content, file)
    expected = teacher[1]["networks.generator"](SOURCE)
    torch.testing.assert_close(load_generator(file)(SOURCE), expected, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match=r"last.ckpt is no training checkpoint of this project"):
        load_networks(file)


def test_another_version_is_named(file, teacher):
    content = copy.deepcopy(teacher[0])
    content["gancompress"]["version"] = 2
    torch.save(content, file)
    with pytest.raises(UserError, match="version 2, and this release reads version 1"):
        load_generator(file)


def test_tensors_that_do_not_fit_are_named_with_their_network(file, teacher):
    content = teacher[0]
    del content["state_dict"]["networks.generator.model.model.0.weight"]
    torch.save(content, file)
    with pytest.raises(
        UserError, match=r"networks.generator of .*last.ckpt .*missing keys: model.model.0.weight\."
    ):
        load_generator(file)
