"""A network that this project did not write: fast style transfer as in PyTorch's examples."""

from torch import Tensor, nn


class ConvLayer(nn.Module):
    """A convolution that reflects the image at its border, after enlarging it if asked to."""

    def __init__(self, i: int, o: int, kernel: int, stride: int = 1, upsample: int = 1) -> None:
        super().__init__()
        self.enlarge = nn.Upsample(scale_factor=upsample, mode="nearest") if upsample > 1 else nn.Identity()
        self.reflection_pad = nn.ReflectionPad2d(kernel // 2)
        self.conv2d = nn.Conv2d(i, o, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2d(self.reflection_pad(self.enlarge(x)))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels, 3)
        self.in1 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = ConvLayer(channels, channels, 3)
        self.in2 = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.in2(self.conv2(self.in1(self.conv1(x)).relu()))


class TransformerNet(nn.Module):
    """(B, 3, H, W) in 0..255 -> the same, in the style that it was trained for."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        c = channels
        self.conv1, self.in1 = ConvLayer(3, c, 9), nn.InstanceNorm2d(c, affine=True)
        self.conv2, self.in2 = ConvLayer(c, 2 * c, 3, stride=2), nn.InstanceNorm2d(2 * c, affine=True)
        self.conv3, self.in3 = ConvLayer(2 * c, 4 * c, 3, stride=2), nn.InstanceNorm2d(4 * c, affine=True)
        self.res1, self.res2, self.res3 = ResidualBlock(4 * c), ResidualBlock(4 * c), ResidualBlock(4 * c)
        self.res4, self.res5 = ResidualBlock(4 * c), ResidualBlock(4 * c)
        self.deconv1, self.in4 = ConvLayer(4 * c, 2 * c, 3, upsample=2), nn.InstanceNorm2d(2 * c, affine=True)
        self.deconv2, self.in5 = ConvLayer(2 * c, c, 3, upsample=2), nn.InstanceNorm2d(c, affine=True)
        self.deconv3 = ConvLayer(c, 3, 9)

    def forward(self, x: Tensor) -> Tensor:
        h = self.in1(self.conv1(x)).relu()
        h = self.in2(self.conv2(h)).relu()
        h = self.in3(self.conv3(h)).relu()
        h = self.res5(self.res4(self.res3(self.res2(self.res1(h)))))
        h = self.in4(self.deconv1(h)).relu()
        h = self.in5(self.deconv2(h)).relu()
        return self.deconv3(h)
