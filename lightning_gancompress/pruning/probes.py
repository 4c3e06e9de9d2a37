"""Probes: layers around a network that mark the channels of its images and outputs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils import skip_init

from lightning_gancompress.pruning.stand_ins import StandIn, Watch, channel_dim


class Probed(nn.Module):
    """The network between two layers of 1x1 convolutions.

    Whatever group reaches a probe holds channels of the image or of the output, which never change.

    Args:
        network: The network.
        name: What to call it in an error.
        inputs: Example inputs; those of whole numbers (labels, say) have no channels.
        outputs: What it makes of them.
        stand_ins: Those that its forward pass met.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        stand_ins: Sequence[StandIn],
    ) -> None:
        super().__init__()
        self.entries = nn.ModuleList(
            _probe(x, x.shape[channel_dim(x)]) if x.is_floating_point() else nn.Identity() for x in inputs
        )
        self.network = network
        self.exits = nn.ModuleList(_probe(y, 1) for y in outputs)
        self.layers = nn.ModuleList(standing.layer for standing in stand_ins)
        self.name, self.stand_ins = name, stand_ins

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs of the network, flattened and probed."""
        entered = [entry(x) for entry, x in zip(self.entries, inputs, strict=True)]
        with Watch(self.name, self.network, self.stand_ins) as watch:
            outputs = self.network(*watch.follow(entered))
        return [probe(y) for probe, y in zip(self.exits, flatten(outputs), strict=True)]


def _probe(x: Tensor, out_channels: int) -> nn.Module:
    """Pass channels on as they are; made without drawing from the random numbers of the run."""
    kind, kernel = (nn.Conv2d, (1,)) if x.ndim == 4 else (nn.Linear, ())
    probe: nn.Module = skip_init(kind, x.shape[channel_dim(x)], out_channels, *kernel, bias=False)  # type: ignore[no-untyped-call]
    nn.init.eye_(probe.get_parameter("weight").data.flatten(1))
    return probe


def flatten(outputs: object) -> list[Tensor]:
    """All feature maps in what a network returned, in order."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() and outputs.ndim else []
    if not isinstance(outputs, (list, tuple, dict)):
        return []
    return [
        x for value in (outputs.values() if isinstance(outputs, dict) else outputs) for x in flatten(value)
    ]
