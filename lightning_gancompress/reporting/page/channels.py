"""Numbers of channels per layer, of teacher and student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lightning_gancompress.reporting.page.run import Compression
from lightning_gancompress.tasks import Role, Side


class Layer(NamedTuple):
    """A convolution or linear layer: its name, a short label, output channels of student and teacher."""

    name: str
    label: str
    after: int
    before: int


@dataclass(frozen=True)
class KeptChannels:
    """The layers of one network, in their order."""

    role: Role
    layers: tuple[Layer, ...]

    @property
    def name(self) -> str:
        """Name of the network for people."""
        return f"{self.role.side} {self.role.direction_text}".rstrip()

    @property
    def widest(self) -> int:
        """Channels of the teacher's widest layer; the length of a full bar."""
        return max((layer.before for layer in self.layers), default=1)

    @property
    def share(self) -> float:
        """Channels of the student as a fraction of those of the teacher, in [0, 1]."""
        return sum(layer.after for layer in self.layers) / max(1, sum(layer.before for layer in self.layers))


def kept_channels(run: Compression) -> list[KeptChannels]:
    """The compressed generators, and the discriminators that have lost channels."""
    compressed = {generator.role for generator in run.generators}
    networks = [
        KeptChannels(role, kept(run.teachers[role], student))
        for role, student in run.students.items()
        if role in run.teachers and (role.side is Side.DISCRIMINATOR or role in compressed)
    ]
    return [network for network in networks if network.role in compressed or network.share < 1]


def finding(networks: list[KeptChannels]) -> str:
    """The share of kept channels of each network, as text."""
    shares = [f"{round(100 * network.share)} % of the {network.name}\u2019s" for network in networks]
    return " and ".join(shares) if len(shares) < 3 else ", ".join(shares)


def kept(teacher: nn.Module, student: nn.Module) -> tuple[Layer, ...]:
    """The layers that both networks have."""
    small = widths(student)
    return tuple(
        Layer(name, label(name, teacher.get_submodule(name)), small[name], before)
        for name, before in widths(teacher).items()
        if name in small
    )


def widths(network: nn.Module) -> dict[str, int]:
    """Output channels by layer."""
    return {
        name: layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features
        for name, layer in network.named_modules()
        if isinstance(layer, _ConvNd | nn.Linear)
    }


def label(name: str, layer: nn.Module) -> str:
    """A layer's name without `model`, and an arrow if it changes the resolution."""
    short = ".".join(part for part in name.split(".") if part != "model")
    if isinstance(layer, _ConvTransposeNd):
        return f"{short} ↑"
    return f"{short} ↓" if isinstance(layer, _ConvNd) and max(layer.stride) > 1 else short
