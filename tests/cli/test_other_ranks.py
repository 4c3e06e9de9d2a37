"""An error that only says that another process has ended gives way to that process's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightning_gancompress.cli import other_ranks
from lightning_gancompress.cli.other_ranks import failure_of_another_rank, killed_rank
from lightning_gancompress.errors import UserError

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"


def fail_by_a_loss(error: Exception, hidden: bool = False) -> None:
    """Raise an error while a lost connection is handled."""
    try:
        raise RuntimeError(GLOO)
    except RuntimeError as lost:
        raise error from (None if hidden else lost)


def test_errors_of_the_process_itself_are_its_own() -> None:
    for error in (UserError("mend it"), KeyError("bug"), RuntimeError("CUDA out of memory")):
        assert failure_of_another_rank(error) is None


def test_a_lost_connection_is_another_process_that_has_ended() -> None:
    with pytest.raises(UserError) as found:
        fail_by_a_loss(UserError("the state can't be restored"))
    assert "Another process of this run has ended" in str(failure_of_another_rank(found.value))


def test_the_first_process_says_which_one_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_ranks.time, "sleep", lambda seconds: None)
    code = "import os, sys; os.kill(os.getpid(), int(sys.argv[1])) if sys.argv[1] != '0' else None"
    children = [subprocess.Popen([sys.executable, "-S", "-c", code, signal]) for signal in ("0", "9")]
    for child in children:
        child.wait()
    killed = str(killed_rank(children))
    assert killed.startswith("Rank 2 was ended by SIGKILL")
    assert killed_rank(children[:1]) is None
    with pytest.raises(UserError) as found:
        fail_by_a_loss(UserError(killed), hidden=True)
    assert failure_of_another_rank(found.value) is None  # it says more than that a connection was lost
