"""Search for channel groups: channels of a network that can only be kept or dropped together."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import bake_parametrizations, copy_network
from lightning_gancompress.pruning.channels import ChannelGroups
from lightning_gancompress.pruning.check import Check
from lightning_gancompress.pruning.graph import Deadline, read_graph
from lightning_gancompress.pruning.reading import Reading
from lightning_gancompress.pruning.slim import slim

_SMALLEST = 64  # pixels: channels go together in the same way at any size that a network takes


def find_groups(
    network: nn.Module, inputs: Sequence[Tensor], ignored_layers: Sequence[str] = ()
) -> ChannelGroups:
    """The groups of `read_groups`, of which there must be at least one.

    Raises:
        UserError: The network can't be traced, or no channel can be dropped.
    """
    groups = read_groups(network, inputs, ignored_layers)
    if not groups.total:
        layers = [f"{name!r}: {reason}" for name, reason in groups.whole.items()]
        more = [f"and {len(layers) - 3} more"] if len(layers) > 3 else []
        reasons = "; ".join([*layers[:3], *more]) or "it has no layers"
        raise UserError(f"{_name(network)} has no channels that can be dropped ({reasons}).")
    return groups


def read_groups(
    network: nn.Module, inputs: Sequence[Tensor], ignored_layers: Sequence[str] = ()
) -> ChannelGroups:
    """Find the channels of a network that can be dropped, and check the result numerically.

    Channels that can't be followed through the graph are kept; `ChannelGroups.whole` has the reasons.

    Args:
        network: Any network that `torch.export` can trace; it is not changed.
        inputs: Example inputs, each `(1, C, H, W)`; integer tensors have no channels.
        ignored_layers: Names of layers, or of modules that hold them, or patterns such as `encoder.*`; all
            groups with channels of these layers are kept whole.

    Raises:
        UserError: The network can't be traced.
    """
    ignored = matching(network, ignored_layers)
    name, networks = _name(network), _networks(network)
    for one in networks:
        _check_arguments(one, len(inputs) // len(networks))
    with torch.random.fork_rng(devices=[]):
        copied = bake_parametrizations(copy_network(network)).cpu().float().eval().requires_grad_(False)
        inputs = [x.detach().cpu().float() if x.is_floating_point() else x.cpu() for x in inputs]
        with contextlib.suppress(Exception):  # the tracer raises the same error with a message
            inputs = _smaller(copied, inputs)
        own = {key for key, _ in [*network.named_parameters(), *network.named_buffers()]}
        tensors = [*copied.named_parameters(), *copied.named_buffers()]
        reading, trains_otherwise = _read(copied, name, inputs, {key for key, _ in tensors} - own)
        reading.keep(ignored, "ignored_layers names it")
        return _checked(reading, Check(copied, name, inputs, trains_otherwise))


def slim_by_mask(
    network: nn.Module,
    mask: Tensor,
    inputs: Sequence[Tensor],
    ignored_layers: Sequence[str] = (),
    whole: nn.Module | None = None,
    left: Tensor | None = None,
) -> nn.Module:
    """Slim a network without known groups, such as one from a checkpoint of the search.

    Args:
        network: The network.
        mask: `(total,)`; values above 0.5 keep a channel.
        inputs: Example inputs, `(1, C, H, W)` each.
        ignored_layers: The ignored layers of the search.
        whole: The network before channels were cut from it within the search; None if none were.
        left: Which channels of `whole` the network has, `(total,)` of `whole`.

    Raises:
        UserError: The mask is of other groups.
    """
    groups = find_groups(network if whole is None else whole, inputs, ignored_layers)
    if left is not None and len(left) == groups.total:
        groups = groups.narrowed(left)
    if len(mask) != groups.total:
        raise UserError(
            f"The mask of {len(mask)} channels does not fit {type(network).__name__}, which has "
            f"{groups.total} that can be dropped: give the ignored_layers of the search."
        )
    return slim(network, groups, mask)


def matching(network: nn.Module, patterns: Iterable[str]) -> set[str]:
    """Names of the modules that match patterns, and of all modules within them.

    Raises:
        UserError: A pattern matches none.
    """
    names = [name for name, _ in network.named_modules(remove_duplicate=False)]
    matches: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if name and fnmatchcase(name, pattern)]
        if not hits:
            raise UserError(f"ignored_layers: the network has no layer named {pattern!r}.")
        matches.update(n for n in names if any(n == hit or n.startswith(f"{hit}.") for hit in hits))
    return matches


def _networks(network: nn.Module) -> list[nn.Module]:
    """The networks of a `NetworkGroup`, or the one network."""
    return list(network.children()) if isinstance(network, nn.ModuleDict) else [network]


def _name(network: nn.Module) -> str:
    """Name of a network in errors: its class, or those of its networks."""
    return " and ".join(dict.fromkeys(type(one).__name__ for one in _networks(network)))


def _check_arguments(network: nn.Module, given: int) -> None:
    try:
        inspect.signature(network.forward).bind(*range(given))
    except TypeError as error:
        raise UserError(
            f"{type(network).__name__}.forward can't be called with {given} input{'s' * (given != 1)} alone "
            f"({error}): wrap it in a module whose forward needs no more, or give the others a default."
        ) from error


def _smaller(network: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """Inputs of a quarter or half of the size if the network calls the same functions on them, for speed."""
    steps = _steps(network, inputs)
    for factor in (4, 2):
        small = [_cropped(x, factor) for x in inputs]
        if all(x.ndim == 4 and min(x.shape[2:]) >= _SMALLEST for x in small):
            with contextlib.suppress(Exception):  # whatever a forward raises on a size that it doesn't take
                if _steps(network, small) == steps:
                    return small
    return inputs


def _cropped(x: Tensor, factor: int) -> Tensor:
    return x[..., : x.shape[2] // factor, : x.shape[3] // factor] if x.ndim == 4 else x


class _Steps(TorchFunctionMode):
    """Records the names of the modules and functions that a forward calls.

    Of a batch norm of torch's only the name: what it counts in training is no reason to read a network twice.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.names: list[str] = []
        self._norms = 0  # batch norms whose forward is running
        for name, module in network.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self.names.append(name))
            if type(module).forward is nn.modules.batchnorm._BatchNorm.forward:
                module.register_forward_pre_hook(lambda *_: self._enter(1))
                module.register_forward_hook(lambda *_: self._enter(-1))

    def _enter(self, norms: int) -> None:
        self._norms += norms

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._norms:
            self.names.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _steps(network: nn.Module, inputs: Sequence[Tensor]) -> list[str]:
    """Names of the modules and functions that a forward calls, in order; on shapes alone if possible."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    without_values = [fake.from_tensor(x.clone()) for x in inputs]
    try:
        return _steps_on(copy_network(network), without_values)
    except Exception:  # a forward that needs values
        return _steps_on(copy_network(network), [x.clone() for x in inputs])


def _steps_on(network: nn.Module, inputs: Sequence[Tensor]) -> list[str]:
    steps = _Steps(network)
    with steps:
        network(*inputs)
    return steps.names


def _read(
    network: nn.Module, name: str, inputs: Sequence[Tensor], computed: Collection[str]
) -> tuple[Reading, bool]:
    """Read the network in eval mode, and in training mode if it calls other functions there.

    Returns:
        The reading, and whether the training mode differs.
    """
    deadline = Deadline(name)
    reading = Reading(network, deadline, computed)
    with contextlib.suppress(Exception), torch.no_grad():
        # fills caches outside of the network, such as of grids, with real tensors instead of the tracer's
        copy_network(network)(*[x.clone() for x in inputs])
    reading.walk(read_graph(copy_network(network), name, inputs, deadline))
    training = copy_network(network).train()
    with contextlib.suppress(Exception):  # `check_training` reports errors in training mode
        if _steps(training, inputs) != _steps(network, inputs):
            reading.walk(read_graph(training, name, inputs, deadline))
            return reading, True
    return reading, False


def _checked(reading: Reading, check: Check) -> ChannelGroups:
    """Keep channels for which masked and slim network differ, until the two agree; return the groups."""
    while True:
        groups = reading.groups()
        reading.deadline.check(lambda: f"the check in numbers, with {len(groups.whole)} layers whole")  # noqa: B023
        fault = check.fault(groups) if groups.total else None
        if fault is None:
            return groups
        reading.blame(fault.calls, fault.places, fault.reason)
