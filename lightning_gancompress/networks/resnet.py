"""The ResNet generator of Johnson et al. 2016, as CycleGAN uses it."""

from typing import Annotated

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


class ResnetBlock(nn.Module):
    """Two reflection-padded 3x3 convolutions beside an identity, (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int, norm: Norm, dropout: bool) -> None:
        super().__init__()
        bias = has_bias(norm)
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            make_norm(norm, channels),
            nn.ReLU(),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            make_norm(norm, channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Add the output of the block's convolutions to `features`."""
        return features + self.conv_block(features)  # type: ignore[no-any-return]


class ResnetGenerator(Network):
    """Translates images at a quarter of their resolution: stem, two down, residual blocks, two up.

    (B, in_channels, H, W) -> (B, out_channels, H, W), both in [-1, 1]; H and W are multiples of 4,
    at least 8.
    The parameters have the names of pytorch-CycleGAN-and-pix2pix, so that its files load.

    Args:
        in_channels: Channels of the source image.
        out_channels: Channels of the translated image.
        ngf: Channels of the stem; the residual stream has four times as many.
        n_blocks: Residual blocks; 6 for images of 128 pixels and 9 for 256 are usual.
        norm: Instance norm without parameters or affine, batch norm, or none.
        dropout: Whether to drop half of the features within each residual block in training.
        init: Distribution of the initial weights.
        init_gain: Gain or standard deviation of that distribution.
    """

    size_multiple = 4

    def __init__(
        self,
        in_channels: Channels = 3,
        out_channels: Channels = 3,
        ngf: Width = 64,
        n_blocks: Annotated[int, Range(0, 1000)] = 9,
        norm: Norm = "instance",
        dropout: bool = False,
        init: Init = "normal",
        init_gain: Positive = 0.02,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        blocks: list[nn.Module] = [ResnetBlock(4 * ngf, norm, dropout) for _ in range(n_blocks)]
        self.model = resnet_layers(in_channels, out_channels, ngf, norm, blocks)
        init_weights(self, init, init_gain)

    def forward(self, source: Tensor) -> Tensor:
        """Translate `source` (B, C, H, W) in [-1, 1]."""
        if not is_scripting():  # TorchScript has no type for any module
            check_image(self, source, self.in_channels, smallest=8, multiple=self.size_multiple)
        return self.model(source)  # type: ignore[no-any-return]


def resnet_layers(
    in_channels: int, out_channels: int, ngf: int, norm: Norm, blocks: list[nn.Module]
) -> nn.Sequential:
    """Return stem, two layers down, the residual `blocks` of 4 x `ngf` channels, two up, output layer."""
    bias = has_bias(norm)
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(in_channels, ngf, 7, bias=bias)]
    layers += [make_norm(norm, ngf), nn.ReLU()]
    for width in (ngf, 2 * ngf):
        layers += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias)]
        layers += [make_norm(norm, 2 * width), nn.ReLU()]
    layers += blocks
    for width in (2 * ngf, ngf):
        layers += [nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1, bias=bias)]
        layers += [make_norm(norm, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, out_channels, 7), nn.Tanh())
