"""Check: whether masking and slimming agree, in numbers, layer by layer."""

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
    """Where the small network does otherwise than the masked one.

    Attributes:
        calls: Layers called so far, all with the same results.
        places: Lines of the network's own code that were at work when it failed, if it did; innermost last.
        reason: What is the matter, as a reason why channels stay.
    """

    calls: list[str]
    places: list[str]
    reason: str


class Check:
    """Runs one network masked and slim.

    It has random weights (blank ones, or weights near zero, would hide a difference), reads random images in
    [-1, 1], and computes in double precision if it can.

    Args:
        network: The network; it stays as it is.
        name: What to call it in an error.
        inputs: Example inputs; only their shapes matter.
        training: Whether it does something else in training, to be compared too.

    Attributes:
        worst: Largest relative difference so far.

    Raises:
        UserError: Its outputs are never finite.
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
        """A copy whose outputs are finite: with random weights, or with its own."""
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
        """Drop random channels both ways, several times; return the first disagreement."""
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
        """Drop up to `most` of every group, but one; not as many of all, since equal parts fit by chance."""
        dropped = []
        for number, size in enumerate(groups.sizes):
            limit = max(1, min(size - 1, int(size * most) + number % 2))
            least = limit if most == 1.0 else 1
            count = int(torch.randint(least, limit + 1, (), generator=self._generator))
            dropped.append(torch.randperm(size, generator=self._generator) < count)
        return (~torch.cat(dropped)).float()

    def _compare(self, groups: ChannelGroups, mask: Tensor) -> Fault | None:
        masks = ChannelMasks(groups)
        try:  # before the masked network runs, which may change its buffers
            small = slim(self._whole, groups, mask).train(self._whole.training)
        except Exception as error:  # a train() of the user's own
            return _failed([], error)
        masked: list[_Sums] = []
        called: list[str] = []
        masks.attach(self._whole)
        masks.set(mask.to(self._dtype))
        try:
            with _listening(self._whole, groups, mask, masked.append):
                expected = self._run(self._whole)
        except Exception as error:  # a forward of the user's own that a gate does not suit
            return Fault([sums.layer for sums in masked], places_in(error), f"it can't be masked ({error})")
        finally:
            masks.detach()

        def compare(found: _Sums) -> None:
            known = masked[len(called)] if len(called) < len(masked) else None
            if known is not None and not known.scale.isfinite():
                raise UserError(
                    f"{self._name} computes values that are not finite in {known.layer!r} for images in "
                    "[-1, 1]: scale its images inside its forward."
                )
            if known is None or known.layer != found.layer or not self._same(known, found):
                raise _Disagree(f"{found.layer!r} gets something else")
            called.append(found.layer)

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
        # a layer that does the same to every channel does it to fewer: its outputs have another shape
        other = known.count != small.count or known.sums.shape != small.sums.shape
        return other or self._agree(known.sums, small.sums, known.scale)

    def _agree(self, first: Tensor, second: Tensor, scale: Tensor) -> bool:
        if first.shape != second.shape:
            return False
        difference = float((first - second).abs().max() / scale.clamp_min(1e-30)) if first.numel() else 0.0
        agree = difference <= _TOLERANCE[self._dtype]  # not so for NaN
        self.worst = max(self.worst, difference) if agree else self.worst
        return agree


def _failed(called: list[str], error: Exception) -> Fault:
    """The small network fails where the whole one did not."""
    places = places_in(error)
    where = f"{Path(places[-1]).name}: " if places else ""
    return Fault(called, places, f"the forward fails without some ({where}{first_line(error)})")


@dataclass(frozen=True)
class _Sums:
    """What a layer has made, in short.

    Attributes:
        layer: Its name.
        count: Values of each channel.
        sums: Of each channel's values, weighted, `(C,)`.
        scale: How large a sum can be.
    """

    layer: str
    count: int
    sums: Tensor
    scale: Tensor


def check_groups(network: nn.Module, groups: ChannelGroups, inputs: Sequence[Tensor]) -> float:
    """Return the largest difference between masked and small network, relative to the layer's largest value.

    Args:
        network: The network; it stays as it is.
        groups: Its groups.
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
    """Masked and small network were compared, and differ."""


@contextmanager
def _listening(
    network: nn.Module, groups: ChannelGroups, mask: Tensor | None, note: Callable[[_Sums], None]
) -> Iterator[None]:
    """Call `note` after each layer that has run.

    Args:
        network: The network.
        groups: Its groups.
        mask: Leave out the channels that it drops; None for a network that has none of them.
        note: What to call.
    """
    keep = None if mask is None else torch.cat([mask, torch.ones(1)]) > 0.5

    def heard(name: str, layer: nn.Module, output: Any) -> None:
        axis, known = 1, groups.layers[name].outputs
        if isinstance(layer, CONSUMERS):
            axis = output.ndim - 1 - len(getattr(layer, "kernel_size", ()))
        if not isinstance(output, Tensor) or not 0 <= axis < output.ndim or not output.numel():
            return note(_Sums(name, 0, torch.zeros(0), torch.zeros(())))  # a layer of the user's own kind
        rows = output.detach().movedim(axis, 0).flatten(1)
        if keep is not None and len(rows) == len(known):
            rows = rows[keep[known]]
        weights = torch.arange(rows.shape[1], dtype=rows.dtype).mul_(1.7).cos_()
        # a layer may have no channels at all
        largest = torch.cat([rows.abs() @ weights.abs(), weights.new_zeros(1)]).max()
        return note(_Sums(name, rows.shape[1], rows @ weights, largest))

    hooks = [
        network.get_submodule(name).register_forward_hook(lambda m, a, y, name=name: heard(name, m, y))
        for name in groups.layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _scramble(network: nn.Module, gain: float, generator: torch.Generator) -> None:
    """Random weights of a scale that keeps signals alive, and statistics unlike their defaults."""
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
    """Make also the constants of a forward in this precision."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


class _NoNoise(TorchFunctionMode):
    """Constants in place of noise: fewer channels would draw other numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "").rstrip("_")
        if "dropout" in name:
            return args[0]
        output = func(*args, **(kwargs or {}))
        return output.fill_(0.5) if name in NOISE and isinstance(output, Tensor) else output
