"""Numerical check that masked and slim network agree, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.networks import bake_parametrizations, copy_network
from lightning_gancompress.pruning.channels import CONSUMERS, ChannelGroups
from lightning_gancompress.pruning.graph import NOISE, flatten, places_in
from lightning_gancompress.pruning.masks import ChannelMasks
from lightning_gancompress.pruning.slim import slim

# Largest difference between masked and small network, relative to the largest value of the same layer.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-2}
_GAINS = (1.0, 0.5, 0.1, 0.01)  # of random weights, until the outputs are finite


@dataclass(frozen=True)
class Fault:
    """The first difference of the small network from the masked one.

    Attributes:
        calls: Names of the layers called before, all with the same results.
        places: If the forward failed, the lines of the network's own code in the traceback, innermost last.
        reason: The reason for which channels are kept, as text.
    """

    calls: list[str]
    places: list[str]
    reason: str


class Check:
    """Compares a network under a mask with its slim copy.

    The network gets random weights, since weights near zero would hide differences, and random images in
    [-1, 1], and computes in double precision if possible.

    Args:
        network: The network; it is not changed.
        name: Name of the network in errors.
        inputs: Example inputs; only their shapes matter.
        training: Whether to compare in training mode as well.

    Attributes:
        worst: Largest relative difference so far, among those within the tolerance.

    Raises:
        UserError: The outputs are not finite, with random weights of any scale and with the network's own.
    """

    def __init__(
        self, network: nn.Module, name: str, inputs: Sequence[Tensor], training: bool = False
    ) -> None:
        self._training = training
        self.worst, self._name = 0.0, name
        self._generator = torch.Generator().manual_seed(0)
        for dtype in (torch.float64, torch.float32):
            self._dtype = dtype
            self._inputs = [self._image(x) for x in inputs]
            try:
                whole = self._alive(network)
            except Exception:  # a forward with a precision of its own
                if dtype is torch.float32:
                    raise
                continue
            if whole is not None:
                self._whole = whole
                return
        raise UserError(
            f"{name} has outputs that are not finite for images in [-1, 1], with its own weights and with "
            "random ones: train it to finite outputs, or scale its images inside its forward."
        )

    def _image(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x.cpu()
        return torch.rand(x.shape, generator=self._generator, dtype=self._dtype) * 2 - 1

    def _alive(self, network: nn.Module) -> nn.Module | None:
        """A copy with finite outputs: with random weights, else with its own; None if there is none."""
        plain = bake_parametrizations(copy_network(network)).cpu().to(self._dtype).eval()
        for gain in (*_GAINS, None):
            candidate = copy_network(plain)
            if gain is not None:
                _scramble(candidate, gain, self._generator)
            if all(y.isfinite().all() for y in self._run(candidate)):
                return candidate
        return None

    @torch.no_grad()
    def _run(self, network: nn.Module) -> list[Tensor]:
        with _precision(self._dtype), _NoNoise():
            return flatten(network(*[x.clone() for x in self._inputs]))

    def fault(self, groups: ChannelGroups) -> Fault | None:
        """Compare masked and slim network for several random masks; return the first difference."""
        for most in (0.5, 1.0):
            fault = self._compare(groups, self._random_mask(groups, most))
            if fault is not None:
                return fault
        if not self._training:
            return None
        self._whole.train()
        try:
            return self._compare(groups, self._random_mask(groups, 0.5))
        finally:
            self._whole.eval()

    def _random_mask(self, groups: ChannelGroups, most: float) -> Tensor:
        """A mask that drops up to the share `most` of every group, with different numbers per group.

        With equal numbers, wrong groups would have fitting shapes by chance.
        """
        dropped = []
        for number, size in enumerate(groups.sizes):
            limit = max(1, min(size - 1, int(size * most) + number % 2))
            least = limit if most == 1.0 else 1
            count = int(torch.randint(least, limit + 1, (), generator=self._generator))
            dropped.append(torch.randperm(size, generator=self._generator) < count)
        return (~torch.cat(dropped)).float()

    def _compare(self, groups: ChannelGroups, mask: Tensor) -> Fault | None:
        masks = ChannelMasks(groups)
        try:  # before the masked run, which may change buffers
            small = slim(self._whole, groups, mask).train(self._whole.training)
        except Exception as error:  # a user's own train() may raise
            return _failed([], error)
        masked: list[_Sums] = []
        called: list[str] = []
        masks.attach(self._whole)
        masks.set(mask.to(self._dtype))
        try:
            with _listening(self._whole, groups, mask, masked.append):
                expected = self._run(self._whole)
        except Exception as error:  # a user's forward may fail under hooks
            return Fault([sums.layer for sums in masked], places_in(error), f"it can't be masked ({error})")
        finally:
            masks.detach()

        def compare(sums: _Sums) -> None:
            known = masked[len(called)] if len(called) < len(masked) else None
            if known is not None and not known.scale.isfinite():
                raise UserError(
                    f"{self._name} computes values that are not finite in {known.layer!r} for images in "
                    "[-1, 1]: scale its images inside its forward."
                )
            if known is None or known.layer != sums.layer or not self._same(known, sums):
                raise _Disagree(f"{sums.layer!r} gets something else")
            called.append(sums.layer)

        try:
            with _listening(small, groups, None, compare):
                outputs = self._run(small)
            for first, second in zip(expected, outputs, strict=True):
                if not self._agree(first, second, first.abs().max()):
                    raise _Disagree("the outputs differ")
        except UserError:
            raise
        except _Disagree as error:
            return Fault(called, [], f"the forward depends on how many there are, or on their order: {error}")
        except Exception as error:  # whatever a forward raises on tensors of another shape
            return _failed(called, error)
        return None

    def _same(self, known: _Sums, small: _Sums) -> bool:
        # other shapes are accepted: a layer may be applied to every channel on its own, so to fewer of them
        other = known.count != small.count or known.sums.shape != small.sums.shape
        return other or self._agree(known.sums, small.sums, known.scale)

    def _agree(self, first: Tensor, second: Tensor, scale: Tensor) -> bool:
        if first.shape != second.shape:
            return False
        difference = float((first - second).abs().max() / scale.clamp_min(1e-30)) if first.numel() else 0.0
        agree = difference <= _TOLERANCE[self._dtype]  # False for NaN
        self.worst = max(self.worst, difference) if agree else self.worst
        return agree


def _failed(called: list[str], error: Exception) -> Fault:
    """The fault of a small network that raises an error where the whole one did not."""
    places = places_in(error)
    where = f"{Path(places[-1]).name}: " if places else ""
    return Fault(called, places, f"the forward fails without some ({where}{first_line(error)})")


@dataclass(frozen=True)
class _Sums:
    """Weighted sums of a layer's output, by which two outputs are compared.

    Attributes:
        layer: Name of the layer.
        count: Number of values per channel.
        sums: Weighted sum of the values of each channel, `(C,)`.
        scale: Largest weighted sum of absolute values, for the relative difference.
    """

    layer: str
    count: int
    sums: Tensor
    scale: Tensor


def check_groups(network: nn.Module, groups: ChannelGroups, inputs: Sequence[Tensor]) -> float:
    """Return the largest difference between masked and small network, relative to the layer's largest value.

    Args:
        network: The network; it is not changed.
        groups: The network's groups.
        inputs: Example inputs; only their shapes matter.

    Raises:
        UserError: The two disagree.
    """
    with torch.random.fork_rng(devices=[]):
        check = Check(network, type(network).__name__, inputs)
        fault = check.fault(groups)
    if fault is not None:
        raise UserError(f"{type(network).__name__} can't be slimmed exactly: {fault.reason}.")
    return check.worst


class _Disagree(Exception):
    """Raised within a forward when masked and small network differ."""


@contextmanager
def _listening(
    network: nn.Module, groups: ChannelGroups, mask: Tensor | None, note: Callable[[_Sums], None]
) -> Iterator[None]:
    """Context that calls `note` with the sums of each layer's output.

    Args:
        network: The network.
        groups: The network's groups.
        mask: Mask whose dropped channels are left out of the sums; None for a slim network.
        note: The function to call.
    """
    keep = None if mask is None else torch.cat([mask, torch.ones(1)]) > 0.5

    def summarise(name: str, layer: nn.Module, output: Any) -> None:
        axis, known = 1, groups.layers[name].outputs
        if isinstance(layer, CONSUMERS):
            axis = output.ndim - 1 - len(getattr(layer, "kernel_size", ()))
        if not isinstance(output, Tensor) or not 0 <= axis < output.ndim or not output.numel():
            return note(_Sums(name, 0, torch.zeros(0), torch.zeros(())))  # a user's layer of another kind
        rows = output.detach().movedim(axis, 0).flatten(1)
        if keep is not None and len(rows) == len(known):
            rows = rows[keep[known]]
        weights = torch.arange(rows.shape[1], dtype=rows.dtype).mul_(1.7).cos_()
        # the additional zero is for layers without channels
        largest = torch.cat([rows.abs() @ weights.abs(), weights.new_zeros(1)]).max()
        return note(_Sums(name, rows.shape[1], rows @ weights, largest))

    hooks = [
        network.get_submodule(name).register_forward_hook(lambda m, a, y, name=name: summarise(name, m, y))
        for name in groups.layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _scramble(network: nn.Module, gain: float, generator: torch.Generator) -> None:
    """Set random weights, scaled by fan-in so that signals do not vanish, and random running statistics."""
    statistics = [b for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    with torch.no_grad():
        for tensor in (*network.parameters(), *statistics):
            if tensor.ndim > 1:
                fan_in = max(tensor.numel() // max(len(tensor), 1), 1)
                tensor.normal_(generator=generator).mul_(gain * (2 / fan_in) ** 0.5)
            else:
                tensor.uniform_(0.5, 1.5, generator=generator)


@contextmanager
def _precision(dtype: torch.dtype) -> Iterator[None]:
    """Context in which tensors that a forward creates have this dtype by default."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


class _NoNoise(TorchFunctionMode):
    """Replaces noise by constants and skips dropout: with fewer channels other numbers would be drawn."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "").rstrip("_")
        if "dropout" in name:
            return args[0]
        output = func(*args, **(kwargs or {}))
        return output.fill_(0.5) if name in NOISE and isinstance(output, Tensor) else output
