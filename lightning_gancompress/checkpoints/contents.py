"""Which tensors of a file are those of the network that is wanted."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import takewhile
from typing import Any

from torch import Tensor

from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks import Side

State = dict[str, Tensor]

_log = logging.getLogger(__name__)
# netG, G_AB, gen_A2B, generator_state_dict, net_d, dis, ...
_NAMES: dict[Side, re.Pattern[str]] = {
    Side.GENERATOR: re.compile(r"((net|model)_?[Gg]|G|[Gg]en(erator)?)(?=$|_|[ABXY])"),
    Side.DISCRIMINATOR: re.compile(r"((net|model)_?[Dd]|D|[Dd]is(c|criminator)?)(?=$|_|[ABXYGL])"),
}
_NEUTRAL = re.compile(r"state_dict|((model|net|network)(_state_dict)?|params|weights)(_ema)?")
_DIRECTIONS = {"AtoB": re.compile(r"A(to|2)?B"), "BtoA": re.compile(r"B(to|2)?A")}
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")
_PROFILER = ("total_ops", "total_params")


def side_in(name: str) -> Side | None:
    """Return what a network is by the last part of its name, or None if that doesn't say."""
    part = name.rpartition(".")[2]
    return next((side for side, pattern in _NAMES.items() if pattern.match(part)), None)


def network_tensors(content: Any, network: str = "", own: Collection[str] = ()) -> State:
    """Return the tensors of one network in the `content` of a file, without the prefixes of wrappers.

    It may be all of the content, lie in dicts beside optimizers and counters, or have its name before those
    of its tensors, as in checkpoints of Lightning.

    Args:
        content: What the file holds.
        network: The role that is wanted, or the name that the network has in the file; "" for the only one.
        own: Names of its tensors, if known: a network that has them as they stand comes first.

    Raises:
        UserError: When there is no network, or none of several that is surely meant.
    """
    states = _state_dicts(content)
    if not states:
        raise UserError(_what_it_is(content))
    networks: dict[str, State] = {}
    for name, state in states.items():
        networks |= {name: state} if state.keys() == set(own) else _networks(name, state)
    networks = {name: state for name, state in networks.items() if state.keys() == set(own)} or networks
    return networks[_chosen(list(networks), network)]


def common_length(paths: Iterable[list[str]]) -> int:
    """Return how many parts all paths have in common at their beginning."""
    return len(list(takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))))


def _state_dicts(content: Any, name: str = "") -> dict[str, State]:
    """Return the dicts of nothing but tensors in `content`, not optimizers', by the keys that lead there."""
    if not isinstance(content, Mapping) or "param_groups" in content:
        return {}
    if content and all(isinstance(value, Tensor) for value in content.values()):
        state = {_WRAPPERS.sub("", str(key)): tensor for key, tensor in content.items()}
        return {name: {k: tensor for k, tensor in state.items() if k.rpartition(".")[2] not in _PROFILER}}
    found: dict[str, State] = {}
    for key, value in content.items():
        found |= _state_dicts(value, f"{name}.{key}".removeprefix("."))
    return found


def _networks(name: str, state: State) -> dict[str, State]:
    """Take a state dict apart where its keys have names of networks, after what all of them begin with."""
    paths = [key.split(".") for key in state]
    for depth in range(common_length(path[:-1] for path in paths) + 1):
        if any(len(path) > depth + 1 and side_in(path[depth]) for path in paths):
            break
    else:
        return {name: state}
    networks: dict[str, State] = {}
    for path, tensor in zip(paths, state.values(), strict=True):
        rest = _WRAPPERS.sub("", ".".join(path[depth + 1 :]))
        networks.setdefault(f"{name}.{path[depth]}".removeprefix("."), {})[rest] = tensor
    return networks


def _chosen(names: list[str], network: str) -> str:
    """Return the name that `network` means."""
    last = {name: name.rpartition(".")[2] for name in names}
    meant = [name for name in names if network in (name, last[name])]
    direction = network.rpartition("_")[2]
    if not meant:
        other = {"AtoB": "BtoA", "BtoA": "AtoB"}.get(direction)
        meant = [name for name in names if not (other and _DIRECTIONS[other].search(last[name]))]
    if len(meant) > 1:
        role = side_in(network)
        meant = [name for name in meant if role and side_in(name) == role] or [
            name for name in meant if _NEUTRAL.fullmatch(last[name])
        ]
        if direction in _DIRECTIONS:
            meant = [name for name in meant if _DIRECTIONS[direction].search(last[name])] or meant
    averaged = [name for name in meant if name.endswith("_ema") and name.removesuffix("_ema") in meant]
    if averaged:
        _log.warning("%s is read, not %s.", averaged[0], averaged[0].removesuffix("_ema"))
        meant = [name for name in meant if f"{name}_ema" not in averaged]
    if len(meant) != 1:
        raise UserError(
            f"it holds {', '.join(names[:8])}, and nothing says which of them is the {network or 'network'}. "
            f"Ask for one by its name, as in network={names[0]!r} (on the command line: --network "
            f"{names[0]}), or save its state_dict() in a file of its own."
        )
    return meant[0]


def _what_it_is(content: Any) -> str:
    strange = []
    if isinstance(content, Mapping):
        strange = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if not strange:
        return "it is empty or no state dict. Save the network's state_dict()."
    return (
        f"{', '.join(strange[:3])} in it is no tensor, so it is no state dict. "
        "Save the state_dict() of one network."
    )
