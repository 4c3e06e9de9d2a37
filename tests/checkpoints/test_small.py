import dataclasses
import json
import os

import pytest
import torch

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.checkpoints import load_small, save_small
from lightning_gancompress.networks import NetworkSpec, channel_widths, set_channel_widths

SPEC = NetworkSpec("lightning_gancompress.networks.UnetGenerator", {"ngf": 4, "n_downs": 5, "init_gain": 0.3})


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


def test_only_pth_names_are_written(network, tmp_path):
    with pytest.raises(UserError, match=r"\.pth file"):
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
