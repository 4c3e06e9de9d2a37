"""Search for the tensors of one network in the content of a file."""

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
    """Return the side of a network by the last part of its name; None if the name does not show it."""
    part = name.rpartition(".")[2]
    return next((side for side, pattern in _NAMES.items() if pattern.match(part)), None)


def network_tensors(content: Any, network: str = "", own: Collection[str] = ()) -> State:
    """Return the tensors of one network in the `content` of a file, without prefixes such as `module.`.

    The content may be a state dict, nested dicts with state dicts beside optimizers and counters, or a state
    dict of several networks whose names begin the keys, as in checkpoints of Lightning.

    Args:
        content: Content of the file.
        network: Role of the network, or its name in the file; "" for the only one.
        own: Names of its tensors, if known: a network with exactly these names is preferred.

    Raises:
        UserError: When there is no network, or `network` does not single one out.
    """
    states = _state_dicts(content)
    if not states:
        raise UserError(_no_state_dict(content))
    networks: dict[str, State] = {}
    for name, state in states.items():
        networks |= {name: state} if state.keys() == set(own) else _networks(name, state)
    networks = {name: state for name, state in networks.items() if state.keys() == set(own)} or networks
    return networks[_chosen(list(networks), network)]


def common_length(paths: Iterable[list[str]]) -> int:
    """Return the length of the common prefix of all paths, in parts."""
    return len(list(takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))))


def _state_dicts(content: Any, name: str = "") -> dict[str, State]:
    """Return the state dicts nested in `content`, by their dotted path of keys; optimizers are skipped."""
    if not isinstance(content, Mapping) or "param_groups" in content:
        return {}
    if content and all(isinstance(value, Tensor) for value in content.values()):
        state = {_WRAPPERS.sub("", str(key)): tensor for key, tensor in content.items()}
        return {name: {k: tensor for k, tensor in state.items() if k.rpartition(".")[2] not in _PROFILER}}
    states: dict[str, State] = {}
    for key, value in content.items():
        states |= _state_dicts(value, f"{name}.{key}".removeprefix("."))
    return states


def _networks(name: str, state: State) -> dict[str, State]:
    """Split a state dict into networks if its keys have their names, after a common prefix."""
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
    """Return the one of `names` that `network` refers to."""
    last = {name: name.rpartition(".")[2] for name in names}
    matches = [name for name in names if network in (name, last[name])]
    direction = network.rpartition("_")[2]
    if not matches:
        other = {"AtoB": "BtoA", "BtoA": "AtoB"}.get(direction)
        matches = [name for name in names if not (other and _DIRECTIONS[other].search(last[name]))]
    if len(matches) > 1:
        side = side_in(network)
        matches = [name for name in matches if side and side_in(name) == side] or [
            name for name in matches if _NEUTRAL.fullmatch(last[name])
        ]
        if direction in _DIRECTIONS:
            matches = [name for name in matches if _DIRECTIONS[direction].search(last[name])] or matches
    averaged = [name for name in matches if name.endswith("_ema") and name.removesuffix("_ema") in matches]
    if averaged:
        _log.warning("%s is read, not %s.", averaged[0], averaged[0].removesuffix("_ema"))
        matches = [name for name in matches if f"{name}_ema" not in averaged]
    if len(matches) != 1:
        raise UserError(
            f"it holds {', '.join(names[:8])}, and nothing says which of them is the {network or 'network'}. "
            f"Ask for one by its name, as in network={names[0]!r} (on the command line: --network "
            f"{names[0]}), or save its state_dict() in a file of its own."
        )
    return matches[0]


def _no_state_dict(content: Any) -> str:
    others = []
    if isinstance(content, Mapping):
        others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if not others:
        return "it is empty or no state dict. Save the network's state_dict()."
    return (
        f"{', '.join(others[:3])} in it is no tensor, so it is no state dict. "
        "Save the state_dict() of one network."
    )
