import dataclasses
import json
import os

import pytest
import safetensors.torch
import torch
from torch import nn

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.checkpoints import files, load_network, load_small, save_small
from lightning_gancompress.checkpoints.generators import generators_in, recorded_preprocessing
from lightning_gancompress.networks import NetworkSpec, channel_widths, set_channel_widths
from lightning_gancompress.translation import open_model
from lightning_gancompress.trust import Named, trusting

SPEC = NetworkSpec("lightning_gancompress.networks.UnetGenerator", {"ngf": 4, "n_downs": 5, "init_gain": 0.3})


class Own(nn.Module):
    """A user's network."""

    def __init__(self, width, act):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.norm, self.act = nn.BatchNorm2d(width), act

    def forward(self, image):
        return self.tail(self.act(self.norm(self.head(image))))


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = SPEC.build()
    widths = channel_widths(network)
    set_channel_widths(
        network, {name: [w if w <= 3 else w // 2 for w in layer] for name, layer in widths.items()}
    )
    network(torch.rand(4, 3, 64, 64))  # running statistics of their own
    return network


@pytest.fixture
def file(tmp_path, network):
    file = tmp_path / "small" / "generator.pth"
    save_small(network, SPEC, file, preprocessing={"crop_size": 32}, provenance={"epoch": 3})
    return file


def change(file, **entries):
    path = file.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_small_network_comes_back_with_its_description(file, network):
    source = torch.rand(2, 3, 32, 64)
    loaded, spec, description = load_small(file)
    assert not loaded.training
    assert torch.equal(loaded(source), network.eval()(source))
    assert torch.equal(load_generator(str(file))(source), network(source))
    assert spec == dataclasses.replace(SPEC, widths=channel_widths(network))
    assert description["preprocessing"] == {"crop_size": 32}
    assert description["provenance"] == {"epoch": 3}


def test_the_tensors_are_a_plain_state_dict_of_their_own_size(file, network):
    tensors = torch.load(file, weights_only=True)
    assert tensors.keys() == network.state_dict().keys()
    assert file.stat().st_size < 4 * sum(t.numel() for t in tensors.values()) + 2**16
    assert {path.name for path in file.parent.iterdir()} == {"generator.pth", "generator.json"}


def test_batch_norm_may_be_read_from_the_image_instead(file, network):
    source = torch.rand(1, 3, 32, 32)
    image = load_generator(file, batch_norm="image")(source)
    with torch.no_grad():
        network.train()
        for layer in network.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.eval()
    torch.testing.assert_close(image, network(source))


def test_a_recorded_reading_holds_and_has_no_way_back(tmp_path, network):
    spec = SPEC.reading("image")
    image = spec.build()
    save_small(image, spec, tmp_path / "g.pth", preprocessing={}, provenance={})
    source = torch.rand(1, 3, 32, 32)
    assert torch.equal(load_generator(tmp_path / "g.pth")(source), image.eval()(source))
    with pytest.raises(UserError, match="keeps none"):
        load_generator(tmp_path / "g.pth", batch_norm="running")


@pytest.fixture
def own(tmp_path):
    """A network of three of six channels, and where it lies, from an object that no JSON describes."""
    torch.manual_seed(0)
    whole, narrow = Own(6, nn.SiLU()), Own(3, nn.SiLU()).eval()
    path = tmp_path / "generator.pth"
    save_small(narrow, NetworkSpec.of(whole), path, preprocessing={}, provenance={})
    return narrow, whole, path


def test_a_users_object_is_cut_down_to_the_small_network(own):
    narrow, whole, path = own
    recipe = json.loads(path.with_suffix(".json").read_text())["network"]
    assert recipe["class_path"].endswith("test_small.Own")
    assert recipe["init_args"] is None
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    source = torch.rand(2, 3, 8, 8)
    small = load_generator(path, architecture=whole)
    assert torch.equal(small(source), narrow(source))
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())
    batch = load_generator(path, architecture=whole, batch_norm="image")(source[:1])
    torch.testing.assert_close(batch, narrow.train()(source[:1]))


def test_a_users_object_is_asked_for(own):
    with pytest.raises(UserError, match=r"generator.pth .* test_small.Own .* architecture=\.\.\.") as error:
        load_generator(own[2])
    assert "\n" not in str(error.value)


def test_an_object_of_another_class_is_refused(own):
    with pytest.raises(
        UserError, match="The channel widths are not those of Sequential: unknown layers: head"
    ):
        load_generator(own[2], architecture=nn.Sequential())


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_a_state_dict_of_a_users_object(own, tmp_path, wrap):
    _, whole, _ = own
    file = tmp_path / "theirs.pth"
    torch.save(wrap({f"module.{name}": tensor for name, tensor in whole.state_dict().items()}), file)
    source = torch.rand(2, 3, 8, 8)
    network, spec = load_network(file, architecture=Own(6, nn.SiLU()))
    assert torch.equal(network(source), whole.eval()(source))
    assert spec == NetworkSpec.of(whole)
    with pytest.raises(
        UserError, match=r"theirs.pth can't be loaded: .*head.weight is \(6, .* instead of \(5"
    ):
        load_generator(file, architecture=Own(5, nn.SiLU()))


def test_a_users_class_needs_to_be_importable(own):
    path = own[2]
    change(path, network={"class_path": "nowhere.Net", "init_args": {}})
    with (
        trusting(Named(frozenset(["nowhere.Net"]))),
        pytest.raises(UserError, match=r"'nowhere.Net' can't be imported .* PYTHONPATH"),
    ):
        load_generator(path)


def test_a_small_generator_is_no_discriminator(file):
    with pytest.raises(
        UserError, match=r"holds a generator \(UnetGenerator\) where a discriminator is needed"
    ):
        load_network(file, "discriminator")


def test_a_damaged_description_is_named(file):
    file.with_suffix(".json").write_text('{"version": 1, ')
    with pytest.raises(UserError, match=r"generator.json is damaged"):
        load_generator(file)


@pytest.mark.parametrize("text", ['{"version": 99}', "{}", "[]"])
def test_a_description_of_another_version_is_named(file, text):
    file.with_suffix(".json").write_text(text)
    with pytest.raises(UserError, match=r"generator.json has format version (99|None), .*reads version 1"):
        load_generator(file)


@pytest.mark.parametrize(
    "entries",
    [
        {"network": None},
        {"network": {}},
        {"network": {**SPEC.to_dict(), "widths": {"a": [1]}}},
        {"network": SPEC.to_dict()},
    ],
)
def test_a_description_of_another_network_is_refused(file, entries):
    change(file, **entries)
    with pytest.raises(UserError, match=r"generator.pth and the .json beside it don't make a network"):
        load_generator(file)


def test_a_missing_description_is_named(file):
    file.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"generator.json.*can't be read"):
        load_small(file)


