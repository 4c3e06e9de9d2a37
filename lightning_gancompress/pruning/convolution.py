"""A convolution under a mask, which computes nothing for what the mask drops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

MULTIPLE = 16  # channels are computed in such numbers: odd ones are slow, most of all in 16 bits
WORTH = 0.6  # share of the channels above which taking them out costs more than it saves
LEAST_MACS = 8e9  # of a call on a GPU: an estimate of what its ten more kernels cost to launch, not measured
_counted: ContextVar[bool] = ContextVar("_counted", default=False)


class Kept(NamedTuple):
    """Which channels of a convolution take part.

    Attributes:
        inputs: Numbers of the input channels with a gate that is not zero, `(K,)`, and some whose gate is
            zero, such that K is a multiple of `MULTIPLE`; None for all.
        outputs: The same of the output channels that something reads; None for all.
    """

    inputs: Tensor | None
    outputs: Tensor | None

    @classmethod
    def of(cls, inputs: Tensor, outputs: Tensor) -> Kept:
        """From the gates `(C_in,)` and `(C_out,)`, on the CPU."""
        return cls(_numbers(inputs), _numbers(outputs))

    def to(self, device: torch.device) -> Kept:
        """The same on a device."""
        return Kept(*(numbers if numbers is None else numbers.to(device) for numbers in self))

    @property
    def all(self) -> bool:
        """Whether no channel is left out."""
        return self.inputs is None and self.outputs is None


def _numbers(gates: Tensor) -> Tensor | None:
    values = gates.tolist()
    order = sorted(range(len(values)), key=lambda number: values[number] == 0)  # open gates first
    count = max(-(-(len(values) - values.count(0.0)) // MULTIPLE), 1) * MULTIPLE
    return torch.tensor(sorted(order[:count])) if count <= WORTH * len(values) else None


def convolve(x: Tensor, gate: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d, kept: Kept) -> Tensor:
    """The layer's output for `x * gate`, and its gradients, at the cost of the channels that take part.

    Dropped input channels add nothing to the output, and dropped output channels, which every reader gates,
    get no gradient. All output channels are computed, since the gradient of a closed gate, by which an agent
    learns to open it, needs what the gate holds back.

    A hook on the layer sees its input before the gates; a loss on the output itself, and not on what a gated
    layer makes of it, gives dropped channels no gradient. Small networks don't have them either.

    Args:
        x: `(B, C_in, H, W)`.
        gate: `(C_in,)` in [0, 1]; gradients flow into it, also where it is 0.
        layer: A convolution with zero padding and without groups.
        kept: The channels that take part.
    """
    weight, bias = layer.weight, layer.bias
    if torch.is_autocast_enabled(x.device.type) and x.dtype is not torch.float64:  # which autocast lets be
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    options = [layer.stride, layer.padding, layer.dilation, layer.transposed, layer.output_padding, 1]
    output: Tensor = _Convolution.apply(x, gate, weight, bias, kept, options)
    return output


def is_plain(layer: nn.Module) -> TypeGuard[nn.Conv2d | nn.ConvTranspose2d]:
    """Whether `convolve` computes what the layer computes, as torch made it and nobody has changed since."""
    return (
        isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
        and type(layer) in (nn.Conv2d, nn.ConvTranspose2d)
        and not vars(layer).keys() & {"forward", "_conv_forward"}  # set on the instance, for other padding
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and all(
            isinstance(o, tuple) for o in (layer.stride, layer.padding, layer.dilation, layer.output_padding)
        )
    )


@contextmanager
def nothing_left_out() -> Iterator[None]:
    """Context in which masked convolutions compute all channels, since their products are counted."""
    token = _counted.set(True)
    try:
        yield
    finally:
        _counted.reset(token)


def pays(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    """Whether leaving channels out may pay in a call on `(B, C_in, H, W)`: on a GPU, if it is large."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if tracing or torch.compiler.is_compiling() or _counted.get():
        return False  # what is traced, or counted, has to be right for any mask
    if x.device.type == "cpu":
        return True
    positions = x.shape[0] * x.shape[2] * x.shape[3]
    if not layer.transposed:
        positions //= math.prod(layer.stride)
    return positions * layer.weight.numel() >= LEAST_MACS


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor | None, kept: Kept, options: list[Any]
    ) -> Tensor:
        ctx.kept, ctx.options = kept, options
        read = _gated(x, gate, kept.inputs)
        ctx.save_for_backward(x, gate, weight)
        return torch.convolution(read, _taken(weight, _axis(options), kept.inputs), bias, *options)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        x, gate, weight = ctx.saved_tensors
        # a gradient of zero may depend on a gate: gradients of gradients need all of them
        inputs, outputs = (None, None) if torch.is_grad_enabled() else ctx.kept
        of_x, of_gate, of_weight, of_bias = ctx.needs_input_grad[:4]
        axis = _axis(ctx.options)
        seen, filters = _taken(gradient, 1, outputs), _taken(weight, 1 - axis, outputs)
        x_gradient = gate_gradient = weight_gradient = bias_gradient = None
        if of_gate:
            through = _backward(seen, x, filters, ctx.options, 0)
            gate_gradient = (through * x).sum((0, 2, 3), dtype=gate.dtype)
            x_gradient = _gated(through, gate, None) if of_x else None
        elif of_x:
            read = _taken(x, 1, inputs)
            through = _backward(seen, read, _taken(filters, axis, inputs), ctx.options, 0)
            x_gradient = _put(_gated(through, _taken(gate, 0, inputs), None), x, 1, inputs)
        if of_weight:
            small = _taken(filters, axis, inputs)
            small = _backward(seen, _gated(x, gate, inputs), small, ctx.options, 1)
            weight_gradient = _put(_put(small, filters, axis, inputs), weight, 1 - axis, outputs)
        if of_bias:
            bias_gradient = gradient.sum((0, 2, 3))
        return x_gradient, gate_gradient, weight_gradient, bias_gradient, None, None


def _axis(options: list[Any]) -> int:
    """The axis of the filters for input channels."""
    return 0 if options[3] else 1


def _taken(tensor: Tensor, axis: int, numbers: Tensor | None) -> Tensor:
    if numbers is None:
        return tensor
    if _channels_last(tensor):  # as it lies in memory: three times as fast, and the result lies so too
        return tensor.movedim(1, 3).index_select(_moved(axis), numbers).movedim(3, 1)
    return tensor.index_select(axis, numbers)


def _gated(x: Tensor, gate: Tensor, numbers: Tensor | None) -> Tensor:
    return _taken(x, 1, numbers) * _taken(gate, 0, numbers).to(x.dtype).view(-1, 1, 1)


def _put(tensor: Tensor, like: Tensor, axis: int, numbers: Tensor | None) -> Tensor:
    """A tensor of the shape of `like` with these numbers along an axis, and zeros elsewhere."""
    if numbers is None:
        return tensor
    whole = torch.zeros_like(like, dtype=tensor.dtype)
    if _channels_last(whole):
        whole.movedim(1, 3).index_copy_(_moved(axis), numbers, tensor.movedim(1, 3))
        return whole
    return whole.index_copy_(axis, numbers, tensor)


def _channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def _moved(axis: int) -> int:
    """Where an axis is once the channels are the last."""
    return (0, 3, 1, 2)[axis]


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, options: list[Any], of: int) -> Tensor:
    """The gradient of a convolution's input (0) or of its filters (1)."""
    wanted = [of == 0, of == 1, False]
    result: Tensor = torch.ops.aten.convolution_backward(gradient, x, weight, None, *options, wanted)[of]
    return result
