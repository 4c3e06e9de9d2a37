"""Mean IoU against label maps: palettes, confusion matrices, and segmentation networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gancompress.checkpoints.files import read_state_dict
from lightning_gancompress.data.pictures import to_uint8
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.metrics.fid import tensors_sha256

IGNORED = 255  # label of ignored pixels
Colours = Sequence[Sequence[int]]

# the evaluated classes of Cityscapes, in the order of their train ids
CITYSCAPES: Colours = (
    (128, 64, 128),  # road
    (244, 35, 232),  # sidewalk
    (70, 70, 70),  # building
    (102, 102, 156),  # wall
    (190, 153, 153),  # fence
    (153, 153, 153),  # pole
    (250, 170, 30),  # traffic light
    (220, 220, 0),  # traffic sign
    (107, 142, 35),  # vegetation
    (152, 251, 152),  # terrain
    (70, 130, 180),  # sky
    (220, 20, 60),  # person
    (255, 0, 0),  # rider
    (0, 0, 142),  # car
    (0, 0, 70),  # truck
    (0, 60, 100),  # bus
    (0, 80, 100),  # train
    (0, 0, 230),  # motorcycle
    (119, 11, 32),  # bicycle
)
# its other colours: unlabelled, dynamic, ground, parking, rail track, guard rail, bridge, tunnel, caravan,
# trailer; a group of poles has the colour of a pole, a licence plate that of a car
CITYSCAPES_IGNORED: Colours = (
    (0, 0, 0),
    (111, 74, 0),
    (81, 0, 81),
    (250, 170, 160),
    (230, 150, 140),
    (180, 165, 180),
    (150, 100, 100),
    (150, 120, 90),
    (0, 0, 90),
    (0, 0, 110),
)


def decode(images: Tensor, colours: Colours, ignored: Colours = ()) -> Tensor:
    """Class of the nearest colour, (B, 3, H, W) in [-1, 1] -> (B, H, W) int64.

    Noise of JPEG compression changes no class if it is below half the distance between colours.

    Args:
        images: Colour-coded label maps.
        colours: RGB of each class, 0..255.
        ignored: RGB of pixels that become 255.
    """
    table = torch.tensor([*colours, *ignored], dtype=torch.float32, device=images.device)
    pixels = (images.float() + 1) / 2 * 255
    # one colour at a time: a broadcast over all colours would need more memory
    nearest = torch.stack([(pixels - c.view(1, 3, 1, 1)).square().sum(1) for c in table]).argmin(0)
    return nearest.where(nearest < len(colours), IGNORED)


def confusion(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Numbers of pixels by class (row) and predicted class (column), (H, W) twice -> (classes, classes).

    Pixels with a label of `classes` or more, such as 255, are ignored.
    """
    counted = (labels >= 0) & (labels < classes)
    cells = labels[counted] * classes + predicted[counted]
    return torch.bincount(cells, minlength=classes**2).reshape(classes, classes)


def mean_iou(matrix: Tensor) -> float:
    """Intersection over union in [0, 1], mean over the classes that occur in labels or predictions."""
    hits = matrix.diagonal().double()
    return float((hits / (matrix.sum(0) + matrix.sum(1) - hits)).nanmean())


def pixel_accuracy(matrix: Tensor) -> float:
    """Share of correctly classified pixels, in [0, 1]."""
    return float(matrix.diagonal().sum().double() / matrix.sum())


def normalised(
    images: Tensor, mean: Sequence[float], std: Sequence[float], size: Sequence[int] | None = None
) -> Tensor:
    """Inputs of a segmentation network from images (B, 3, H, W) in [-1, 1], rounded to 8 bits first."""
    shift, scale = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (mean, std))
    pixels = (to_uint8(images).float() / 255 - shift) / scale
    if size is None:
        return pixels
    return F.interpolate(pixels, tuple(size), mode="bilinear", align_corners=False)


class Segmenter:
    """A frozen segmentation network with its preprocessing.

    Not an `nn.Module`, so that checkpoints of a module that holds it don't hold its weights.

    Args:
        network: Maps images `(B, 3, h, w)` to scores of classes `(B, C, h', w')`, alone, first in a tuple, or
            under `out` in a dictionary. Only the first `classes` scores are used.
        classes: Number of classes.
        mean: Channel means of its inputs, of pixels in [0, 1].
        std: Channel standard deviations of the same.
        input_size: Height and width, in pixels, to which images are resized first; None keeps them.
        device: Device of the network.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network = network.eval().requires_grad_(False).to(device)
        self.classes, self.device = classes, torch.device(device)
        self.mean, self.std, self.input_size = mean, std, input_size
        self.weights_sha256 = tensors_sha256(network)[:12]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Log-probabilities (B, classes, h', w') of images (B, 3, H, W) in [-1, 1]."""
        pixels = normalised(images.to(self.device), self.mean, self.std, self.input_size)
        scores = first_output(self.network(pixels)).float()
        if scores.shape[1] < self.classes:
            raise UserError(
                f"The segmentation network {type(self.network).__name__} knows {scores.shape[1]} classes, "
                f"and the palette has {self.classes}: give a network and a palette of the same classes."
            )
        return F.log_softmax(scores[:, : self.classes], dim=1)

    def confusions(self, images: Tensor, labels: Iterable[Tensor]) -> Tensor:
        """Confusion matrix of each image, (B, 3, H, W) in [-1, 1] and labels (h, w) -> (B, classes, classes).

        The log-probabilities are resized to the labels, not the labels to them.
        """
        matrices = []
        for scores, label in zip(self(images), labels, strict=True):
            # one image at a time: at the size of a Cityscapes photo one needs 160 MB
            resized = F.interpolate(scores[None], label.shape, mode="bilinear", align_corners=False)
            matrices.append(confusion(label.to(self.device), resized[0].argmax(0), self.classes))
        return torch.stack(matrices).cpu()


def first_output(outputs: Any) -> Tensor:
    """The scores in the output of a segmentation network."""
    if isinstance(outputs, Mapping):
        outputs = outputs["out"]
    if isinstance(outputs, (tuple, list)):
        outputs = outputs[0]
    scores: Tensor = outputs
    return scores


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a network from a file: a state dict, also under `state_dict` or with the prefix `module.`.

    Raises:
        UserError: The file can't be read, or is of another network.
    """
    state = read_state_dict(user_path(path))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()[:200]
        raise UserError(
            f"weights: {path} does not fit {type(network).__name__} ({reason}): give the file of this "
            "network, or the network of this file."
        ) from error


class SmallUnet(nn.Module):
    """A small U-Net for segmentation, starting at half resolution.

    Args:
        classes: Number of classes.
        width: Channels of the first level, doubled in each of the next three.
    """

    def __init__(self, classes: int, width: int = 24) -> None:
        super().__init__()
        widths = [width * 2**n for n in range(4)]
        inputs = [3, *widths[:-1]]
        self.down = nn.ModuleList(
            nn.Sequential(block(a, b, 2), block(b, b)) for a, b in zip(inputs, widths, strict=True)
        )
        self.up = nn.ModuleList(block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores (B, classes, H, W) of an image (B, 3, H, W)."""
        x, skips = image, []
        for down in self.down:
            x = down(x)
            skips.append(x)
        for up, skip in zip(self.up, skips[-2::-1], strict=True):
            x = F.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([x, skip], dim=1))
        scores: Tensor = self.head(x)
        return F.interpolate(scores, image.shape[2:], mode="bilinear", align_corners=False)


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())
