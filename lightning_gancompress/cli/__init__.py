"""The command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_gancompress.stop_signals import requeued_at_once

if TYPE_CHECKING:
    from lightning.pytorch.cli import ArgsType

__all__ = ["main"]


def main(args: ArgsType = None) -> None:
    """Run the command line.

    Args:
        args: Arguments; None takes those of the process.

    Raises:
        SystemExit: With code 2 and one sentence on standard error for errors that the user can fix, 130
            after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 138 after SIGUSR1. With `--debug` among the
            arguments, or GANCOMPRESS_TRACEBACK=1 in the environment, errors are raised unchanged.
    """
    with requeued_at_once():
        # within, since importing torch takes seconds
        from lightning_gancompress.cli.entry import run

        run(args)
