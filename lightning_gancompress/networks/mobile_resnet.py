"""The ResNet generator with separable convolutions in its blocks, the usual teacher of GAN compression."""

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
from lightning_gancompress.networks.resnet import resnet_layers
from lightning_gancompress.options import Channels, Positive, Range, Width


class SeparableConv(nn.Module):
    """A depthwise 3x3 convolution, an instance norm, then a 1x1 convolution."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, groups=channels, bias=bias),
            nn.InstanceNorm2d(channels),  # as in GAN Compression, also if the other norms are batch norms
            nn.Conv2d(channels, channels, 1, bias=bias),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Filter `features` (B, C, H, W) without padding."""
        return self.conv(features)  # type: ignore[no-any-return]


class MobileResnetBlock(nn.Module):
    """Two reflection-padded separable convolutions beside an identity, (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int, norm: Norm, dropout: bool) -> None:
        super().__init__()
        bias = has_bias(norm)
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            SeparableConv(channels, bias),
            make_norm(norm, channels),
            nn.ReLU(),
            nn.Dropout(0.5 if dropout else 0.0),  # always present, so that names don't depend on the option
            nn.ReflectionPad2d(1),
            SeparableConv(channels, bias),
            make_norm(norm, channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Add the output of the block's convolutions to `features`."""
        return features + self.conv_block(features)  # type: ignore[no-any-return]


class MobileResnetGenerator(Network):
    """Translates images as `ResnetGenerator` does, with a sixth of its parameters and a quarter of its MACs.

    (B, in_channels, H, W) -> (B, out_channels, H, W), both in [-1, 1]; H and W are multiples of 4,
    at least 8.
    The parameters have the names of GAN Compression's `mobile_resnet_9blocks`, so that its files load.

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
        blocks: list[nn.Module] = [MobileResnetBlock(4 * ngf, norm, dropout) for _ in range(n_blocks)]
        self.model = resnet_layers(in_channels, out_channels, ngf, norm, blocks)
        init_weights(self, init, init_gain)

    def forward(self, source: Tensor) -> Tensor:
        """Translate `source` (B, C, H, W) in [-1, 1]."""
        if not is_scripting():  # TorchScript has no type for any module
            check_image(self, source, self.in_channels, smallest=8, multiple=self.size_multiple)
        return self.model(source)  # type: ignore[no-any-return]
