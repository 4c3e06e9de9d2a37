"""ONNX and OpenVINO files in fewer bits."""

import json

import pytest
import torch
from torch import nn

from lightning_gancompress import UserError
from lightning_gancompress.export import Reduction, export_onnx, export_openvino, load_onnx
from lightning_gancompress.networks import ResnetGenerator, UnetGenerator
from lightning_gancompress.translation import open_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
RECORD = {"crop_size": 32, "in_channels": 3}
SAMPLE = torch.zeros(1, 3, 32, 32)


def images(count):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(SAMPLE.shape, generator=generator) * 2 - 1 for _ in range(count)]


def reduction(precision, *keep_float):
    calibration = images(4) if precision == "int8" else []
    return Reduction(precision, calibration, images(2), list(keep_float))


def resnet():
    torch.manual_seed(0)
    return ResnetGenerator(ngf=8, n_blocks=2, init_gain=0.3).eval()


def integers(path):
    """The layers whose weights are 8-bit integers."""
    tensors = onnx.load(path).graph.initializer
    return sorted(t.name.partition(".weight")[0] for t in tensors if t.data_type == 3 and len(t.dims) == 4)


def test_int8_keeps_first_last_and_named_layers_float(tmp_path):
    network, path = resnet(), tmp_path / "g.int8.onnx"
    facts = export_onnx(
        network, path, SAMPLE, preprocessing=RECORD, reduction=reduction("int8", "model.10.*")
    )
    convolutions = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    kept = {convolutions[0], convolutions[-1], *(n for n in convolutions if n.startswith("model.10."))}
    assert integers(path) == sorted({*convolutions} - kept)
    assert len(kept) == 4
    model = onnx.load(path)
    assert {p.key: p.value for p in model.metadata_props}["preprocessing"] == json.dumps(RECORD)
    assert [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)] == [1, 1]
    difference = torch.cat([load_onnx(path)(i) - network(i).detach() for i in images(2)]).abs()
    assert facts["mean_difference"] == pytest.approx(float(difference.mean()), rel=1e-4)
    assert facts["max_difference"] == pytest.approx(float(difference.max()), rel=1e-4)
    assert 0 < facts["mean_difference"] < 0.1 * float(network(images(1)[0]).detach().std())
    assert facts["bytes"] < facts["float_bytes"]
    assert load_onnx(path)(torch.zeros(3, 3, 32, 32)).shape == (3, 3, 32, 32)


def test_int8_quantises_transposed_convolutions_of_all_widths(tmp_path):
    network, path = UnetGenerator(ngf=5, n_downs=5, init_gain=0.3).eval(), tmp_path / "u.int8.onnx"
    export_onnx(network, path, SAMPLE, tolerance=0.01, reduction=reduction("int8"))
    assert "ConvTranspose" not in [node.op_type for node in onnx.load(path).graph.node]
    assert len(integers(path)) == 8  # of ten


@pytest.mark.parametrize("write", [export_onnx, export_openvino])
def test_fp16_halves_the_file_and_keeps_float_images(write, tmp_path):
    if write is export_openvino:
        pytest.importorskip("openvino")
    network, path = resnet(), tmp_path / ("g.onnx" if write is export_onnx else "g.xml")
    facts = write(network, path, SAMPLE, preprocessing=RECORD, reduction=reduction("fp16"))
    assert 0 < facts["max_difference"] < 0.03
    weights = sum(4 * p.numel() for p in network.parameters())
    assert facts["float_bytes"] > weights
    binary = path if write is export_onnx else path.with_suffix(".bin")
    assert binary.stat().st_size < 0.7 * weights
    model = open_model(path)
    assert model.preprocessing == RECORD
    torch.testing.assert_close(model(SAMPLE), network(SAMPLE).detach(), atol=0.05, rtol=0)


def test_openvino_reads_int8_and_other_sizes(tmp_path):
    pytest.importorskip("openvino")
    network, path = resnet(), tmp_path / "g.int8.xml"
    export_openvino(network, path, SAMPLE, dynamic_size=True, reduction=reduction("int8"))
    model = open_model(path, threads=1)
    assert (model.runtime, model.fixed_size, model.multiple) == ("openvino", None, 4)
    assert model.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    convolutions = sum(isinstance(m, nn.Conv2d) for m in network.modules())
    assert path.read_text().count('type="FakeQuantize"') == convolutions - 2  # of inputs, not of outputs
    image = torch.rand(2, 3, 40, 36) * 2 - 1
    assert (model(image) - network(image).detach()).abs().mean() < 0.05
    path.with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"can't be loaded by OpenVINO .*\.bin file isn't beside it"):
        open_model(path)


@pytest.mark.parametrize("write", [export_onnx, export_openvino])
def test_features_beyond_half_precision_are_refused(write, tmp_path):
    if write is export_openvino:
        pytest.importorskip("openvino")
    path = tmp_path / ("n.onnx" if write is export_onnx else "n.xml")
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False))
    network[0].weight.data.fill_(1e5)
    network[1].weight.data.fill_(1e-6)
    with pytest.raises(UserError, match=r"features of layer 0, up to .* ends at 65504: export it in float32"):
        write(network, path, SAMPLE, reduction=reduction("fp16"))
    assert not list(tmp_path.iterdir())


def test_openvino_keeps_no_layer_of_fp16_in_float(tmp_path):
    pytest.importorskip("openvino")
    with pytest.raises(UserError, match=r"keep_float is not for OpenVINO in fp16"):
        export_openvino(
            nn.Conv2d(3, 3, 1), tmp_path / "n.xml", SAMPLE, reduction=reduction("fp16", "model.1")
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: reduction("int8", "model.99"), r"keep_float 'model.99' fits no convolution .*model\.1"),
        (lambda: reduction("int8", "*"), "no convolution to quantise"),
        (lambda: Reduction("int8"), "needs pictures .*calibration"),
        (lambda: Reduction("int4"), "precision of Reduction is 'int4': give fp16 or int8"),
    ],
)
def test_what_cannot_be_reduced_leaves_nothing(make, words, tmp_path):
    with pytest.raises(UserError, match=words):
        export_onnx(resnet(), tmp_path / "n.onnx", SAMPLE, reduction=make())
    assert not list(tmp_path.iterdir())


def test_a_file_tells_nothing_of_the_code_that_wrote_it(tmp_path):
    export_onnx(resnet(), tmp_path / "n.onnx", SAMPLE)
    assert b"resnet.py" not in (tmp_path / "n.onnx").read_bytes()
