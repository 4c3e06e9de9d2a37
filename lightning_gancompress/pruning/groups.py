"""Groups: which channels of a network must be kept or dropped together."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import bake_parametrizations, copy_network
from lightning_gancompress.pruning.channels import ChannelGroups, is_layer
from lightning_gancompress.pruning.check import Check
from lightning_gancompress.pruning.graph import Deadline, read_graph
from lightning_gancompress.pruning.reading import Reading
from lightning_gancompress.pruning.slim import slim

_SMALLEST = 64  # pixels: channels go together in the same way at any size that a network takes


def find_groups(
    network: nn.Module, inputs: Sequence[Tensor], ignored_layers: Sequence[str] = ()
) -> ChannelGroups:
    """Do `read_groups` for a network that shall be pruned.

    Raises:
        UserError: The network can't be traced, or nothing is left to drop.
    """
    groups = read_groups(network, inputs, ignored_layers)
    if not groups.total:
        layers = [f"{name!r}: {reason}" for name, reason in groups.whole.items()]
        more = [f"and {len(layers) - 3} more"] if len(layers) > 3 else []
        found = "; ".join([*layers[:3], *more]) or "it has no layers"
        raise UserError(f"{_name(network)} has no channels that can be dropped ({found}).")
    return groups


def read_groups(
    network: nn.Module, inputs: Sequence[Tensor], ignored_layers: Sequence[str] = ()
) -> ChannelGroups:
    """Read which channels of a network can be dropped, and make sure of it in numbers.

    Whatever can't be followed stays whole; `ChannelGroups.whole` says why.

    Args:
        network: Any network that `torch.export` can trace; it is copied, never changed.
        inputs: Example inputs, each `(1, C, H, W)`; whole numbers have no channels.
        ignored_layers: Names of layers, or of modules that hold them, or patterns such as `encoder.*`; they
            stay whole, and with them every group that they touch.

    Raises:
        UserError: The network can't be traced.
    """
    ignored = matching(network, ignored_layers)
    name, networks = _name(network), _networks(network)
    for one in networks:
        _check_arguments(one, len(inputs) // len(networks))
    with torch.random.fork_rng(devices=[]):
        copied = bake_parametrizations(copy_network(network)).cpu().float().eval().requires_grad_(False)
        inputs = _smaller(
            copied, [x.detach().cpu().float() if x.is_floating_point() else x.cpu() for x in inputs]
        )
        reading = _read(copied, name, inputs)
        reading.keep(ignored, "ignored_layers names it")
        return _checked(reading, Check(copied, name, inputs))


def slim_by_mask(
    network: nn.Module, mask: Tensor, inputs: Sequence[Tensor], ignored_layers: Sequence[str] = ()
) -> nn.Module:
    """Slim a network whose groups are not at hand, such as one from a checkpoint of the search.

    Args:
        network: The whole network.
        mask: `(total,)`; above 0.5 keeps a channel.
        inputs: Example inputs, `(1, C, H, W)` each.
        ignored_layers: As the groups were found with.

    Raises:
        UserError: The mask is of other groups.
    """
    groups = find_groups(network, inputs, ignored_layers)
    if len(mask) != groups.total:
        raise UserError(
            f"The mask of {len(mask)} channels does not fit {type(network).__name__}, which has "
            f"{groups.total} that can be dropped: give the ignored_layers of the search."
        )
    return slim(network, groups, mask)


def matching(network: nn.Module, patterns: Iterable[str]) -> set[str]:
    """Names of the modules that patterns stand for, and of all modules within them.

    Raises:
        UserError: A pattern stands for none.
    """
    names = [name for name, _ in network.named_modules(remove_duplicate=False)]
    found: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if name and fnmatchcase(name, pattern)]
        if not hits:
            raise UserError(f"ignored_layers: the network has no layer named {pattern!r}.")
        found.update(name for name in names if any(name == hit or name.startswith(f"{hit}.") for hit in hits))
    return found


def _networks(network: nn.Module) -> list[nn.Module]:
    """The networks of a side, which run next to each other; or the one network."""
    return list(network.children()) if isinstance(network, nn.ModuleDict) else [network]


def _name(network: nn.Module) -> str:
    """What to call a network in an error."""
    return " and ".join(dict.fromkeys(type(one).__name__ for one in _networks(network)))


def _check_arguments(network: nn.Module, given: int) -> None:
    try:
        inspect.signature(network.forward).bind(*range(given))
    except TypeError as error:
        raise UserError(
            f"{type(network).__name__}.forward can't be called with {given} input{'s' * (given != 1)} alone "
            f"({error}): wrap it in a module whose forward needs no more, or give the others a default."
        ) from error


@torch.no_grad()
def _smaller(network: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """The inputs at a quarter or half of their size, if the network takes them: reading them is faster.

    It runs before it is traced, in any case: what it keeps outside of itself, such as a grid in
    a global cache, must not come from the tracer.
    """
    for factor in (4, 2, 1):
        small = [_cropped(x, factor) for x in inputs]
        if factor == 1 or all(x.ndim == 4 and min(x.shape[2:]) >= _SMALLEST for x in small):
            with contextlib.suppress(Exception):  # whatever a forward raises on a size that it doesn't take
                copy_network(network)(*[x.clone() for x in small])
                return small
    return inputs


def _cropped(x: Tensor, factor: int) -> Tensor:
    return x[..., : x.shape[2] // factor, : x.shape[3] // factor] if x.ndim == 4 else x


def _read(network: nn.Module, name: str, inputs: Sequence[Tensor]) -> Reading:
    """Read the network as it runs in use; and as it trains, if that alone reaches some layers."""
    deadline = Deadline(name)
    reading = Reading(network, deadline)
    reading.walk(read_graph(copy_network(network), name, inputs, deadline))
    met = reading.record.layers
    unused = [n for n, m in network.named_modules() if is_layer(m) and n not in met and m._parameters]
    if unused:
        with contextlib.suppress(UserError):  # a trial in training mode says what is wrong with it
            reading.walk(read_graph(copy_network(network).train(), name, inputs, deadline))
    return reading


def _checked(reading: Reading, check: Check) -> ChannelGroups:
    """Keep whole what masking and slimming don't agree about, until they do."""
    while True:
        groups = reading.groups()
        reading.deadline.check(lambda: f"the check in numbers, with {len(groups.whole)} layers whole")  # noqa: B023
        fault = check.fault(groups) if groups.total else None
        if fault is None:
            return groups
        reading.blame(fault.calls, fault.places, fault.reason)
