"""DRN-D-105 with a segmentation head, by which most papers evaluate generated street photos."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4  # of a bottleneck
STRIDE = 8  # of the head's input


class DrnD105(nn.Module):
    """Dilated residual network D-105 (Yu, Koltun and Funkhouser 2017), `(B, 3, H, W)` -> log-probabilities.

    The names and shapes of its tensors are those of `drn-d-105_ms_cityscapes.pth` of fyu/drn. H and W must be
    multiples of 8; the output is `(B, classes, H, W)`.

    Args:
        classes: Number of classes, 19 for Cityscapes.
    """

    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.base = nn.Sequential(
            convolution(3, 16, kernel=7),
            convolution(16, 16),
            convolution(16, 32, stride=2),
            level(32, 64, 3, stride=2),
            level(256, 128, 4, stride=2),
            level(512, 256, 23, dilation=2),
            level(1024, 512, 3, dilation=4),
            convolution(2048, 512, dilation=2),
            convolution(512, 512),
        )
        self.seg = nn.Conv2d(512, classes, 1)
        self.up = nn.ConvTranspose2d(
            classes, classes, 2 * STRIDE, STRIDE, STRIDE // 2, groups=classes, bias=False
        )
        with torch.no_grad():
            self.up.weight.copy_(bilinear(2 * STRIDE).expand_as(self.up.weight))
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Log-probabilities at the size of the image."""
        scores: Tensor = self.up(self.seg(self.base(image)))
        return F.log_softmax(scores, dim=1)


class Bottleneck(nn.Module):
    """A residual block of three convolutions, the middle one with stride and dilation."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Add the output of the convolutions to the shortcut."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def level(inputs: int, width: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Bottlenecks of one width, the first with the stride."""
    rest = (Bottleneck(EXPANSION * width, width, 1, dilation) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride, dilation), *rest)


def convolution(
    inputs: int, outputs: int, stride: int = 1, dilation: int = 1, kernel: int = 3
) -> nn.Sequential:
    """Convolution, batch norm and ReLU."""
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def bilinear(kernel: int) -> Tensor:
    """Weights `(kernel, kernel)` of a transposed convolution of stride `kernel / 2` that interpolates."""
    half = kernel // 2
    line = 1 - (torch.arange(kernel) / half - (kernel - 1) / kernel).abs()
    return line[:, None] * line[None, :]
