"""Stand-ins: layers in the place of functions that move channels about, while a network is traced."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.overrides import TorchFunctionMode

from lightning_gancompress.errors import UserError
from lightning_gancompress.pruning.channels import can_be_cut

_READS = {
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "item",
    "tolist",
    "equal",
    "allclose",
    "is_nonzero",
}
_ARITHMETIC = {"add", "sub", "mul", "div", "true_divide", "rsub", "maximum", "minimum", "pow", "where"}


@dataclass(frozen=True)
class StandIn:
    """A layer that the dependency graph understands, and which of its channels go together.

    Attributes:
        name: The function it stands for.
        layer: A convolution or linear layer with random values and the right shapes.
        inputs: A number for each input channel; channels of the same number, on either side, are kept or
            dropped together, and those of number -1 are kept.
        outputs: Likewise for the output channels.
        tensor: Parameter or buffer of the network that has these channels in its first dimension, if any.
    """

    name: str
    layer: nn.Module
    inputs: list[int]
    outputs: list[int]
    tensor: str | None = None


class Watch(TorchFunctionMode):
    """Follows what is computed from a network's inputs, puts in stand-ins, and refuses conditions on values.

    Args:
        name: What to call the network in an error.
        network: The network.
        stand_ins: Those of an earlier forward pass, to be used again in the same order; None makes them.
    """

    def __init__(self, name: str, network: nn.Module, stand_ins: Iterable[StandIn] | None = None) -> None:
        super().__init__()
        self.name = name
        self.tensors = {
            tensor: f"{prefix}.{name}".lstrip(".")
            for prefix, module in network.named_modules()
            if not type(module).__module__.startswith("torch.")
            for name, tensor in (*module._parameters.items(), *module._buffers.items())
            if tensor is not None and tensor.ndim and can_be_cut(module, name)
        }
        self.made: list[StandIn] = []
        self._again = None if stand_ins is None else iter(stand_ins)

    def follow(self, value: Any) -> Any:
        """Mark the tensors in `value` as computed from the inputs."""
        for tensor in _tensors(value):
            tensor._followed = True  # type: ignore[attr-defined]
        return value

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(hasattr(tensor, "_followed") for tensor in _tensors((args, kwargs))):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _READS:
            raise UserError(
                f"{self.name} looks at the values of its features ({_place()}), so that what it computes "
                "may differ from image to image, and pruning can't follow that. Write its forward without "
                "conditions on values or conversions to Python numbers; torch.where is a remedy for many."
            )
        plain = name.strip("_")
        if plain in _RULES and _binds(_RULES[plain], self, *args, **kwargs):
            output = _RULES[plain](self, *args, **kwargs)
            if output is not None:
                return self.follow(output)
        elif plain.removeprefix("r").removeprefix("i") in _ARITHMETIC or plain in _ARITHMETIC:
            args = self._broadcast(args)
        output = self.follow(func(*args, **kwargs))
        if name.startswith("expand") and isinstance(output, Tensor):
            output = self._expanded(args[0], output)
        return output

    def stand_in(
        self,
        name: str,
        x: Tensor,
        inputs: list[int],
        outputs: list[int],
        make: Callable[..., nn.Module] = nn.Conv2d,
        stride: int = 1,
        tensor: str | None = None,
    ) -> Tensor:
        """Run `x` through the layer for one call of the function `name`; see `StandIn`."""
        if self._again is not None:
            standing = next(self._again)
        else:
            options: dict[str, int] = {"kernel_size": stride, "stride": stride}
            if tensor is not None:
                options["groups"] = len(inputs)
            if x.ndim != 4:
                make, options = nn.Linear, {}
            layer = skip_init(make, len(inputs), len(outputs), bias=False, **options)  # type: ignore[no-untyped-call]
            nn.init.constant_(layer.weight, 1 / len(inputs))
            standing = StandIn(name, layer, inputs, outputs, tensor)
        self.made.append(standing)
        return self.follow(standing.layer(x))  # type: ignore[no-any-return]

    def _broadcast(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """A single channel that meets many is none of theirs: give it it as many that are its own."""
        tensors = [x for x in args if isinstance(x, Tensor)]
        shape = torch.broadcast_shapes(*(x.shape for x in tensors))  # type: ignore[no-untyped-call]
        return tuple(self._widened(x, shape) if isinstance(x, Tensor) else x for x in args)

    def _expanded(self, x: Tensor, output: Tensor) -> Tensor:
        wide = self._widened(x, output.shape)
        return output if wide is x else self.follow(wide.expand(output.shape))  # type: ignore[no-any-return]

    def _widened(self, x: Tensor, shape: torch.Size) -> Tensor:
        if x.ndim != len(shape) or x.ndim < 2 or not hasattr(x, "_followed"):
            return x
        dim = channel_dim(x)
        if x.shape[dim] != 1 or shape[dim] == 1:
            return x
        return self.stand_in("broadcast", x, [-1], list(range(shape[dim])))


def channel_dim(x: Tensor) -> int:
    """Where the channels of images are, or of vectors and tokens."""
    return 1 if x.ndim == 4 else x.ndim - 1


def _chunk(watch: Watch, x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...] | None:
    """Equal parts stay equal when each loses the same channels."""
    if dim % x.ndim != channel_dim(x) or x.shape[dim] % chunks or chunks == 1:
        return None
    size = x.shape[dim] // chunks
    part = watch.stand_in("chunk", x, [c % size for c in range(x.shape[dim])], list(range(size)))
    return (part,) * chunks


def _split(
    watch: Watch, x: Tensor, split_size_or_sections: int | list[int], dim: int = 0
) -> tuple[Tensor, ...] | None:
    sizes = split_size_or_sections
    if not isinstance(sizes, int):
        if len(set(sizes)) > 1:
            return None
        sizes = sizes[0]
    return _chunk(watch, x, x.shape[dim] // sizes, dim) if x.shape[dim] % sizes == 0 else None


def _glu(watch: Watch, input: Tensor, dim: int = -1) -> Tensor | None:
    parts = _chunk(watch, input, 2, dim)
    return None if parts is None else parts[0] * parts[1].sigmoid()


def _pixel_shuffle(watch: Watch, input: Tensor, upscale_factor: int) -> Tensor | None:
    if input.ndim != 4:
        return None
    channels, area = input.shape[1], upscale_factor**2
    inputs, outputs = [c // area for c in range(channels)], list(range(channels // area))
    return watch.stand_in("pixel_shuffle", input, inputs, outputs, nn.ConvTranspose2d, upscale_factor)


def _pixel_unshuffle(watch: Watch, input: Tensor, downscale_factor: int) -> Tensor | None:
    if input.ndim != 4:
        return None
    channels, area = input.shape[1], downscale_factor**2
    outputs = [c // area for c in range(channels * area)]
    return watch.stand_in("pixel_unshuffle", input, list(range(channels)), outputs, stride=downscale_factor)


def _channel_shuffle(watch: Watch, input: Tensor, groups: int) -> Tensor | None:
    """Every group must lose the same channels, or the same number would not be the same order."""
    channels = range(input.shape[1])
    inputs, outputs = [c % (len(channels) // groups) for c in channels], [c // groups for c in channels]
    return watch.stand_in("channel_shuffle", input, inputs, outputs) if input.ndim == 4 else None


def _cat(watch: Watch, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The dependency graph takes the places of one tensor for one place: give each a tensor of its own."""
    apart = [x + 0 if any(x is other for other in tensors[:place]) else x for place, x in enumerate(tensors)]
    return torch.cat(apart, dim)


def _filter(function: Callable[..., Tensor]) -> Callable[..., Tensor | None]:
    """A filter for each channel that the network keeps itself, as those that blur before they downsample."""

    def filtered(watch: Watch, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
        key = watch.tensors.get(weight)
        if key is None or not len(weight) == kwargs.get("groups") == input.shape[1] > 1:
            return None
        channels = list(range(len(weight)))
        output = function(input, weight, *args, **kwargs)
        return watch.stand_in(function.__name__, output, channels, channels, tensor=key)

    return filtered


_RULES: dict[str, Callable[..., Any]] = {
    "conv2d": _filter(nn.functional.conv2d),
    "conv_transpose2d": _filter(nn.functional.conv_transpose2d),
    "cat": _cat,
    "concat": _cat,
    "chunk": _chunk,
    "split": _split,
    "glu": _glu,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
}


def _binds(rule: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Whether a function was called in the usual way; any other is left to itself."""
    try:
        inspect.signature(rule).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _place() -> str:
    """Where the network's own code is, seen from within torch."""
    frame = sys._getframe(2)
    while frame.f_back and ("/torch/" in frame.f_code.co_filename.replace("\\", "/")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}"
