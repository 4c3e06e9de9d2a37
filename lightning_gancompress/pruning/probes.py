"""Probes: layers around a network that mark the channels of its images and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init


class Probed(nn.Module):
    """The network between two layers of 1x1 convolutions.

    Whatever group reaches a probe holds channels of the image or of the output, which never change.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.entries = nn.ModuleList(_probe(x.shape, _channels(x.shape)) for x in inputs)
        self.network = network
        self.exits = nn.ModuleList(_probe(y.shape, 1) for y in outputs)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs of the network, flattened and probed."""
        outputs = self.network(*(entry(x) for entry, x in zip(self.entries, inputs, strict=True)))
        return [probe(y) for probe, y in zip(self.exits, flatten(outputs), strict=True)]


def _probe(shape: torch.Size, out_channels: int) -> nn.Module:
    """Pass channels on as they are; made without drawing from the random numbers of the run."""
    kind, kernel = (nn.Conv2d, (1,)) if len(shape) == 4 else (nn.Linear, ())
    probe: nn.Module = skip_init(kind, _channels(shape), out_channels, *kernel, bias=False)  # type: ignore[no-untyped-call]
    nn.init.eye_(probe.get_parameter("weight").data.flatten(1))
    return probe


def _channels(shape: torch.Size) -> int:
    return shape[1] if len(shape) == 4 else shape[-1]


def flatten(outputs: object) -> list[Tensor]:
    """All tensors in what a network returned, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values for tensor in flatten(value)]  # type: ignore[attr-defined]
