"""The document for people with networks of their own runs as it is written."""

import documents
import pytest
import torch
from torch import nn

from lightning_gancompress import load_generator
from lightning_gancompress.pruning import count_macs


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which all blocks ran, in order, and the names they left behind."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("own")
    return folder, documents.run("bring_your_own.md", folder)


def test_every_block_is_of_a_known_kind():
    blocks = documents.blocks("bring_your_own.md")
    assert {language for language, _ in blocks} == {"python", "yaml", ""}
    assert len(blocks) > 8


def test_the_small_network_is_the_same_in_all_forms(ran):
    folder, names = ran
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    small = load_generator(folder / "runs/mynet/generator.pth", architecture=names["MyNet"](width=32))
    assert count_macs(small, [image]) <= 0.5 * count_macs(names["net"], [image])
    assert names["image"].shape == (1, 3, 128, 96)
    session = names["onnxruntime"].InferenceSession(str(folder / "mynet.onnx"))
    (output,) = session.run(None, {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), small(image), atol=1e-4, rtol=0)


def test_the_command_line_needs_no_architecture(ran):
    folder, names = ran
    small = load_generator(folder / "runs/mynet_yaml/generator.pth")
    assert isinstance(small, names["MyNet"])
    assert (folder / "runs/mynet_yaml/generator.onnx").is_file()


def test_what_is_wrapped_comes_out_slim(ran):
    _, names = ran
    slim = names["slim_net"]
    assert isinstance(slim, names["MyNet"])
    assert slim.block[0].out_channels < 32


def test_what_mixes_its_channels_stays_whole(ran):
    _, names = ran
    small = names["small"]
    assert isinstance(small, names["Normed"])
    assert small.down[0].out_channels == 32
    assert isinstance(small.block[0], nn.Conv2d)
    assert small.block[0].out_channels < 32
