"""Multiply-accumulates (MACs) and parameters of networks, also under masks."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lightning_gancompress.pruning.channels import CONSUMERS, ChannelGroups, Product, with_always_kept
from lightning_gancompress.pruning.convolution import nothing_left_out
from lightning_gancompress.pruning.graph import flatten

Convention = Literal["exact", "literature"]


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer in one forward pass.

    Attributes:
        name: Name of the layer.
        kind: Name of its class.
        macs_exact: Multiplications that are computed: half of the FLOPs of `torch.utils.flop_counter`.
        macs_literature: The same with transposed convolutions counted at output resolution, as in papers of
            this field.
        params: Number of weights and biases.
        output_shape: Shape of its first output.
        products: MACs of each of its products, in both conventions.
    """

    name: str
    kind: str
    macs_exact: int
    macs_literature: int
    params: int
    output_shape: tuple[int, ...]
    products: tuple[tuple[int, int], ...] = ()


@torch.no_grad()
def layer_costs(network: nn.Module, inputs: Sequence[Tensor]) -> list[LayerCost]:
    """Cost of every module with parameters or products of its own, in the order in which their calls end.

    Counts convolutions, linear layers and matrix products, also those of attention, in layers and in
    functions; the products of a function count for the module whose forward calls it. What masks drop
    counts as well.

    Args:
        network: Any network; it runs once in eval mode, and its modes are restored.
        inputs: Example inputs, `(1, C, H, W)` each, on the network's device.
    """
    costs: dict[str, LayerCost] = {}
    counter = _Counter()
    handles = []

    def end(name: str, module: nn.Module, output: Any) -> None:
        products = (costs[name].products if name in costs else ()) + tuple(counter.end())
        params = sum(p.numel() for p in module.parameters(recurse=False))
        if params or products or isinstance(module, CONSUMERS):
            exact, literature = (sum(macs[n] for macs in products) for n in (0, 1))
            shape = next((tuple(x.shape) for x in flatten(output)), ())
            costs[name] = LayerCost(name, type(module).__name__, exact, literature, params, shape, products)

    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_: counter.begin()))
        handles.append(module.register_forward_hook(lambda m, a, o, name=name: end(name, m, o)))
    training = {m: m.training for m in network.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its products are not dispatched one by one
    try:
        # not in inference mode, where composite operators are not decomposed
        with torch.inference_mode(False), torch.no_grad(), nothing_left_out(), counter:
            network.eval()(*[x.clone() for x in inputs])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return list(costs.values())


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the multiplications of each module, without those of the modules that it calls."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._open: list[list[tuple[int, int]]] = []  # products of the modules whose forward is running

    def begin(self) -> None:
        """Start counting for a module."""
        self._open.append([])

    def end(self) -> list[tuple[int, int]]:
        """Stop counting for the last module; return the MACs of its products in both conventions."""
        return self._open.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None and self._open:
            exact = formula(*args, **(kwargs or {}), out_val=output) // 2
            literature = exact
            if func is torch.ops.aten.convolution.default and args[6]:  # transposed
                literature = exact // math.prod(args[0].shape[2:]) * math.prod(output.shape[2:])
            self._open[-1].append((exact, literature))
        return output


def count_macs(network: nn.Module, inputs: Sequence[Tensor], convention: Convention = "exact") -> int:
    """MACs of one forward pass in a convention; arguments as `layer_costs`."""
    return sum(getattr(cost, f"macs_{convention}") for cost in layer_costs(network, inputs))


def count_params(network: nn.Module) -> int:
    """Number of parameters: weights, biases and affine norm parameters."""
    return sum(p.numel() for p in network.parameters())


class MaskedCost:
    """MACs of a network as a differentiable function of its mask.

    The MACs of a product are kept inputs x kept outputs x (kernel x positions); all products together take
    two small matrix products.

    Not an `nn.Module`, so that no precision of the trainer casts its numbers.

    Attributes:
        full: MACs of the whole network.
    """

    def __init__(
        self, network: nn.Module, groups: ChannelGroups, inputs: Sequence[Tensor], convention: Convention
    ) -> None:
        costs = [cost for cost in layer_costs(network, inputs) if cost.macs_exact]
        self.full: int = sum(getattr(cost, f"macs_{convention}") for cost in costs)
        products = {cost.name: [p for p in groups.products if p.module == cost.name] for cost in costs}
        rows = [row for c in costs for row in _rows(c, products[c.name], convention, groups.total)]
        rows_in = torch.stack([torch.bincount(r, minlength=groups.total + 1) for r, _, _ in rows]).double()
        rows_out = torch.stack([torch.bincount(w, minlength=groups.total + 1) for _, w, _ in rows]).double()
        macs = torch.tensor([macs for _, _, macs in rows], dtype=torch.float64)
        scale = macs / (rows_in.sum(1) * rows_out.sum(1))
        self._tensors = {torch.device("cpu"): (rows_in, rows_out, scale)}

    def __call__(self, mask: Tensor) -> Tensor:
        """MACs under a `(total,)` mask, a scalar on its device.

        In double precision on the CPU, since float32 has too few digits to compare with a budget. In single
        precision elsewhere, for losses and logs, since Apple's GPUs have no other.
        """
        if mask.device not in self._tensors:
            exact = self._tensors[torch.device("cpu")]
            inputs, outputs, scale = (tensor.float().to(mask.device) for tensor in exact)
            self._tensors[mask.device] = inputs, outputs, scale
        inputs, outputs, scale = self._tensors[mask.device]
        whole = torch.cat([mask, mask.new_ones(1)]).to(scale)
        return ((inputs @ whole) * (outputs @ whole) * scale).sum()

    def narrowed(self, keep: Tensor) -> MaskedCost:
        """The cost of the network that `slim` makes with the mask `keep`; `full` stays as it is."""
        stays = with_always_kept(keep)
        inputs, outputs, scale = self._tensors[torch.device("cpu")]
        narrow = copy.copy(self)
        narrow._tensors = {torch.device("cpu"): (inputs[:, stays], outputs[:, stays], scale)}
        return narrow


def _rows(
    cost: LayerCost, products: Sequence[Product], convention: Convention, always: int
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Input positions, output positions and MACs of each product of a module."""
    macs, whole = getattr(cost, f"macs_{convention}"), torch.tensor([always])
    if not products:
        yield whole, whole, macs
    # the counted products; if the graph has other ones, the total is divided in the proportions of the graph
    macs_of = cost.products if len(cost.products) == len(products) else [p.macs for p in products]
    counts = [both[convention == "literature"] for both in macs_of]
    for product, count in zip(products, counts, strict=True):
        yield product.inputs, product.outputs, macs * count / sum(counts)
