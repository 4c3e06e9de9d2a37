from collections import Counter

import pytest
import torch
from torch import nn

from lightning_gancompress.export import export_onnx, load_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def operators(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def exported(network, path, size=(12, 9), **options):
    """Export a network with random weights and biases of size one; compare it at two sizes."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    sample = torch.zeros(1, next(network.parameters()).shape[0 if is_transposed(network) else 1], *size)
    export_onnx(network, path, sample, dynamic_size=True, tolerance=1e-3, **options)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    for height, width in [size, (2 * size[0] + 1, size[1] + 3)]:
        image = torch.randn(2, sample.shape[1], height, width)
        expected = network(image).detach()
        torch.testing.assert_close(load_onnx(path)(image), expected, atol=1e-3, rtol=1e-4)
    return operators(path)


def is_transposed(network):
    return isinstance(next(m for m in network.modules() if not list(m.children())), nn.ConvTranspose2d)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 3, 7),
        nn.Conv2d(5, 1, (5, 3), padding=(2, 1), bias=False),
        nn.Conv2d(3, 4, 6, padding=1),
    ],
    ids=["resnet", "one-output", "even"],
)
def test_rows_of_a_convolution_with_few_outputs_are_added(layer, tmp_path):
    found = exported(layer, tmp_path / "n.onnx")
    rows = layer.kernel_size[0]
    assert found == {"Conv": 1, "Slice": rows, "Sum": 1}
    weights = onnx.load(tmp_path / "n.onnx").graph.initializer
    assert [len(layer.weight) * rows, layer.in_channels, 1, layer.kernel_size[1]] in [w.dims for w in weights]


@pytest.mark.parametrize(
    ("layer", "slices"),
    [
        (nn.ConvTranspose2d(8, 5, 4, stride=2, padding=1), 1),
        (nn.ConvTranspose2d(4, 2, 2, stride=2), 0),
        (nn.ConvTranspose2d(4, 3, (6, 3), stride=3, padding=(2, 1), output_padding=1, bias=False), 1),
    ],
    ids=["unet", "without-overlap", "stride-3"],
)
def test_transposed_convolutions_become_convolutions(layer, slices, tmp_path):
    found = exported(layer, tmp_path / "n.onnx")
    assert found == {"Conv": 1, "DepthToSpace": 1, **({"Slice": slices} if slices else {})}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 5, 7),
        nn.Conv2d(8, 3, 3),
        nn.Conv2d(8, 3, 7, stride=2),
        nn.Conv2d(8, 3, 5, dilation=2),
        nn.Conv2d(8, 4, 5, groups=4),
        nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1),
        nn.ConvTranspose2d(8, 3, 3, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose2d(8, 3, 3, padding=1),
        nn.ConvTranspose2d(8, 3, 4, stride=(2, 4)),
        nn.ConvTranspose2d(8, 3, 4, stride=2, output_padding=1),
        nn.ConvTranspose2d(8, 4, 4, stride=2, groups=2),
    ],
    ids=str,
)
def test_other_layers_stay(layer, tmp_path):
    sample = torch.zeros(1, layer.in_channels, 14, 14)
    export_onnx(layer, tmp_path / "n.onnx", sample)
    assert operators(tmp_path / "n.onnx") == {type(layer).__name__.removesuffix("2d"): 1}


def test_a_shared_layer_keeps_its_weights_where_they_are_needed(tmp_path):
    class Shared(nn.Module):
        """One kernel, used by a layer that is replaced and by another that stays."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 3, 5, 5))

        def forward(self, image):
            once = nn.functional.conv2d(image, self.weight, padding=2)
            return nn.functional.conv2d(once, self.weight, padding=4, dilation=2)

    found = exported(Shared(), tmp_path / "n.onnx")
    assert found == {"Conv": 2, "Slice": 5, "Sum": 1}


def test_optimize_false_keeps_the_layers_of_the_network(tmp_path):
    network = nn.Sequential(nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), nn.Conv2d(4, 3, 7, padding=3))
    assert exported(network, tmp_path / "n.onnx", optimize=False) == {"ConvTranspose": 1, "Conv": 1}