def test_tensors_that_tell_too_little_need_their_description(tmp_path):
    network, spec = Own(8, nn.ReLU()), NetworkSpec(f"{__name__}.Own", None)
    file = tmp_path / "generator_AtoB.pth"
    save_small(network, spec, file, preprocessing={}, provenance={})
    file.with_suffix(".json").rename(tmp_path / "else.json")
    words = r"generator_AtoB.json, which describes the network in .*, is missing: copy it"
    with pytest.raises(UserError, match=words):
        load_generator(file)
    other = file.rename(tmp_path / "netG.pth")  # of another project: it never had one
    with pytest.raises(UserError, match=r"netG.pth can't be loaded: its keys"):
        load_generator(other)


@pytest.fixture
def safe(tmp_path, network):
    """The same in one file."""
    safe = tmp_path / "generator.safetensors"
    save_small(network, SPEC, safe, preprocessing={"crop_size": 32}, provenance={"epoch": 3})
    return safe


def test_one_file_holds_tensors_and_description(file, safe, network):
    assert [path.name for path in safe.parent.iterdir() if path.is_file()] == ["generator.safetensors"]
    (one, spec, description), (other, *rest) = load_small(safe), load_small(file)
    assert [spec, description] == rest
    assert not one.training
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in one.state_dict().items())
    assert safetensors.torch.load_file(safe).keys() == network.state_dict().keys()
    source = torch.rand(1, 3, 32, 32)
    assert torch.equal(load_generator(safe)(source), other(source))
    assert recorded_preprocessing(safe) == {"crop_size": 32}
    assert list(map(str, generators_in(safe))) == ["student"]


def test_the_tensors_of_a_file_are_read_once(safe, monkeypatch):
    read, opened = files._read_safetensors, []
    monkeypatch.setattr(files, "_read_safetensors", lambda path: opened.append(path) or read(path))
    assert open_model(safe).model_size == (32, 32)
    assert opened == [safe]


def test_a_safetensors_file_of_others_is_read_by_its_tensors(tmp_path):
    network = SPEC.build().eval()
    path = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    source = torch.rand(1, 3, 32, 32)
    assert torch.equal(load_generator(path)(source), network(source))
    assert str(next(iter(generators_in(path)))) == "teacher"
    with pytest.raises(UserError, match="describes no network of this project"):
        load_small(path)


def rewrite(path, text):
    tensors = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(tensors, {"gancompress": text}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-9]), "is damaged, or no safetensors file"),
        (lambda p: p.write_bytes(b""), "is damaged, or no safetensors file"),
        (
            lambda p: p.write_bytes((2**62).to_bytes(8, "little") + b"{}"),
            "is damaged, or no safetensors file",
        ),
        (
            lambda p: p.write_bytes((2).to_bytes(8, "little") + b"{}"),
            "describes no network|can't be loaded|is empty",
        ),
        (lambda p: rewrite(p, "{"), "is damaged"),
        (lambda p: rewrite(p, "[" * 10**5), "is damaged"),
        (lambda p: rewrite(p, '{"version": 99}'), "has format version 99"),
        (
            lambda p: rewrite(p, '{"version": 1, "network": {}}'),
            "generator.safetensors doesn't make a network",
        ),
        (
            lambda p: rewrite(p, '{"version": 1, "network": {"class_path": "os.system"}}'),
            "the file wants the class os.system",
        ),
        (lambda p: p.unlink(), "There is no file"),
    ],
)
def test_a_damaged_safetensors_file_is_refused_in_a_sentence(safe, damage, words):
    damage(safe)
    with pytest.raises(UserError, match=words) as error:
        load_generator(safe)
    assert "\n" not in str(error.value)


def test_other_names_are_not_written(network, tmp_path):
    with pytest.raises(UserError, match=r"\.safetensors or \.pth file"):
        save_small(network, SPEC, tmp_path / "g.json", preprocessing={}, provenance={})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(network, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        save_small(network, SPEC, tmp_path / "file" / "g.pth", preprocessing={}, provenance={})


def test_a_full_disk_leaves_the_old_model_whole(file, network, monkeypatch):
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    write = type(file).write_bytes

    def full(path, content):
        if ".json" in path.name:
            raise OSError(28, os.strerror(28))
        return write(path, content)

    monkeypatch.setattr(type(file), "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        save_small(network, SPEC, file, preprocessing={"crop_size": 64}, provenance={})
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == before
