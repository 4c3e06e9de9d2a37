"""Networks of a few layers, one for each way in which channels meet; and what tests do to networks."""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from known_groups import remembered
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.spectral_norm import SpectralNorm

from lightning_gancompress.networks import copy_network
from lightning_gancompress.pruning import ChannelGroups, find_groups

IMAGE = (1, 3, 16, 16)


class Net(nn.Module):
    """Layers by name and a forward that uses them."""

    def __init__(self, forward: Callable[..., Any], *inputs: tuple[int, ...], **layers: Any) -> None:
        super().__init__()
        self.inputs = inputs or (IMAGE,)
        self.run = forward
        for name, layer in layers.items():
            if isinstance(layer, Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def conv(i: int, o: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, kernel, padding=kernel // 2, **options)


class Fitted(nn.Module):
    """A network of `FITTING` by its name, as a recipe has it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.it = FITTING[name][0]()

    def forward(self, *inputs: Tensor) -> Any:
        return self.it(*inputs)


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Weights that keep signals alive; statistics and affine parameters unlike their defaults."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:
            tensor.normal_(generator=generator).div_(tensor[0].numel() ** 0.5)
        elif tensor.is_floating_point():
            low = 0.5 if name.endswith(("running_var", "weight")) else -0.5
            tensor.uniform_(low, low + 1, generator=generator)
    for module in network.modules():  # spectral norms estimate the largest singular value step by step
        if parametrize.is_parametrized(module):
            module.train()
            _ = [getattr(module, name) for name in module.parametrizations for _ in range(20)]
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                _ = [hook(module.train(), ()) for _ in range(20)]
    return network.eval()


@functools.cache
def read(name: str) -> ChannelGroups:
    """Groups of a network of `FITTING` or `KEPT`: they don't depend on its weights."""
    network = {**FITTING, **KEPT}[name][0]().eval()
    return remembered(f"small network {name}", lambda: find_groups(network, zeros(network)))


def random_mask(groups: ChannelGroups, seed: int) -> Tensor:
    """Between one channel and all of them in each group."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for size in groups.sizes:
        kept = int(torch.randint(1, size + 1, (), generator=generator))
        parts.append(torch.randperm(size, generator=generator) < kept)
    return torch.cat(parts).float()


def random_inputs(shapes: Any, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def zeros(network: nn.Module) -> list[Tensor]:
    """What the modules trace with: blank images."""
    return [torch.zeros(shape) for shape in network.inputs]


def _dense(n: Net, x: Tensor) -> Tensor:
    h = F.relu(n.norm(torch.cat([n.a(x), n.b(x)], 1)))
    return n.out(torch.cat([h, n.c(h)], 1))


def _crelu(n: Net, x: Tensor) -> Tensor:
    h = n.a(x)
    return n.out(torch.cat([h, -h], 1).relu())


def _halves_onto_whole(n: Net, x: Tensor) -> Tensor:
    h = n.a(x)
    return n.out(h + torch.cat([n.b(h), n.c(h)], 1))


def _crossed_halves(n: Net, x: Tensor) -> Tensor:
    a, b = n.a(x), n.b(x)
    return n.out(torch.cat([a, b], 1) + torch.cat([b, a], 1))


def _residual(n: Net, x: Tensor) -> Tensor:
    h = n.a(x)
    return n.out(h + n.norm(n.c(n.b(h).relu())))


def _recurrent(n: Net, x: Tensor) -> Tensor:
    h = n.a(x)
    for _ in range(3):
        h = n.norm(n.b(h)).relu()
    return n.out(h)


def _squeeze_excite(n: Net, x: Tensor) -> Tensor:
    h = n.a(x)
    weight = n.up(n.down(h.mean((2, 3))).relu()).sigmoid()
    return n.out(h * weight.view(len(x), -1, 1, 1))


def _cropped_skip(n: Net, x: Tensor) -> Tensor:
    h = n.a(x)
    return n.out(torch.cat([h[:, :, 1:-1, 1:-1], n.b(h)], 1))


def _many(n: Net, image: Tensor, other: Tensor) -> dict[str, Any]:
    h = n.a(image) + n.b(other)
    features = n.c(h)
    return {"image": n.out(features), "more": [n.head(h)], "features": features}


def _spade(n: Net, x: Tensor, segments: Tensor) -> Tensor:
    h = n.shared(segments).relu()
    return n.out(n.norm(n.a(x)) * (1 + n.gamma(h)) + n.beta(h))


def _attention_output(n: Net, x: Tensor) -> Tensor:
    h = n.a(x).relu()
    weight = n.mask(h).sigmoid()
    return n.out(h).tanh() * weight + x * (1 - weight)


def _aliased() -> Net:
    b = conv(6, 6)
    return Net(lambda n, x: n.out(n.c(n.b(n.a(x)).relu())), a=conv(3, 6), b=b, c=b, out=conv(6, 3))


def _tied() -> Net:
    net = Net(
        lambda n, x: n.out(n.c(n.b(n.a(x)).relu())), a=conv(3, 6), b=conv(6, 6), c=conv(6, 6), out=conv(6, 3)
    )
    net.c.weight = net.b.weight
    return net


def _chain(middle: Callable[[Net, Tensor], Tensor], width: int = 8, **layers: Any) -> Callable[[], Net]:
    """Three convolutions with something between the first two, which have eight channels and `width`."""

    def make() -> Net:
        net = Net(
            lambda n, x: n.out(n.b(middle(n, n.a(x))).relu()),
            a=conv(3, 8),
            b=conv(width, 6),
            out=conv(6, 3),
            **layers,
        )
        return copy_network(net)

    return make


def _glued(n: Net, h: Tensor) -> Tensor:
    u, v = h.chunk(2, 1)
    return u * v.sigmoid()


def _adain(n: Net, x: Tensor, style: Tensor) -> Tensor:
    scale, shift = n.style(style)[:, :, None, None].chunk(2, 1)
    return n.out(n.b(n.norm(n.a(x)) * scale + shift))


def _twice(n: Net, h: Tensor) -> Tensor:
    return n.norm(torch.cat([h, h], 1)).relu()


def _linked(n: Net, x: Tensor) -> Tensor:
    """A block of ResNeXt with group norms."""
    h = n.a(x)
    return n.out(h + n.c(n.inner(n.mid(n.norm(n.b(h)).relu())).relu()))


def _squeeze_excite_by_convolutions(n: Net, x: Tensor) -> Tensor:
    """A block of MobileNetV3 with its expansion."""
    h = n.a(x)
    wide = n.norm(n.depth(n.b(h)))
    return n.out(h + n.c(wide * n.up(F.relu(n.down(F.adaptive_avg_pool2d(wide, 1)))).sigmoid()))


def _attention_gate(n: Net, x: Tensor) -> Tensor:
    """Of a U-Net: one map of weights for all channels of the skip."""
    skip = n.a(x).relu()
    h = F.interpolate(n.b(skip), scale_factor=2, mode="bilinear")
    weight = n.psi(F.relu(n.theta(skip) + n.phi(h))).sigmoid()
    return n.out(torch.cat([skip * weight.expand_as(skip), h], 1))


def _noisy(n: Net, x: Tensor, noise: Tensor) -> Tensor:
    """A learned amount per channel of one map of noise."""
    return n.out(n.b(n.a(x) + n.amount * noise).relu())


def _dense_block(n: Net, x: Tensor) -> Tensor:
    h = n.a(x)
    for number in range(3):
        h = torch.cat([h, n.layers[number](h)], 1)
    return n.out(n.transition(h).relu())


def _dense_network() -> Net:
    layers = [nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), conv(i, 4)) for i in (6, 10, 14)]
    return Net(
        _dense_block, a=conv(3, 6), layers=nn.ModuleList(layers), transition=conv(18, 9, 1), out=conv(9, 3)
    )


class Scale(nn.Module):
    """A constant and a scale per channel in a module of the user's own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.register_buffer("shift", torch.ones(1, channels, 1, 1))

    def forward(self, h: Tensor) -> Tensor:
        return h * self.gamma.view(1, -1, 1, 1) + self.shift


class Blur(nn.Module):
    """A constant filter for each channel, which blurs before it halves the resolution."""

    def __init__(self, channels: int, alike: bool = True, persistent: bool = True) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        filters = (line[:, None] * line / 16).repeat(channels, 1, 1, 1)
        if not alike:
            filters *= torch.arange(1.0, channels + 1).view(-1, 1, 1, 1)
        self.register_buffer("filter", filters, persistent)

    def forward(self, h: Tensor) -> Tensor:
        return F.conv2d(F.pad(h, (1, 1, 1, 1), "reflect"), self.filter, stride=2, groups=h.shape[1])


def _old(norm: Callable[[nn.Module], nn.Module], layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return norm(layer)


def _attention(n: Net, x: Tensor) -> Any:
    h = n.a(x)
    q, k, v = n.q(h).flatten(2), n.k(h).flatten(2), n.v(h).flatten(2)
    return n.out(h + (v @ (q.transpose(1, 2) @ k).softmax(-1)).view_as(h))


def _non_local(n: Net, h: Tensor) -> Tensor:
    batch, channels, height, width = h.shape
    q, k, v = (layer(h).view(batch, -1, height * width) for layer in (n.q, n.k, n.v))
    attended = v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)
    return h + attended.view(batch, channels, height, width)


def _linear_attention(n: Net, h: Tensor) -> Tensor:
    q, k, v = (layer(h).flatten(2) for layer in (n.q, n.k, n.v))
    context = k.softmax(-1) @ v.transpose(1, 2)
    return h + (context.transpose(1, 2) @ q.softmax(1)).view_as(h)


def _frozen(n: Net, h: Tensor) -> Tensor:
    with torch.no_grad():
        return n.frozen(h)


def _auxiliary(n: Net, x: Tensor) -> Any:
    h = n.a(x)
    return (n.out(n.b(h)), n.aux(h)) if n.training else n.out(n.b(h))


def _in_place(n: Net, h: Tensor) -> Tensor:
    h = n.norm(h).relu_()
    h += n.c(h)
    h.mul_(0.5)
    return F.leaky_relu_(h, 0.2)


def _spade_network() -> Net:
    def run(n: Net, x: Tensor) -> Tensor:
        h = n.a(x)
        for norm, gamma, c in zip(n.norms, n.gammas, n.convs, strict=True):
            h = h + c(F.leaky_relu(norm(h) * (1 + gamma(x)), 0.2))
        return n.out(h).tanh()

    return Net(
        run,
        a=conv(3, 8),
        norms=nn.ModuleList(nn.BatchNorm2d(8, affine=False) for _ in range(8)),
        gammas=nn.ModuleList(conv(3, 8) for _ in range(8)),
        convs=nn.ModuleList(conv(8, 8) for _ in range(8)),
        out=conv(8, 3),
    )


def _curves(n: Net, h: Tensor) -> Tensor:
    """Tame in [-1, 1], and beyond all bounds on what is larger."""
    x, r = h.tanh(), n.r(h).tanh() / 4
    for _ in range(8):
        x = x + r * (x * x - x)
    return x


def _inception(n: Net, x: Tensor) -> Tensor:
    h = n.a(x)
    return n.out(torch.cat([F.relu(branch(h), inplace=True) for branch in n.branches], 1))


def _pyramid(n: Net, x: Tensor) -> Tensor:
    first = n.a(x).relu()
    second = n.b(first).relu()
    top = n.side[1](second)
    below = n.side[0](first) + F.interpolate(top, scale_factor=2)
    maps = [n.heads[0](below), F.interpolate(n.heads[1](top), scale_factor=2, mode="bilinear")]
    return n.out(F.interpolate(torch.cat(maps, 1), scale_factor=2))


def _pooled_pyramid(n: Net, h: Tensor) -> Tensor:
    pooled = [
        F.interpolate(p(F.adaptive_avg_pool2d(h, s)), size=h.shape[2:])
        for s, p in zip((1, 2), n.p, strict=True)
    ]
    return torch.cat([h, *pooled], 1)


def _nested_network() -> Net:
    """U-Net++ in small."""

    def run(n: Net, x: Tensor) -> Tensor:
        x00 = n.c00(x).relu()
        x10 = n.c10(F.max_pool2d(x00, 2)).relu()
        x20 = n.c20(F.max_pool2d(x10, 2)).relu()
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        x01 = n.c01(torch.cat([x00, up(x10)], 1)).relu()
        x11 = n.c11(torch.cat([x10, up(x20)], 1)).relu()
        return n.out(torch.cat([x00, x01, up(x11)], 1))

    return Net(
        run, c00=conv(3, 4), c10=conv(4, 6), c20=conv(6, 8), c01=conv(10, 5), c11=conv(14, 7), out=conv(16, 3)
    )


class Equalised(nn.Module):
    """A convolution with scaled weights, as a function."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(o, i, 3, 3)), nn.Parameter(torch.zeros(o))
        self.scale = (9 * i) ** -0.5

    def forward(self, h: Tensor) -> Tensor:
        return F.conv2d(h, self.weight * self.scale, self.bias, padding=1)


class Padding(nn.Conv2d):
    """Pads by itself."""

    def forward(self, h: Tensor) -> Tensor:
        return F.conv2d(F.pad(h, (1, 1, 1, 1)), self.weight, self.bias)


class Standardised(nn.Conv2d):
    """Subtracts the mean of every filter."""

    def forward(self, h: Tensor) -> Tensor:
        return F.conv2d(
            h, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias, padding=self.padding
        )


class Normalising(nn.Conv2d):
    """Divides by the norm over channels first."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(F.normalize(h, dim=1))


class Shifting(nn.Conv2d):
    """Adds one first: what was zero before is not zero any more."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h + 1)


class Adapted(nn.Conv2d):
    """Adds a second path, of low rank."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__(i, o, 1)
        self.down, self.up = nn.Conv2d(i, 4, 1), nn.Conv2d(4, o, 1)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) + self.up(self.down(h))


class Gated(nn.Conv2d):
    """Multiplies with a mean of what it reads."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) * h.mean((2, 3), keepdim=True)


def _fourier(n: Net, h: Tensor) -> Tensor:
    """Channels of real and imaginary parts, side by side in pairs."""
    spectrum = torch.fft.rfftn(h, dim=(-2, -1), norm="ortho")
    parts = torch.stack((spectrum.real, spectrum.imag), -1).permute(0, 1, 4, 2, 3).flatten(1, 2)
    parts = n.f(parts).relu().unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2).contiguous()
    filtered = torch.complex(parts[..., 0], parts[..., 1])
    return h + torch.fft.irfftn(filtered, s=h.shape[-2:], dim=(-2, -1), norm="ortho")


def _shuffled_pixels(n: Net, h: Tensor) -> Tensor:
    batch, channels, height, width = h.shape
    h = h.view(batch, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
    return h.reshape(batch, channels // 4, 2 * height, 2 * width)


def _split_attention(n: Net, h: Tensor) -> Tensor:
    parts = h.view(len(h), 2, h.shape[1] // 2, *h.shape[2:])
    weights = n.f(parts.sum(1).mean((2, 3))).view(len(h), 2, -1).softmax(1)
    return (parts * weights[..., None, None]).sum(1)


def _sliced(n: Net, x: Tensor) -> Tensor:
    h = n.a(x)
    half = h.shape[1] // 2
    return n.out(torch.cat([n.b(h[:, :half]), n.c(h[:, half:])], 1))


def _coordinates(n: Net, x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    rows = torch.linspace(-1, 1, height).view(1, 1, -1, 1).expand(batch, 1, height, width)
    columns = torch.linspace(-1, 1, width).view(1, 1, 1, -1).expand(batch, 1, height, width)
    return n.out(n.a(torch.cat([x, rows, columns], 1)).relu())


def _counting(n: Net, x: Tensor) -> Tensor:
    n.count += 1
    n.mean = 0.9 * n.mean + 0.1 * x.mean((0, 2, 3))
    return n.out(n.a(x - n.mean.view(1, -1, 1, 1)).relu())


def _shuffled_at_any_width(n: Net, h: Tensor) -> Tensor:
    batch, channels = h.shape[:2]
    return h.view(batch, 2, channels // 2, *h.shape[2:]).transpose(1, 2).reshape(h.shape)


def _shape_as_a_tensor(n: Net, h: Tensor) -> Tensor:
    return h.view(torch.tensor(h.shape).tolist())


def _initialised_once(n: Net, h: Tensor) -> Tensor:
    if bool((n.done == 0).all()):
        n.done.fill_(1)
    return h * n.scale


def _efficient_attention(n: Net, h: Tensor) -> Tensor:
    pooled = h.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2)
    return h * n.mix(pooled).transpose(-1, -2)[..., None].sigmoid()


@dataclasses.dataclass
class Sample:
    """What a network returns that returns more than an image."""

    image: Tensor


# name -> network; the sizes of its groups
FITTING: dict[str, tuple[Callable[[], Net], list[int]]] = {
    "concatenation": (
        lambda: Net(
            _dense, a=conv(3, 6), b=conv(3, 5), norm=nn.BatchNorm2d(11), c=conv(11, 7), out=conv(18, 3)
        ),
        [5, 6, 7],
    ),
    "concatenated with itself": (lambda: Net(_crelu, a=conv(3, 4), out=conv(8, 3)), [4]),
    "twice the same, apart": (_chain(_twice, 16, norm=nn.BatchNorm2d(16)), [6, 8]),
    "halves exchanged": (_chain(lambda n, h: torch.cat(h.chunk(2, 1)[::-1], 1)), [4, 6]),
    "halves onto the whole": (
        lambda: Net(_halves_onto_whole, a=conv(3, 8), b=conv(8, 5), c=conv(8, 3), out=conv(8, 3)),
        [3, 5],
    ),
    "crossed halves": (lambda: Net(_crossed_halves, a=conv(3, 4), b=conv(3, 4), out=conv(8, 3)), [4]),
    "image concatenated and added": (
        lambda: Net(
            lambda n, x: n.out(n.b(torch.cat([n.a(x), x], 1)).relu()) + x,
            a=conv(3, 6),
            b=conv(9, 7),
            out=conv(7, 3),
        ),
        [6, 7],
    ),
    "residual": (
        lambda: Net(
            _residual,
            a=conv(3, 6),
            b=conv(6, 9),
            c=conv(9, 6),
            norm=nn.InstanceNorm2d(6, affine=True),
            out=conv(6, 3),
        ),
        [6, 9],
    ),
    "depthwise": (
        lambda: Net(
            lambda n, x: n.out(n.point(n.norm(n.depth(n.a(x)))).relu()),
            a=conv(3, 6),
            depth=conv(6, 6, groups=6),
            norm=nn.BatchNorm2d(6),
            point=conv(6, 8, 1),
            out=conv(8, 3),
        ),
        [6, 8],
    ),
    "transposed": (
        lambda: Net(
            lambda n, x: n.out(n.up(n.norm(n.depth(n.a(x))).relu()).relu()),
            a=nn.ConvTranspose2d(3, 6, 3, 2, 1, 1),
            depth=nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=6),
            norm=nn.BatchNorm2d(6),
            up=nn.ConvTranspose2d(6, 8, 4, 2, 1, bias=False),
            out=conv(8, 3),
        ),
        [6, 8],
    ),
    "upsampling and padding": (
        lambda: Net(
            lambda n, x: n.out(
                n.b(F.interpolate(F.pad(n.a(x), (1, 1, 1, 1), "reflect"), scale_factor=2)).relu()
            ),
            a=conv(3, 8, stride=2),
            b=conv(8, 6, padding_mode="reflect"),
            out=conv(6, 3, padding_mode="circular"),
        ),
        [6, 8],
    ),
    "scalar activations": (
        lambda: Net(
            lambda n, x: n.out(n.act(n.a(x)) * n.scale),
            a=conv(3, 8),
            act=nn.PReLU(),
            scale=nn.Parameter(torch.ones(1)),
            out=conv(8, 3),
        ),
        [8],
    ),
    "cropped skip": (
        lambda: Net(_cropped_skip, a=conv(3, 8), b=nn.Conv2d(8, 8, 3), out=conv(16, 3)),
        [8, 8],
    ),
    "pooled linear head": (
        lambda: Net(
            lambda n, x: n.out(n.hidden(n.a(x).mean((2, 3))).relu()),
            a=conv(3, 8),
            hidden=nn.Linear(8, 6),
            out=nn.Linear(6, 2),
        ),
        [6, 8],
    ),
    "flattened linear head": (
        lambda: Net(
            lambda n, x: n.out(n.hidden(n.norm(n.a(x).flatten(1))).relu()),
            a=conv(3, 8, stride=4),
            norm=nn.BatchNorm1d(128),
            hidden=nn.Linear(128, 6),
            out=nn.Linear(6, 2),
        ),
        [6, 8],
    ),
    "linear over channels": (
        lambda: Net(
            lambda n, x: n.out(n.hidden(n.a(x).movedim(1, -1)).movedim(-1, 1)),
            a=conv(3, 8),
            hidden=nn.Linear(8, 6),
            out=conv(6, 3),
        ),
        [6, 8],
    ),
    "tokens": (
        lambda: Net(lambda n, x: n.out(n.a(x).relu()), (1, 5, 10), a=nn.Linear(10, 12), out=nn.Linear(12, 4)),
        [12],
    ),
    "squeeze and excitation": (
        lambda: Net(_squeeze_excite, a=conv(3, 8), down=nn.Linear(8, 4), up=nn.Linear(4, 8), out=conv(8, 3)),
        [4, 8],
    ),
    "several inputs and outputs": (
        lambda: Net(
            _many,
            IMAGE,
            (1, 2, 16, 16),
            a=conv(3, 6),
            b=conv(2, 6),
            c=conv(6, 4),
            out=conv(4, 3),
            head=conv(6, 1),
        ),
        [6],
    ),
    "spatially adaptive norm": (
        lambda: Net(
            _spade,
            IMAGE,
            (1, 4, 16, 16),
            a=conv(3, 8),
            shared=conv(4, 5),
            gamma=conv(5, 8),
            beta=conv(5, 8),
            norm=nn.InstanceNorm2d(8),
            out=conv(8, 3),
        ),
        [5, 8],
    ),
    "attention on the output": (
        lambda: Net(_attention_output, a=conv(3, 8), mask=conv(8, 1), out=conv(8, 3)),
        [8],
    ),
    "layer used three times": (
        lambda: Net(_recurrent, a=conv(3, 6), b=conv(6, 6), norm=nn.BatchNorm2d(6), out=conv(6, 3)),
        [6],
    ),
    "encoder shared by two inputs": (
        lambda: Net(
            lambda n, x, y: n.out(torch.cat([n.a(x), n.a(y)], 1)), IMAGE, IMAGE, a=conv(3, 6), out=conv(12, 3)
        ),
        [6],
    ),
    "layer under two names": (_aliased, [6]),
    "tied weights": (_tied, [6, 6, 6]),
    "group norm": (_chain(lambda n, h: n.norm(h), norm=nn.GroupNorm(4, 8)), [4, 6]),
    "groups and residuals": (
        lambda: Net(
            _linked,
            a=conv(3, 6),
            b=conv(6, 16, 1),
            norm=nn.GroupNorm(8, 16, affine=False),
            mid=conv(16, 16, groups=4),
            inner=nn.GroupNorm(2, 16),
            c=conv(16, 6, 1),
            out=conv(6, 3),
        ),
        [2, 6],
    ),
    "grouped convolution": (_chain(lambda n, h: n.mid(h), 12, mid=conv(8, 12, groups=4)), [4, 6]),
    "grouped transposed convolution": (
        _chain(lambda n, h: n.mid(h), 12, mid=nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=4)),
        [4, 6],
    ),
    "depthwise multiplier": (_chain(lambda n, h: n.mid(h), 16, mid=conv(8, 16, groups=8)), [6, 8]),
    "pixel shuffle": (_chain(lambda n, h: n.shuffle(h), 2, shuffle=nn.PixelShuffle(2)), [2, 6]),
    "functional pixel shuffle": (_chain(lambda n, h: F.pixel_shuffle(h, 2), 2), [2, 6]),
    "pixel unshuffle": (_chain(lambda n, h: n.shuffle(h), 32, shuffle=nn.PixelUnshuffle(2)), [6, 8]),
    "unshuffled image": (
        lambda: Net(
            lambda n, x: n.up(n.b(n.a(n.down(x)).relu())),
            down=nn.PixelUnshuffle(2),
            a=conv(12, 8),
            b=conv(8, 12),
            up=nn.PixelShuffle(2),
        ),
        [8],
    ),
    "channel shuffle": (_chain(lambda n, h: n.shuffle(h), shuffle=nn.ChannelShuffle(2)), [4, 6]),
    "activation per channel": (_chain(lambda n, h: n.act(h), act=nn.PReLU(8)), [6, 8]),
    "weight norm": (
        _chain(lambda n, h: n.mid(h), mid=parametrizations.weight_norm(conv(8, 8))),
        [6, 8, 8],
    ),
    "old weight norm": (
        _chain(lambda n, h: n.mid(h), mid=_old(nn.utils.weight_norm, conv(8, 8))),
        [6, 8, 8],
    ),
    "spectral norm": (
        _chain(lambda n, h: n.mid(h), mid=parametrizations.spectral_norm(conv(8, 8))),
        [6, 8, 8],
    ),
    "old spectral norm": (
        _chain(lambda n, h: n.mid(h), mid=nn.utils.spectral_norm(conv(8, 8))),
        [6, 8, 8],
    ),
    "parameter per channel": (
        _chain(lambda n, h: h * n.scale, scale=nn.Parameter(torch.ones(8, 1, 1))),
        [6, 8],
    ),
    "buffer per channel": (_chain(lambda n, h: h + n.bias, bias=torch.randn(1, 8, 1, 1)), [6, 8]),
    "module with tensors of its own": (_chain(lambda n, h: n.own(h), own=Scale(8)), [6, 8]),
    "filter per channel": (_chain(lambda n, h: n.blur(h), blur=Blur(8)), [6, 8]),
    "filters that differ": (_chain(lambda n, h: n.blur(h), blur=Blur(8, alike=False)), [6, 8]),
    "filter that is not saved": (_chain(lambda n, h: n.blur(h), blur=Blur(8, persistent=False)), [6, 8]),
    "filter used twice": (
        lambda: Net(
            lambda n, x: n.out(torch.cat([n.blur(n.a(x)), n.blur(n.b(x))], 1)),
            a=conv(3, 8),
            b=conv(3, 8),
            blur=Blur(8, alike=False),
            out=conv(16, 3),
        ),
        [8],
    ),
    "noise per channel": (
        lambda: Net(
            _noisy,
            IMAGE,
            (1, 1, 16, 16),
            a=conv(3, 8),
            amount=nn.Parameter(torch.ones(1, 8, 1, 1)),
            b=conv(8, 6),
            out=conv(6, 3),
        ),
        [6, 8],
    ),
    "gated halves": (_chain(_glued, 4), [4, 6]),
    "gated linear unit": (_chain(lambda n, h: F.glu(h, 1), 4), [4, 6]),
    "spatial attention": (_chain(lambda n, h: h * n.mid(h).sigmoid(), mid=conv(8, 1)), [6, 8]),
    "attention gate": (
        lambda: Net(
            _attention_gate,
            a=conv(3, 8),
            b=conv(8, 6, stride=2),
            theta=conv(8, 5, 1),
            phi=conv(6, 5, 1),
            psi=conv(5, 1, 1),
            out=conv(14, 3),
        ),
        [5, 6, 8],
    ),
    "squeeze and excitation by convolutions": (
        lambda: Net(
            _squeeze_excite_by_convolutions,
            a=conv(3, 6),
            b=conv(6, 12, 1),
            depth=conv(12, 12, groups=12),
            norm=nn.BatchNorm2d(12),
            down=conv(12, 4, 1),
            up=conv(4, 12, 1),
            c=conv(12, 6, 1),
            out=conv(6, 3),
        ),
        [4, 6, 12],
    ),
    "style by halves": (
        lambda: Net(
            _adain,
            IMAGE,
            (1, 10),
            a=conv(3, 8),
            norm=nn.InstanceNorm2d(8),
            style=nn.Linear(10, 16),
            b=conv(8, 6),
            out=conv(6, 3),
        ),
        [6, 8],
    ),
    "dense block": (_dense_network, [4, 4, 4, 6, 9]),
    "attention by convolutions": (
        lambda: Net(
            lambda n, x: n.out(n.b(_non_local(n, n.a(x))).relu()),
            a=conv(3, 8),
            q=conv(8, 4, 1),
            k=conv(8, 4, 1),
            v=conv(8, 8, 1),
            b=conv(8, 6),
            out=conv(6, 3),
        ),
        [6, 8],
    ),
    "self-attention": (
        lambda: Net(_attention, a=conv(3, 8), q=conv(8, 4), k=conv(8, 4), v=conv(8, 8), out=conv(8, 3)),
        [8],
    ),
    "linear attention": (_chain(_linear_attention, q=conv(8, 4), k=conv(8, 4), v=conv(8, 8)), [6, 8]),
    "reversed channels": (_chain(lambda n, h: h + h.flip(1)), [4, 6]),
    "repeated channels": (_chain(lambda n, h: h.repeat(1, 2, 1, 1), 16), [6, 8]),
    "detached": (_chain(lambda n, h: h + n.mid(h.detach()), mid=conv(8, 8)), [6, 8]),
    "under no_grad": (_chain(_frozen, frozen=conv(8, 8)), [6, 8, 8]),
    "linear over positions": (_chain(lambda n, h: n.mid(h), mid=nn.Linear(16, 16)), [6, 8]),
    "head for training only": (
        lambda: Net(_auxiliary, a=conv(3, 8), b=conv(8, 6), aux=conv(8, 2), out=conv(6, 3)),
        [6, 8],
    ),
    "leftover layers": (
        _chain(
            lambda n, h: h,
            left=nn.ModuleList(nn.Sequential(conv(8, 8), nn.BatchNorm2d(8)) for _ in range(45)),
        ),
        [6, 8],
    ),
    **{
        f"{kind} instance norm, {type(act).__name__} in place": (
            _chain(lambda n, h: n.act(n.norm(h)), norm=nn.InstanceNorm2d(8, **options), act=act),
            [6, 8],
        )
        for kind, options in (
            ("plain", {}),
            ("affine", {"affine": True}),
            ("tracking", {"track_running_stats": True}),
        )
        for act in (nn.ReLU(True), nn.LeakyReLU(0.2, True), nn.ELU(inplace=True), nn.SiLU(True))
    },
    "changed in place": (_chain(_in_place, norm=nn.InstanceNorm2d(8), c=conv(8, 8)), [6, 8]),
    "eight spatially adaptive blocks": (_spade_network, [8]),
    "PReLU before a concatenation": (
        _chain(lambda n, h: torch.cat([h, n.act(n.c(h))], 1), 13, c=conv(8, 5), act=nn.PReLU()),
        [5, 6, 8],
    ),
    "one PReLU for all widths": (
        lambda: Net(
            lambda n, x: n.out(n.act(n.c(n.act(n.b(n.act(n.a(x))))))),
            a=conv(3, 8),
            b=conv(8, 6),
            c=conv(6, 4),
            act=nn.PReLU(),
            out=conv(4, 3),
        ),
        [4, 6, 8],
    ),
    "curves": (_chain(_curves, 8, r=conv(8, 8)), [6, 8]),
    "inception": (
        lambda: Net(
            _inception,
            a=conv(3, 8),
            branches=nn.ModuleList(
                [conv(8, 4, 1), conv(8, 5), nn.Sequential(conv(8, 3, 1), nn.ReLU(True), conv(3, 6))]
            ),
            out=conv(15, 3),
        ),
        [3, 4, 5, 6, 8],
    ),
    "feature pyramid": (
        lambda: Net(
            _pyramid,
            a=conv(3, 6, stride=2),
            b=conv(6, 8, stride=2),
            side=nn.ModuleList([conv(6, 5, 1), conv(8, 5, 1)]),
            heads=nn.ModuleList([conv(5, 4), conv(5, 4)]),
            out=conv(8, 3),
        ),
        [4, 4, 5, 6, 8],
    ),
    "pyramid pooling": (
        _chain(_pooled_pyramid, 12, p=nn.ModuleList([conv(8, 2, 1), conv(8, 2, 1)])),
        [2, 2, 6, 8],
    ),
    "nested dense skips": (_nested_network, [4, 5, 6, 7, 8]),
    "functional convolutions": (
        lambda: Net(
            lambda n, x: n.out(n.b(n.a(x).relu()).relu()),
            a=Equalised(3, 8),
            b=Equalised(8, 6),
            out=Equalised(6, 3),
        ),
        [6, 8],
    ),
    "learned filter per channel": (
        _chain(
            lambda n, h: F.conv2d(h, n.k, padding=1, groups=h.shape[1]),
            k=nn.Parameter(torch.ones(8, 1, 3, 3)),
        ),
        [6, 8],
    ),
    "one filter for every channel": (
        _chain(
            lambda n, h: F.conv2d(h, n.k.expand(h.shape[1], 1, 3, 3), padding=1, groups=h.shape[1]),
            k=torch.ones(1, 1, 3, 3),
        ),
        [6, 8],
    ),
    "convolution with a padding of its own": (_chain(lambda n, h: n.mid(h), mid=Padding(8, 8, 3)), [6, 8, 8]),
    "convolutions that use their input otherwise as well": (
        _chain(
            lambda n, h: n.third(n.second(n.first(h))),
            first=Shifting(8, 8, 1),
            second=Adapted(8, 8),
            third=Gated(8, 8, 1),
        ),
        [4, 6, 8, 8, 8],
    ),
    "Fourier convolution": (_chain(_fourier, f=conv(16, 16, 1)), [6, 8]),
    "pixel shuffle by views": (_chain(_shuffled_pixels, 2), [2, 6]),
    "split attention": (_chain(_split_attention, 4, f=nn.Linear(4, 8)), [4, 6]),
    "unequal halves of a slice": (
        lambda: Net(_sliced, a=conv(3, 8), b=conv(4, 4), c=conv(4, 5), out=conv(9, 3)),
        [4, 4, 5],
    ),
    "map of positions": (_chain(lambda n, h: h + n.p, p=nn.Parameter(torch.randn(1, 1, 16, 16))), [6, 8]),
    "map per channel": (_chain(lambda n, h: h + n.p, p=nn.Parameter(torch.randn(1, 8, 16, 16))), [6, 8]),
    "coordinates": (lambda: Net(_coordinates, a=conv(5, 8), out=conv(8, 3)), [8]),
    "unshuffled image, output first": (
        lambda: Net(
            lambda n, x: n.out(n.a(F.pixel_unshuffle(x, 2)).relu()),
            out=nn.ConvTranspose2d(8, 3, 2, 2),
            a=conv(12, 8),
        ),
        [8],
    ),
    "image changed in place": (
        lambda: Net(lambda n, x: n.out(n.a(x.mul_(2)).relu()), a=conv(3, 8), out=conv(8, 3)),
        [8],
    ),
    "buffers changed": (
        lambda: Net(_counting, a=conv(3, 8), out=conv(8, 3), count=torch.zeros(1), mean=torch.zeros(3)),
        [8],
    ),
    "feature kept as an attribute": (
        lambda: Net(
            lambda n, x: (setattr(n, "h", n.a(x)), n.out(n.h.relu()))[1], a=conv(3, 8), out=conv(8, 3)
        ),
        [8],
    ),
    "shape as a tensor": (_chain(_shape_as_a_tensor), [6, 8]),
    "flag in a buffer": (
        _chain(_initialised_once, done=torch.zeros(1), scale=nn.Parameter(torch.ones(1, 8, 1, 1))),
        [6, 8],
    ),
    "dataclass of outputs": (
        lambda: Net(lambda n, x: Sample(n.out(n.a(x).relu())), a=conv(3, 8), out=conv(8, 3)),
        [8],
    ),
    "functional instance norm": (
        lambda: Net(lambda n, x: n.out(F.instance_norm(n.a(x)).relu()), a=conv(3, 8), out=conv(8, 3)),
        [8],
    ),
}


def _attending(n: Net, h: Tensor) -> Tensor:
    tokens = h.flatten(2).transpose(1, 2)
    return h + n.heads(tokens, tokens, tokens)[0].transpose(1, 2).reshape(h.shape)


def _split_by_four(n: Net, h: Tensor) -> Tensor:
    u, v = h.split(4, 1)
    return u * v


def _shuffled(n: Net, h: Tensor) -> Tensor:
    return h.view(len(h), 2, 4, *h.shape[2:]).transpose(1, 2).reshape(h.shape)


# name -> network; what stays whole, with words of the reason; the sizes of the groups that are left
KEPT: dict[str, tuple[Callable[[], Net], dict[str, str], dict[str, int]]] = {
    "layer norm": (
        _chain(lambda n, h: n.norm(h), norm=nn.LayerNorm([8, 16, 16])),
        {"a": "layer_norm mixes all channels in 'norm'"},
        {"b": 6},
    ),
    "local response norm": (
        _chain(lambda n, h: n.norm(h), norm=nn.LocalResponseNorm(3)),
        {"a": "avg_pool3d mixes channels in 'norm'"},
        {"b": 6},
    ),
    "embedding": (
        lambda: Net(
            lambda n, x: n.out(n.b(n.a(x) + n.word(n.label)[:, :, None, None]).relu()),
            a=conv(3, 8),
            word=nn.Embedding(4, 8),
            label=torch.tensor([2]),
            b=conv(8, 6),
            out=conv(6, 3),
        ),
        {"a": "embedding is not known to keep channels apart in 'word'"},
        {"b": 6},
    ),
    "attention heads": (
        _chain(_attending, heads=nn.MultiheadAttention(8, 2, batch_first=True)),
        {"a": "in 'heads'", "heads.out_proj": "in 'heads'"},
        {"b": 6},
    ),
    "constant offsets": (
        _chain(lambda n, h: h[:, :4] * h[:, 4:].sigmoid(), 4),
        {"a": "the forward fails without some .*size of tensor"},
        {"b": 6},
    ),
    "unequal parts": (
        _chain(lambda n, h: h.split([3, 5], 1)[1], 5),
        {"a": "split_with_sizes takes channels by fixed numbers"},
        {"b": 6},
    ),
    "parts by a constant size": (
        _chain(_split_by_four, 4),
        {"a": "the forward fails without some .*not enough values to unpack"},
        {"b": 6},
    ),
    "pixel norm": (
        _chain(lambda n, h: h * (h**2).mean(1, keepdim=True).rsqrt()),
        {"a": "mean mixes all channels"},
        {"b": 6},
    ),
    "filters that differ and are not saved": (
        _chain(lambda n, h: n.blur(h), blur=Blur(8, alike=False, persistent=False)),
        {"a": "'blur.filter' is not saved", "blur.filter": "'blur.filter' is not saved with the network"},
        {"b": 6},
    ),
    "mean over shuffled channels": (
        _chain(
            lambda n, h: h.mean(1, keepdim=True) * n.shuffle(h).mean(1, keepdim=True),
            1,
            shuffle=nn.ChannelShuffle(2),
        ),
        {"a": "mean mixes all channels"},
        {"b": 6},
    ),
    "convolution by a function": (
        _chain(lambda n, h: F.conv2d(h, n.mid.weight), mid=conv(8, 8)),
        {"a": "'mid' has a weight that is used without it"},
        {"b": 6, "mid": 8},
    ),
    "functional group norm": (
        _chain(lambda n, h: F.group_norm(h, 2)),
        {"a": "group_norm has a fixed number of groups"},
        {"b": 6},
    ),
    "softmax over channels": (
        _chain(lambda n, h: h.softmax(1)),
        {"a": "softmax mixes all channels"},
        {"b": 6},
    ),
    "mean over channels": (
        _chain(lambda n, h: h - h.mean(1, keepdim=True)),
        {"a": "mean mixes all channels"},
        {"b": 6},
    ),
    "shuffle by views": (
        _chain(_shuffled),
        {"a": "the forward fails without some .*shape .* is invalid"},
        {"b": 6},
    ),
    "shuffle by views of any width": (
        _chain(_shuffled_at_any_width),
        {"a": "how many there are, or on their order: 'b' gets something else"},
        {"b": 6},
    ),
    "group norm of one group": (
        _chain(lambda n, h: n.norm(h), norm=nn.GroupNorm(1, 8)),
        {"a": "can only go together: group_norm mixes channels in 'norm'"},
        {"b": 6},
    ),
    "filters that the forward computes": (
        _chain(lambda n, h: n.mid(h), mid=Standardised(8, 8, 3, padding=1)),
        {
            "a": "has filters that the forward computes in 'mid'",
            "mid": "has filters that the forward computes",
        },
        {"b": 6},
    ),
    "norm within a convolution": (
        _chain(lambda n, h: n.mid(h), mid=Normalising(8, 8, 1)),
        {"a": "linalg_vector_norm mixes all channels in 'mid'"},
        {"b": 6, "mid": 8},
    ),
    "attention over channels by a convolution": (
        _chain(_efficient_attention, mix=nn.Conv1d(1, 1, 3, padding=1)),
        {"a": "can only go together: conv1d reads them as one channel in 'mix'", "mix": "conv1d"},
        {"b": 6},
    ),
}
