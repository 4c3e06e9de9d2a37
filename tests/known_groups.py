"""Channel groups that are read once for all runs, workers and forked processes of a test session.

Reading the networks takes half of a tiny compression. In runs, those of shipped classes are read once;
`find_groups` of `lightning_gancompress.pruning`, which the tests of the reading itself call, reads each time.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_gancompress.cli.commands import profile
from lightning_gancompress.pruning import ChannelGroups, groups, pruned_side

FOLDER = "GANCOMPRESS_KNOWN_GROUPS"  # variable of the environment, which processes inherit
PLACES = ((pruned_side, "find_groups"), (groups, "find_groups"), (profile, "read_groups"))
Find = Callable[..., ChannelGroups]


def install() -> None:
    """Let runs of this process look into the folder first, if there is one."""
    for module, name in PLACES if FOLDER in os.environ else ():
        find = getattr(module, name)
        setattr(module, name, known(getattr(find, "reads", find)))


def known(find: Find) -> Find:
    """The function, which remembers what it has returned."""

    def look_up(network: nn.Module, inputs: Sequence[Tensor], ignored: Sequence[str] = ()) -> ChannelGroups:
        told = list(description(network, inputs))
        if None in told:
            return find(network, inputs, ignored)
        key = repr((find.__name__, told, list(ignored)))
        return remembered(key, lambda: find(network, inputs, ignored))

    look_up.reads = find  # type: ignore[attr-defined]
    return look_up


def remembered(key: str, read: Callable[[], ChannelGroups]) -> ChannelGroups:
    """Groups by a key: from the folder, or else by the function."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    file = Path(os.environ[FOLDER], digest)
    if not file.exists():
        draft = file.with_name(f"{digest}-{os.getpid()}")
        draft.write_bytes(pickle.dumps(read()))
        draft.replace(file)
    groups: ChannelGroups = pickle.loads(file.read_bytes())
    return groups


def description(network: nn.Module, inputs: Sequence[Tensor]) -> Iterator[Any]:
    """All that the groups depend on, of modules, tensors and inputs; None if that can't be said."""
    for name, module in network.named_modules(remove_duplicate=False):
        kind = type(module)
        shipped = kind.__module__.startswith(("torch.nn.", "lightning_gancompress."))
        hooked = module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module)
        plain = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str, tuple))}
        yield (name, kind, sorted({**plain, "training": False}.items())) if shipped and not hooked else None
    numbers: dict[int, int] = {}
    for kinds in (network.named_parameters, network.named_buffers):
        for name, x in kinds(remove_duplicate=False):
            same = numbers.setdefault(id(x), len(numbers))
            finite = not x.is_floating_point() or bool(x.isfinite().all())
            yield (name, same, x.shape, x.dtype) if finite else None
    for x in inputs:
        yield x.shape, x.dtype
