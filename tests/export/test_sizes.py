"""Networks whose path depends on the size of the image: a file gives the same, or refuses the size."""

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor, nn

from lightning_gancompress.export import export_onnx, export_openvino, load_onnx
from lightning_gancompress.export.openvino import load_openvino
from lightning_gancompress.export.reduction import Reduction
from lightning_gancompress.export.sizes import REFUSAL, holds, refuse_others
from lightning_gancompress.networks import ResnetGenerator, UnetGenerator

SIZES = [(32, 32), (64, 32), (33, 32), (32, 33), (34, 36), (40, 72), (72, 40), (80, 80), (7, 5), (32, 500)]
SIZES += [(8, 32), (32, 8), (100, 60), (60, 60), (16, 16), (4, 64), (5, 5)]


class Net(nn.Module):
    def __init__(self, forward: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.run = forward
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.down, self.up = nn.Conv2d(3, 3, 4, 4), nn.ConvTranspose2d(3, 3, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def if_wide(net: Net, x: Tensor) -> Tensor:
    return net.conv(x) if x.shape[3] > x.shape[2] else net.conv(net.conv(x))


def if_large(net: Net, x: Tensor) -> Tensor:
    return net.conv(net.conv(x)) if x.shape[2] * x.shape[3] > 5000 else net.conv(x)


def if_very_wide(net: Net, x: Tensor) -> Tensor:
    if x.shape[3] > 400:
        return F.interpolate(net.conv(x[..., ::2]), x.shape[2:])
    return net.conv(x)


def padded_if_odd(net: Net, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    if height % 4 or width % 4:
        x = F.pad(x, (0, -width % 4, 0, -height % 4))
    return net.up(net.down(x))[:, :, :height, :width]


def always_padded(net: Net, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    x = F.pad(x, (0, -width % 4, 0, -height % 4), mode="reflect")
    return net.up(net.down(x))[:, :, :height, :width]


def rounded_down(net: Net, x: Tensor) -> Tensor:
    return net.up(net.down(x))


def by_the_smaller_side(net: Net, x: Tensor) -> Tensor:
    return net.conv(net.conv(x)) if x.shape[2] < 16 or x.shape[3] < 16 else net.conv(x)


def by_two_conditions(net: Net, x: Tensor) -> Tensor:
    if x.shape[3] > 70:
        x = net.conv(x)
    return if_large(net, x)


def padded_if_uneven(net: Net, x: Tensor) -> Tensor:
    return net.conv(F.pad(x, (0, 0, 0, 1)) if x.shape[2] % 2 == 1 else x)


def by_proportion(net: Net, x: Tensor) -> Tensor:
    return net.conv(net.conv(x)) if x.shape[3] / x.shape[2] > 1.5 else net.conv(x)


def by_blocks(net: Net, x: Tensor) -> Tensor:
    return net.conv(net.conv(x)) if math.ceil(x.shape[3] / 16) > 4 else net.conv(x)


def by_root(net: Net, x: Tensor) -> Tensor:
    return net.conv(net.conv(x)) if x.shape[3] ** 0.5 > 8 else net.conv(x)


def by_pixels(net: Net, x: Tensor) -> Tensor:
    return net.conv(net.conv(x)) if x[:1].numel() > 15000 else net.conv(x)


def attends(net: Net, x: Tensor) -> Tensor:
    """In blocks of 8 pixels, of which an image of one pixel has none."""
    y = F.pixel_unshuffle(x, 8).flatten(2)
    y = torch.softmax(y.transpose(1, 2) @ y, -1) @ y.transpose(1, 2)
    return F.pixel_shuffle(y.transpose(1, 2).unflatten(2, (x.shape[2] // 8, x.shape[3] // 8)), 8)


KINDS = {
    by_the_smaller_side: "height >= 16 and width >= 16",
    by_two_conditions: "width <= 70 and width*height <= 5000",
    padded_if_uneven: "height % 2 == 0",
    by_proportion: "width <= 1.5*height",
    by_blocks: "width <= 64",
    by_root: "width <= 64",
    by_pixels: "width*height <= 5000",
    if_wide: "width <= height",
    if_large: "width*height <= 5000",
    if_very_wide: "width <= 400",
    padded_if_odd: "height % 4 == 0 and width % 4 == 0",
    always_padded: "height >= 4 and width >= 4",
    rounded_down: "height >= 4 and width >= 4",
}


def image(size: tuple[int, int]) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_as_its_network_or_refuses_the_size(kind, tmp_path):
    network = Net(kind).eval()
    export_onnx(network, tmp_path / "n.onnx", torch.zeros(1, 3, 32, 32), dynamic_size=True)
    run = load_onnx(tmp_path / "n.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "n.onnx"), full_check=True)
    for size in SIZES:
        if holds(KINDS[kind], size):
            torch.testing.assert_close(run(image(size)), network(image(size)).detach(), atol=1e-4, rtol=0)
        else:
            with pytest.raises(Exception, match=REFUSAL):
                run(image(size))


def test_where_the_network_fails_the_file_may_say_so_itself(tmp_path):
    network = Net(attends).eval()
    export_onnx(network, tmp_path / "n.onnx", torch.zeros(1, 3, 32, 32), dynamic_size=True)
    run = load_onnx(tmp_path / "n.onnx")
    for size in [(32, 32), (8, 16), (64, 40), (72, 8)]:
        torch.testing.assert_close(run(image(size)), network(image(size)).detach(), atol=1e-4, rtol=0)
    for size in [(1, 1), (4, 32), (33, 32)]:
        for call in (network, run):
            with pytest.raises(Exception, match=r"."):
                call(image(size))


def test_what_the_file_cannot_check_is_told(tmp_path):
    def by_bits(net: Net, x: Tensor) -> Tensor:
        return net.conv(net.conv(x)) if x.shape[3] & 64 else net.conv(x)

    network = Net(by_bits).eval()
    with pytest.warns(
        UserWarning, match=r"another path for images that break .* & 64\) == 0, which the file"
    ):
        export_onnx(network, tmp_path / "n.onnx", torch.zeros(1, 3, 16, 16), dynamic_size=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        export_onnx(network, tmp_path / "fixed.onnx", torch.zeros(1, 3, 16, 16))


def test_classes_derived_from_ours_are_tried_too(tmp_path):
    class Wide(ResnetGenerator):
        def forward(self, source: Tensor) -> Tensor:
            return super().forward(source) * (0.5 if source.shape[3] > 80 else 1)

    network = Wide(ngf=4, n_blocks=1).eval()
    export_onnx(network, tmp_path / "n.onnx", torch.zeros(1, 3, 32, 32), dynamic_size=True)
    run = load_onnx(tmp_path / "n.onnx")
    for size in [(32, 32), (96, 80), (64, 8)]:
        torch.testing.assert_close(run(image(size)), network(image(size)).detach(), atol=1e-4, rtol=0)
    with pytest.raises(Exception, match=REFUSAL):
        run(image((32, 84)))


def test_sizes_of_our_networks_need_no_check_but_their_multiple(tmp_path):
    network = UnetGenerator(ngf=4, n_downs=5).eval()
    export_onnx(network, tmp_path / "n.onnx", torch.zeros(1, 3, 96, 96), dynamic_size=True)
    assert not [node for node in onnx.load(tmp_path / "n.onnx").graph.node if node.name == REFUSAL]


@pytest.mark.parametrize("form", ["uint8", "fp16", "int8", "openvino"])
def test_other_forms_refuse_it_too(form, tmp_path):
    def deeper_if_wide(net: Net, x: Tensor) -> Tensor:
        return if_wide(net, net.conv(net.conv(x)))

    network, sample = Net(deeper_if_wide).eval(), torch.zeros(1, 3, 32, 32)
    reduction = Reduction(form, [image((32, 32))]) if form in ("fp16", "int8") else None
    if form == "openvino":
        export_openvino(network, tmp_path / "n.xml", sample, dynamic_size=True)
        run = load_openvino(tmp_path / "n.xml", exact=True)
    else:
        path = tmp_path / "n.onnx"
        export_onnx(network, path, sample, dynamic_size=True, uint8=form == "uint8", reduction=reduction)
        run = load_onnx(path)
    tall, wide = (torch.zeros(1, *s, 3).byte() if form == "uint8" else image(s) for s in ((40, 32), (32, 40)))
    assert run(tall).numel() == tall.numel()
    if form != "openvino":  # which aborts under one thread when it has refused a size
        with pytest.raises(Exception, match=REFUSAL):
            run(wide)


@pytest.mark.parametrize(
    "condition",
    [
        "height <= 5",
        "height != width",
        "height*2 > width + 3 and height - width < 2 and width % 3 == 1",
        "((-1)*height) % 4 < width",
        "(3 - height) // 2 >= -2",
        "max(height, 4) == min(width, 6)",
        "-height < -width",
        "(height // 2)*(width // 3) == height",
        "width / height <= 1.5",
        "ceil(width / 4) > 1 and floor(float(height) / 3) < 2",
        "6 % height == 0",
        "float(width)**0.5 <= 2.5",
        "3*batch*height < 20",
    ],
)
def test_onnx_computes_as_python_does(condition):
    names = ["batch", 3, "height", "width"]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, names) for name in ("image", "output")]
    nodes = [helper.make_node("Identity", ["image"], ["output"])]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    refuse_others(model, [condition, "height > 0"])
    run = load_onnx(model.SerializeToString())

    def accepts(size: tuple[int, int]) -> bool:
        with contextlib.suppress(Exception):
            return run(torch.zeros(1, 3, *size)).shape == (1, 3, *size)
        return False

    sizes = list(itertools.product(range(1, 10), repeat=2))
    accepted = {size for size in sizes if accepts(size)}
    assert accepted == {size for size in sizes if holds(condition, size)}
    assert 0 < len(accepted) < 81


def test_a_norm_by_the_batch_stays_one(tmp_path):
    """MUNIT's adaptive instance norm is a batch norm in training mode, with averages of its own."""

    class Adaptive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("variance", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            count, channels, height, width = x.shape
            averages = self.mean.repeat(count), self.variance.repeat(count)
            y = F.batch_norm(x.reshape(1, -1, height, width), *averages, training=True)
            return y.view(count, channels, height, width)

    network = Adaptive().eval()
    export_onnx(network, tmp_path / "n.onnx", torch.zeros(1, 3, 8, 8))
    x = image((8, 8)) * 0.2 + 0.5
    own = load_onnx(tmp_path / "n.onnx")(x)
    expected = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(own, expected, atol=1e-4, rtol=0)
