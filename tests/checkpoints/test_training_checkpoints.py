import copy

import pytest
import torch

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.checkpoints import load_network, load_networks
from lightning_gancompress.networks import NetworkSpec, channel_widths, set_channel_widths
from lightning_gancompress.pruning import ChannelMasks, find_groups

GENERATOR = NetworkSpec(
    "lightning_gancompress.networks.UnetGenerator",
    {"ngf": 4, "n_downs": 5, "init_gain": 0.1, "dropout": False},
)
DISCRIMINATOR = NetworkSpec("lightning_gancompress.networks.PatchDiscriminator", {"ndf": 4, "n_layers": 1})
SOURCE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def checkpoint(kind, phase, networks, specs):
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


def test_an_unknown_network_is_named_with_those_there_are(file, teacher):
    torch.save(teacher[0], file)
    with pytest.raises(
        UserError, match=r"no network 'generator_a2b'.*networks.generator, networks.discriminator"
    ):
        load_generator(file, network="generator_a2b")


def test_a_checkpoint_of_another_project_is_named(file, teacher):
    content = {key: value for key, value in teacher[0].items() if key != "gancompress"}
    torch.save(content, file)
    for load in (load_generator, load_networks):
        with pytest.raises(UserError, match=r"last.ckpt is no training checkpoint of this project"):
            load(file)


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
