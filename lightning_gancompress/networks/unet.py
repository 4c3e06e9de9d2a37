"""The U-Net generator of Pix2Pix (Isola et al. 2017)."""

from typing import Annotated

import torch
from torch import Tensor, nn

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


class UnetBlock(nn.Module):
    """One level: halve the resolution, apply the level `within`, double it, and concatenate with the input.

    (B, outer, H, W) -> (B, 2 * outer, H, W). The outermost level, `OuterUnetBlock`, has no such skip.
    """

    def __init__(
        self, outer: int, inner: int, within: nn.Module | None, norm: Norm, dropout: bool = False
    ) -> None:
        super().__init__()
        bias = has_bias(norm)
        down: list[nn.Module] = [
            nn.LeakyReLU(0.2),
            nn.Conv2d(outer, inner, 4, stride=2, padding=1, bias=bias),
        ]
        if within is not None:  # the innermost level may have a single pixel, too few for a norm
            down += [make_norm(norm, inner), within]
        wide = inner if within is None else 2 * inner
        up = [
            nn.ReLU(),
            nn.ConvTranspose2d(wide, outer, 4, stride=2, padding=1, bias=bias),
            make_norm(norm, outer),
        ]
        self.model = nn.Sequential(*down, *up, *([nn.Dropout(0.5)] if dropout else []))

    def forward(self, features: Tensor) -> Tensor:
        """Return `features` and the output of the levels below, concatenated along channels."""
        return torch.cat([features, self.model(features)], 1)


class OuterUnetBlock(nn.Module):
    """The outermost level: (B, in_channels, H, W) -> (B, out_channels, H, W) in [-1, 1]."""

    def __init__(
        self, in_channels: int, out_channels: int, inner: int, within: nn.Module, norm: Norm
    ) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(in_channels, inner, 4, stride=2, padding=1, bias=has_bias(norm)),
            within,
            nn.ReLU(),
            nn.ConvTranspose2d(2 * inner, out_channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, source: Tensor) -> Tensor:
        """Translate `source`."""
        return self.model(source)  # type: ignore[no-any-return]


class UnetGenerator(Network):
    """Translates images through `n_downs` halvings down to a few pixels, with a skip at every resolution.

    (B, in_channels, H, W) -> (B, out_channels, H, W), both in [-1, 1]; H and W are multiples of 2**n_downs.
    The parameters have the names of pytorch-CycleGAN-and-pix2pix, so that its files load.

    Args:
        in_channels: Channels of the source image.
        out_channels: Channels of the translated image.
        ngf: Channels of the outermost level; the inner ones have up to eight times as many.
        n_downs: Halvings: 6 for images of 64 pixels, 7 for 128, 8 for 256, 9 for 512.
        norm: Instance norm without parameters or affine, batch norm, or none.
        dropout: Whether to drop half of the features in the innermost levels (all but five) in training.
        init: Distribution of the initial weights.
        init_gain: Gain or standard deviation of that distribution.
    """

    def __init__(
        self,
        in_channels: Channels = 3,
        out_channels: Channels = 3,
        ngf: Width = 64,
        n_downs: Annotated[int, Range(5, 16)] = 8,
        norm: Norm = "batch",
        dropout: bool = True,
        init: Init = "normal",
        init_gain: Positive = 0.02,
    ) -> None:
        super().__init__()
        block = UnetBlock(8 * ngf, 8 * ngf, None, norm)
        for _ in range(n_downs - 5):
            block = UnetBlock(8 * ngf, 8 * ngf, block, norm, dropout)
        for width in (4 * ngf, 2 * ngf, ngf):
            block = UnetBlock(width, 2 * width, block, norm)
        self.in_channels = in_channels
        self.size_multiple = 2**n_downs
        self.model = OuterUnetBlock(in_channels, out_channels, ngf, block, norm)
        init_weights(self, init, init_gain)

    def forward(self, source: Tensor) -> Tensor:
        """Translate `source` (B, C, H, W) in [-1, 1]."""
        if not is_scripting():  # TorchScript has no type for any module
            check_image(self, source, self.in_channels, multiple=self.size_multiple)
        return self.model(source)  # type: ignore[no-any-return]
