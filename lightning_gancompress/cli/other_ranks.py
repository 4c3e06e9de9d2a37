"""What the processes of a run tell each other when one of them fails, so that all end with its error."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from subprocess import Popen

from torch import distributed

from lightning_gancompress import slurm
from lightning_gancompress.lightning_internals import close_connections, store_of_ranks

_KEY = "gancompress/failed"
# what the backends say of a process that has ended; their errors have no class of its own
_LOST = re.compile(r"gloo/transport/\w+/(pair|unbound_buffer)|ncclRemoteError")


def tell_other_ranks(message: str) -> None:
    """Say why this process ends, and close its connections, on which the others may wait; the first stays."""
    store = store_of_ranks()
    if store is None:
        return
    rank = distributed.get_rank()
    with suppress(RuntimeError):  # the process that holds the store has ended
        store.compare_set(_KEY, "", f"Rank {rank} has failed: {message}")
    close_connections()
    if rank == 0:
        time.sleep(2)  # it may hold the store, in which the others look


def lost_connection(error: BaseException | None) -> bool:
    """Whether an error only says that another process has ended."""
    while error is not None:
        if isinstance(error, distributed.DistNetworkError) or _LOST.search(str(error)):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def failure_of_another_rank(error: Exception) -> str | None:
    """Why another process has ended, where an error says no more than that; None for any other error."""
    if not lost_connection(error):
        return None
    if slurm.starts_tasks():
        time.sleep(2)  # the signal that has ended another task may be on its way to this one
    store = store_of_ranks()
    with suppress(RuntimeError):  # the process that holds the store has ended
        if store is not None and store.check([_KEY]):
            return str(store.get(_KEY), "utf-8")
    return (
        "Another process of this run has ended: its own output says why, unless it was killed, as for lack "
        "of memory; then go on with --ckpt_path last."
    )


def killed_rank(children: Sequence[Popen[bytes]]) -> str | None:
    """Which process of this machine was ended by a signal; None if none was.

    Args:
        children: Processes of the ranks from 1 on.
    """
    time.sleep(1)  # those that are about to end do
    for rank, child in enumerate(children, 1):
        code = child.poll()
        if code is not None and code < 0:
            return (
                f"Rank {rank} was ended by {signal.Signals(-code).name}, as by kill or for lack of memory: "
                "go on with --ckpt_path last."
            )
    return None
