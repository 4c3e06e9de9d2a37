import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_gancompress import UserError
from lightning_gancompress.metrics.drn import DrnD105, bilinear
from lightning_gancompress.metrics.segmentation import (
    CITYSCAPES,
    CITYSCAPES_IGNORED,
    Segmenter,
    SmallUnet,
    confusion,
    decode,
    load_weights,
    mean_iou,
    pixel_accuracy,
)

PLAIN = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def paint(labels, colours):
    """Label map (H, W) as a picture (1, 3, H, W) in [-1, 1]."""
    return (torch.tensor(colours)[labels].permute(2, 0, 1) / 127.5 - 1).unsqueeze(0)


def test_confusion_mean_iou_and_accuracy_by_hand():
    labels = torch.tensor([[0, 0, 0], [1, 1, 255]])
    predicted = torch.tensor([[0, 0, 1], [1, 2, 0]])
    matrix = confusion(labels, predicted, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    # class 0: 2 of 3, class 1: 1 of 3, class 2: none of 1, class 3 occurs nowhere
    assert mean_iou(matrix) == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert pixel_accuracy(matrix) == pytest.approx(3 / 5)


def test_labels_beyond_the_classes_do_not_count():
    labels, predicted = torch.tensor([[0, 2, 255]]), torch.tensor([[0, 1, 1]])
    assert confusion(labels, predicted, 2).tolist() == [[1, 0], [0, 0]]


def test_colours_come_back_through_noise():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(29, (24, 24), generator=generator)
    image = paint(labels, [*CITYSCAPES, *CITYSCAPES_IGNORED])
    expected = labels.where(labels < 19, 255)
    assert torch.equal(decode(image, CITYSCAPES, CITYSCAPES_IGNORED)[0], expected)
    noisy = image + (torch.rand(image.shape, generator=generator) * 2 - 1) * 5 / 127.5
    assert torch.equal(decode(noisy, CITYSCAPES, CITYSCAPES_IGNORED)[0], expected)
    assert len(set(map(tuple, [*CITYSCAPES, *CITYSCAPES_IGNORED]))) == 29


def test_scores_are_resized_to_the_labels_before_a_class_is_chosen():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3, padding=1)
    image, label = torch.rand(1, 3, 4, 4) * 2 - 1, torch.randint(3, (8, 16))
    found = Segmenter(network, 3, **PLAIN).confusions(image, [label])[0]

    scores = network(((image + 1) / 2 * 255).round() / 127.5 - 1)[0, :3].log_softmax(0)
    expected = torch.zeros(3, 3, dtype=torch.long)
    for y in range(8):
        for x in range(16):  # half-pixel centres, clamped at the border
            v, u = max((y + 0.5) / 2 - 0.5, 0), max((x + 0.5) / 4 - 0.5, 0)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, 3), min(left + 1, 3)
            a = scores[:, top, left] * (1 - u + left) + scores[:, top, right] * (u - left)
            b = scores[:, bottom, left] * (1 - u + left) + scores[:, bottom, right] * (u - left)
            expected[label[y, x], (a * (1 - v + top) + b * (v - top)).argmax()] += 1
    assert torch.equal(found, expected)


def test_a_network_sees_its_own_size_and_may_return_a_dictionary():
    class Seen(nn.Module):
        def forward(self, image):
            self.shape, self.mean = tuple(image.shape), float(image.mean())
            return {"out": image}

    network = Seen()
    segmenter = Segmenter(network, 3, (0.25,) * 3, (0.5,) * 3, [8, 16])
    assert segmenter(torch.ones(2, 3, 4, 4)).shape == (2, 3, 8, 16)
    assert network.shape == (2, 3, 8, 16)
    assert network.mean == pytest.approx(1.5)
    with pytest.raises(UserError, match="knows 3 classes, and the palette has 4"):
        Segmenter(network, 4, **PLAIN)(torch.ones(1, 3, 4, 4))


def test_weights_in_their_usual_wrappings(tmp_path):
    torch.manual_seed(0)
    network, other = SmallUnet(3, 2), SmallUnet(3, 2)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "a")
    load_weights(other, tmp_path / "a")
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in network.state_dict().items())
    with pytest.raises(UserError, match=r"a does not fit SmallUnet .* give the file of this network"):
        load_weights(SmallUnet(4, 2), tmp_path / "a")


def test_the_small_network_answers_at_the_size_of_any_image():
    assert SmallUnet(3, 2)(torch.zeros(1, 3, 17, 30)).shape == (1, 3, 17, 30)


def published_parameters(classes):
    """Parameters of DRN-D-105 from the table of its paper, block by block."""
    count = 3 * 16 * 49 + 16 * 16 * 9 + 16 * 32 * 9 + 2 * (16 + 16 + 32)
    inputs = 32
    for width, blocks in ((64, 3), (128, 4), (256, 23), (512, 3)):
        for n in range(blocks):
            count += inputs * width + 9 * width**2 + 4 * width**2 + 2 * 6 * width
            count += inputs * 4 * width + 8 * width if n == 0 else 0
            inputs = 4 * width
    count += (2048 + 512) * 512 * 9 + 2 * 2 * 512
    return count + 512 * classes + classes + classes * 16**2


def test_drn_has_the_names_and_shapes_of_its_file():
    with torch.device("meta"):
        network = DrnD105()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    expected = {
        "base.0.0.weight": (16, 3, 7, 7),
        "base.0.1.running_mean": (16,),
        "base.2.0.weight": (32, 16, 3, 3),
        "base.3.0.downsample.0.weight": (256, 32, 1, 1),
        "base.4.3.conv2.weight": (128, 128, 3, 3),
        "base.5.22.conv3.weight": (1024, 256, 1, 1),
        "base.6.0.downsample.1.weight": (2048,),
        "base.6.2.bn3.bias": (2048,),
        "base.7.0.weight": (512, 2048, 3, 3),
        "base.8.1.running_var": (512,),
        "seg.weight": (19, 512, 1, 1),
        "seg.bias": (19,),
        "up.weight": (19, 1, 16, 16),
    }
    assert expected.items() <= shapes.items()
    assert sum(p.numel() for p in network.parameters()) == published_parameters(19)
    assert {module.dilation[0] for module in network.base[6].modules() if isinstance(module, nn.Conv2d)} == {
        1,
        4,
    }

    # files of that time know no count of batches
    old = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    network.load_state_dict(old)
    with pytest.raises(RuntimeError, match="Missing"):
        network.load_state_dict({name: tensor for name, tensor in old.items() if name != "seg.bias"})


def test_drn_answers_with_log_probabilities_at_the_size_of_the_image():
    network = DrnD105(3)
    seen = []
    network.seg.register_forward_hook(lambda module, args, output: seen.append(output.shape[2:]))
    found = network(torch.zeros(1, 3, 32, 64))
    assert found.shape == (1, 3, 32, 64)
    assert torch.allclose(found.exp().sum(1), torch.ones(1, 32, 64), atol=1e-5)
    assert seen == [(4, 8)]
    ramp = torch.arange(4.0).view(1, 1, 1, 4)
    weight = bilinear(16)[None, None]
    inside = F.conv_transpose2d(ramp.expand(1, 1, 4, 4), weight, stride=8, padding=4)[0, 0, 12, 4:-4]
    assert torch.allclose(inside, torch.linspace(1 / 16, 3 - 1 / 16, 24))
