"""Models on the Hub, which is a stand-in on this machine."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from lightning_gancompress import Translator, UserError, load_generator, push_to_hub
from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.cli import main
from lightning_gancompress.networks import NetworkSpec

pytest.importorskip("huggingface_hub")
OLD = Path(__file__).parent / "checkpoints" / "old"


@pytest.fixture
def folder(tmp_path):
    """A run with its small model, its test and other files."""
    folder = tmp_path / "run"
    (folder / "test").mkdir(parents=True)
    shutil.copy(OLD / "results.json", folder / "test")
    torch.manual_seed(0)
    spec = NetworkSpec("lightning_gancompress.networks.ResnetGenerator", {"ngf": 2, "n_blocks": 1})
    record = {"preprocessing": {"crop_size": 16, "in_channels": 3}}
    record["provenance"] = {"budget": 0.3, "policy": "UniformWidth", "teacher": "/home/me/teacher.ckpt"}
    for ending in (".safetensors", ".pth"):
        save_small(spec.build(), spec, folder / f"generator{ending}", **record)
        torch.manual_seed(0)
    (folder / "config.yaml").write_text("secret: 1")
    return folder


def test_a_run_goes_to_the_hub_and_comes_back(hub, folder, capsys):
    main(["push", f"--source={folder}", "--repo=user/model"])
    assert capsys.readouterr().out == f"Uploaded to {hub.address}/user/model\n"
    assert hub.files.keys() == {"user/model/generator.safetensors", "user/model/README.md"}
    assert sum("/commit/" in request for request in hub.asked) == 1
    image = torch.rand(1, 3, 16, 16)
    expected = load_generator(folder / "generator.safetensors")(image)
    assert torch.equal(load_generator("hf://user/model")(image), expected)
    assert torch.equal(load_generator("hf://user/model@main/generator.safetensors")(image), expected)
    assert Translator("hf://user/model").model.preprocessing == {"crop_size": 16, "in_channels": 3}


def test_the_card_has_the_table_of_the_test_and_no_paths(hub, folder):
    assert push_to_hub(folder, "user/model") == f"{hub.address}/user/model"
    card = hub.files["user/model/README.md"].decode()
    assert card.startswith("---\nlibrary_name: lightning_gancompress\npipeline_tag: image-to-image\n")
    assert 'Translator("hf://user/model").translate("photo.jpg")' in card
    assert "| student |" in card
    assert "- budget: 0.3" in card
    assert "/home/me" not in card


def test_a_file_of_torch_takes_its_description_along(hub, folder):
    push_to_hub(folder / "generator.pth", "user/model")
    assert {name.rpartition("/")[2] for name in hub.files} == {"generator.pth", "generator.json", "README.md"}
    assert "hf://user/model/generator.pth" in hub.files["user/model/README.md"].decode()
    network = load_generator("hf://user/model/generator.pth")
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(network(image), load_generator(folder / "generator.pth")(image))


@pytest.mark.parametrize("name", ["hf://user", "hf://", "hf://user/model@", "hf:///model"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(UserError, match="names no model on the Hub: write hf://user/model"):
        load_generator(name)


def test_what_is_missing_or_refused_is_one_sentence(hub, folder, tmp_path):
    with pytest.raises(UserError, match=r"model can't be downloaded \(404, no such model or file\)"):
        load_generator("hf://user/model")
    hub.refuses = 401
    for call in (lambda: load_generator("hf://user/other"), lambda: push_to_hub(folder, "user/model")):
        with pytest.raises(UserError, match=r"\(401, not logged in") as error:
            call()
        assert "\n" not in str(error.value)
    for source, repo, words in [
        (tmp_path / "nothing", "user/model", "There is no file or folder"),
        (tmp_path, "user/model", r"holds no generator\.safetensors"),
        (folder / "config.yaml", "user/model", "is no small model and no ONNX file"),
        (folder, "model", "repo is model: write it as user/model"),
    ]:
        with pytest.raises(UserError, match=words):
            push_to_hub(source, repo)
    assert hub.files == {}


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: load_generator("hf://user/model"), lambda: push_to_hub(folder, "user/model")):
        with pytest.raises(UserError, match=r"pip install huggingface_hub"):
            call()
