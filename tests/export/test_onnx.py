import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.torch_version import TorchVersion

from lightning_gancompress import UserError
from lightning_gancompress.export import export_onnx, load_onnx
from lightning_gancompress.networks import ResnetGenerator, UnetGenerator, use_image_statistics
from lightning_gancompress.pruning import count_macs

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def resnet(norm="instance"):
    return randomise(ResnetGenerator(ngf=8, n_blocks=2, norm=norm))


def unet():
    return randomise(UnetGenerator(ngf=4, n_downs=6))


def unet_image_statistics():
    network = unet()
    use_image_statistics(network)
    return network


def randomise(network):
    """Large weights and statistics, so that the output is far from constant and a wrong fold shows."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 1.5 / tensor[0].numel() ** 0.5)
        elif name.endswith(("running_mean", "running_var", "weight", "bias")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def resizable(tmp_path_factory):
    """A network and its ONNX file of dynamic size."""
    network, path = resnet(), tmp_path_factory.mktemp("onnx") / "generator.onnx"
    export_onnx(network, path, torch.zeros(1, 3, 32, 32), dynamic_size=True)
    return network, load_onnx(path)


def operators(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    ("make", "instance_norms"),
    [(resnet, 9), (lambda: resnet("batch"), 0), (unet, 0), (unet_image_statistics, 9)],
    ids=["resnet-instance", "resnet-batch", "unet-batch", "unet-image"],
)
def test_exported_network_equals_the_original_in_any_batch_size(make, instance_norms, tmp_path):
    network, path = make(), tmp_path / "new" / "generator.onnx"
    facts = export_onnx(network, path, torch.zeros(1, 3, 64, 64))

    image = torch.rand(5, 3, 64, 64) * 2 - 1
    expected = network(image).detach()
    assert expected.std() > 0.1
    torch.testing.assert_close(load_onnx(path)(image), expected, atol=1e-4, rtol=0)
    assert list(path.parent.iterdir()) == [path]
    assert facts["bytes"] == path.stat().st_size
    assert 0 <= facts["max_difference"] <= 1e-4
    found = operators(path)
    assert found["InstanceNormalization"] == instance_norms
    # neither norm is taken apart, batch norms are folded into the convolutions
    assert not found.keys() & {"BatchNormalization", "ReduceMean", "ReduceVar", "Sqrt"}


def test_a_file_tells_what_its_network_multiplies(tmp_path):
    network, path = resnet(), tmp_path / "generator.onnx"
    export_onnx(network, path, torch.zeros(2, 3, 32, 64))
    (cost,) = (entry.value for entry in onnx.load(path).metadata_props if entry.key == "cost")
    macs = count_macs(network, [torch.zeros(1, 3, 32, 64)])
    assert json.loads(cost) == {"macs_exact": macs, "height": 32, "width": 64}


@pytest.mark.parametrize("make", [resnet, unet_image_statistics], ids=["resnet", "unet-image"])
def test_dynamic_size_serves_other_sizes(make, tmp_path):
    network, path = make(), tmp_path / "generator.onnx"
    export_onnx(network, path, torch.zeros(1, 3, 64, 64), dynamic_size=True)
    image = torch.rand(2, 3, 192, 128) * 2 - 1
    torch.testing.assert_close(load_onnx(path)(image), network(image).detach(), atol=1e-4, rtol=0)
    dimensions = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dimensions] == ["batch", 3, "height", "width"]
    onnx.checker.check_model(onnx.load(path), full_check=True)


@pytest.mark.parametrize("size", [(65, 63), (66, 64), (64, 3)])
def test_dynamic_size_refuses_what_the_network_refuses(size, resizable):
    network, run = resizable
    with pytest.raises(UserError, match="multiple of 4"):
        network(torch.zeros(1, 3, *size))
    with pytest.raises(Exception, match="height_and_width_must_be_multiples_of_4"):
        run(torch.zeros(1, 3, *size))
    assert run(torch.zeros(1, 3, 68, 64)).shape == (1, 3, 68, 64)


def test_network_of_one_size_is_refused_only_with_dynamic_size(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3 * 8 * 8), nn.Unflatten(1, (3, 8, 8)))
    with pytest.raises(UserError, match="without dynamic_size it may"):
        export_onnx(network, tmp_path / "n.onnx", torch.zeros(1, 3, 8, 8), dynamic_size=True)
    assert not list(tmp_path.iterdir())
    export_onnx(network, tmp_path / "n.onnx", torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(("weight", "tolerance"), [(None, 0.0), (float("nan"), 1e-4)])
def test_difference_above_the_tolerance_leaves_nothing(weight, tolerance, tmp_path):
    network, path = resnet(), tmp_path / "generator.onnx"
    if weight is not None:
        next(network.parameters()).data.fill_(weight)
    with pytest.raises(UserError, match=r"differs from the network's by .*tolerance"):
        export_onnx(network, path, torch.zeros(1, 3, 16, 16), tolerance=tolerance)
    assert not list(tmp_path.iterdir())


def test_export_leaves_the_network_as_it_was(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    export_onnx(network, tmp_path / "n.onnx", torch.zeros(1, 3, 8, 8))
    assert all(m.training for m in network.modules())
    assert all(p.requires_grad for p in network.parameters())
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(package, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(UserError, match=rf"ONNX needs {package}: run `pip install {package}`"):
        export_onnx(resnet(), tmp_path / "n.onnx", torch.zeros(1, 3, 16, 16))


def test_an_old_torch_is_named(tmp_path, monkeypatch):
    for old in ("2.6.0+cpu", "2.7.1"):
        monkeypatch.setattr(torch, "__version__", TorchVersion(old))
        with pytest.raises(
            UserError, match=rf"^ONNX files need torch 2\.8, and this is {re.escape(old)}: run"
        ):
            export_onnx(resnet(), tmp_path / "n.onnx", torch.zeros(1, 3, 16, 16))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_says_why(tmp_path):
    class Branching(nn.Module):
        def forward(self, image):
            return image if image.sum() > 0 else -image

    with pytest.raises(UserError, match="Branching can't be traced"):
        export_onnx(Branching(), tmp_path / "n.onnx", torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match="multiple of 4"):
        export_onnx(resnet(), tmp_path / "n.onnx", torch.zeros(1, 3, 30, 30))
    assert not list(tmp_path.iterdir())


def test_unwritable_place_is_named(tmp_path):
    Path(tmp_path, "file").write_text("")
    with pytest.raises(UserError, match=r"n\.onnx can't be written"):
        export_onnx(nn.Conv2d(3, 3, 1), tmp_path / "file" / "n.onnx", torch.zeros(1, 3, 8, 8))


def test_exporter_of_another_release(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.onnx.errors.OnnxExporterError("no translation") from AttributeError("no dtype")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(UserError, match=r"can't be converted to ONNX by torch .*no dtype.*upgrade both"):
        export_onnx(resnet(), tmp_path / "g.onnx", torch.zeros(1, 3, 32, 32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_networks_and_samples_of_any_precision_are_written_in_float32(dtype, tmp_path):
    network, sample = nn.Conv2d(3, 3, 1).to(dtype), torch.zeros(1, 3, 8, 8, dtype=dtype)
    facts = export_onnx(network, tmp_path / "n.onnx", sample)
    assert facts["max_difference"] < 1e-5
    assert load_onnx(tmp_path / "n.onnx")(torch.zeros(1, 3, 8, 8)).dtype == torch.float32
