"""The discriminators of Pix2Pix: of overlapping patches, and of single pixels."""

from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_gancompress.networks.init import Init, init_weights
from lightning_gancompress.networks.layers import (
    Network,
    Norm,
    check_image,
    has_bias,
    is_scripting,
    make_norm,
)
from lightning_gancompress.options import Channels, Positive, Range, Width

ONE_PASS = 2**17  # pixels, of eight images of 128: with more a CPU's caches are too small for one pass


class PatchDiscriminator(Network):
    """Classifies overlapping patches, (B, in_channels, H, W) -> logits (B, 1, h, w).

    With three layers a patch has 70x70 pixels.
    The parameters have the names of pytorch-CycleGAN-and-pix2pix, so that its files load.

    Args:
        in_channels: Channels of its input; for Pix2Pix, those of source and target together.
        ndf: Channels of the first layer; the deeper ones have up to eight times as many.
        n_layers: Layers that halve the resolution; each nearly doubles the patch.
        norm: Instance norm without parameters or affine, batch norm, or none.
        init: Distribution of the initial weights.
        init_gain: Gain or standard deviation of that distribution.
    """

    def __init__(
        self,
        in_channels: Channels = 6,
        ndf: Width = 64,
        n_layers: Annotated[int, Range(1, 12)] = 3,
        norm: Norm = "batch",
        init: Init = "normal",
        init_gain: Positive = 0.02,
    ) -> None:
        super().__init__()
        bias = has_bias(norm)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        widths = [ndf * min(2**level, 8) for level in range(n_layers + 1)]
        for level, (width, wider) in enumerate(pairwise(widths), start=1):
            stride = 2 if level < n_layers else 1
            layers += [nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=bias)]
            layers += [make_norm(norm, wider), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1)]
        self.in_channels = in_channels
        self.smallest = 3 * 2**n_layers  # the last two layers each reduce the map by one pixel
        self.model = nn.Sequential(*layers)
        init_weights(self, init, init_gain)

    def forward(self, image: Tensor) -> Tensor:
        """Return one logit per patch; a large one means real."""
        if not is_scripting():  # TorchScript has no type for any module
            check_image(self, image, self.in_channels, smallest=self.smallest)
        return self.model(image)  # type: ignore[no-any-return]

    def both(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of two calls, in one pass where that is faster: batch norms see a batch at a time."""
        small = first.is_cuda or first[:, 0].numel() + second[:, 0].numel() <= ONE_PASS
        if first.shape != second.shape or not small:
            return self(first), self(second)
        check_image(self, first, self.in_channels, smallest=self.smallest)
        x = torch.cat([first, second])
        for layer in self.model:
            alone = isinstance(layer, _BatchNorm) and layer.training
            x = torch.cat([layer(half) for half in x.chunk(2)]) if alone else layer(x)
        logits, others = x.chunk(2)
        return logits, others


class PixelDiscriminator(Network):
    """Classifies each pixel by its own values: (B, in_channels, H, W) -> logits (B, 1, H, W).

    The parameters have the names of pytorch-CycleGAN-and-pix2pix, so that its files load.

    Args:
        in_channels: Channels of its input; for Pix2Pix, those of source and target together.
        ndf: Channels of the first layer; the second has twice as many.
        norm: Instance norm without parameters or affine, batch norm, or none.
        init: Distribution of the initial weights.
        init_gain: Gain or standard deviation of that distribution.
    """

    def __init__(
        self,
        in_channels: Channels = 6,
        ndf: Width = 64,
        norm: Norm = "batch",
        init: Init = "normal",
        init_gain: Positive = 0.02,
    ) -> None:
        super().__init__()
        bias = has_bias(norm)
        self.in_channels = in_channels
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, ndf, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
            make_norm(norm, 2 * ndf),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ndf, 1, 1, bias=bias),
        )
        init_weights(self, init, init_gain)

    def forward(self, image: Tensor) -> Tensor:
        """Return one logit per pixel; a large one means real."""
        if not is_scripting():  # TorchScript has no type for any module
            check_image(self, image, self.in_channels)
        return self.net(image)  # type: ignore[no-any-return]
