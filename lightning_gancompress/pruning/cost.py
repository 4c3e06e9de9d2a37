"""Cost: multiply-accumulates (MACs) and parameters, of a network as it is or under masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lightning_gancompress.pruning.channels import ChannelGroups, LayerChannels, is_grouped
from lightning_gancompress.pruning.probes import flatten

Convention = Literal["exact", "literature"]


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs for one forward pass.

    Attributes:
        macs_exact: Multiplications actually done: half of what `torch.utils.flop_counter` counts.
        macs_literature: Transposed convolutions counted at output resolution, as papers of this field do.
        params: Weights and biases.
    """

    name: str
    kind: str
    macs_exact: int
    macs_literature: int
    params: int
    output_shape: tuple[int, ...]


@torch.no_grad()
def layer_costs(network: nn.Module, inputs: Sequence[Tensor]) -> list[LayerCost]:
    """Cost of every layer that owns parameters, in order of first use.

    Convolutions and linear layers count; products of feature maps and functions called outside layers don't.

    Args:
        network: Any network; it runs once, in eval mode, and is left in the mode it was in.
        inputs: Example inputs, `(1, C, H, W)` each, on the network's device.
    """
    costs: dict[str, LayerCost] = {}
    handles = []

    def record(name: str, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        previous = costs.get(name)
        exact, literature = _macs(layer, args, output)
        costs[name] = LayerCost(
            name,
            type(layer).__name__,
            exact + (previous.macs_exact if previous else 0),
            literature + (previous.macs_literature if previous else 0),
            sum(p.numel() for p in layer.parameters(recurse=False)),
            tuple(flatten(output)[0].shape),
        )

    for name, layer in network.named_modules():
        if isinstance(layer, (_ConvNd, nn.Linear)) or any(True for _ in layer.parameters(recurse=False)):
            handles.append(layer.register_forward_hook(lambda m, a, o, name=name: record(name, m, a, o)))
    training = {m: m.training for m in network.modules()}
    try:
        network.eval()(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return list(costs.values())


def _macs(layer: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        macs = y.numel() * layer.in_features
        return macs, macs
    if not isinstance(layer, _ConvNd):
        return 0, 0
    kernel = layer.weight.numel()
    at_output = kernel * (y.numel() // y.shape[1])
    if isinstance(layer, _ConvTransposeNd):
        return kernel * (args[0].numel() // args[0].shape[1]), at_output
    return at_output, at_output


def count_macs(network: nn.Module, inputs: Sequence[Tensor], convention: Convention = "exact") -> int:
    """MACs of one forward pass in the given convention."""
    return sum(getattr(cost, f"macs_{convention}") for cost in layer_costs(network, inputs))


def count_params(network: nn.Module) -> int:
    """Weights, biases and affine norm parameters."""
    return sum(p.numel() for p in network.parameters())


class MaskedCost(nn.Module):
    """MACs of a network as a differentiable function of its mask.

    For each layer: kept inputs x kept outputs x (kernel x positions), so two small matrix products in all.

    Attributes:
        full: MACs of the whole network.
    """

    inputs: Tensor
    outputs: Tensor
    scale: Tensor

    def __init__(
        self, network: nn.Module, groups: ChannelGroups, inputs: Sequence[Tensor], convention: Convention
    ) -> None:
        super().__init__()
        costs = [cost for cost in layer_costs(network, inputs) if cost.macs_exact]
        self.full: int = sum(getattr(cost, f"macs_{convention}") for cost in costs)
        rows_in = torch.zeros(len(costs), groups.total + 1, dtype=torch.float64)
        rows_out = torch.zeros_like(rows_in)
        scale = torch.zeros(len(costs), dtype=torch.float64)
        for row, cost in enumerate(costs):
            layer = network.get_submodule(cost.name)
            one = torch.tensor([groups.total])
            known = groups.layers.get(cost.name, LayerChannels(one, one))  # any other kind is always whole
            # a filter of a grouped convolution reads the inputs of its group, whatever else is kept
            inputs_read = one if is_grouped(layer) else known.inputs
            rows_in[row] += torch.bincount(inputs_read, minlength=groups.total + 1)
            rows_out[row] += torch.bincount(known.outputs, minlength=groups.total + 1)
            scale[row] = getattr(cost, f"macs_{convention}") / (rows_in[row].sum() * rows_out[row].sum())
        self.register_buffer("inputs", rows_in, persistent=False)
        self.register_buffer("outputs", rows_out, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, mask: Tensor) -> Tensor:
        """MACs under a `(total,)` mask, in double precision: MACs need more digits than float32 has."""
        whole = torch.cat([mask, mask.new_ones(1)]).to(self.scale)
        macs: Tensor = ((self.inputs @ whole) * (self.outputs @ whole) * self.scale).sum()
        return macs
