"""Handling of Ctrl-C and SIGTERM such that the current step is finished first."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

NOTICE = b"\nStopping after this batch, with a checkpoint. Ctrl-C (again) stops at once.\n"


class StopSignals:
    """Records signals that ask this process to stop; a second Ctrl-C stops it at once.

    Args:
        speak: Whether to print that the process is about to stop.

    Attributes:
        received: The last signal, or None.
        waits: Whether the first Ctrl-C is only recorded in `received`; if not, it stops the process at once.
    """

    def __init__(self, speak: bool = False) -> None:
        self.speak = speak
        self.received: int | None = None
        self.waits = False
        self._process = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    def take_over(self, signum: signal.Signals) -> None:
        """Handle a signal from now on; only possible in the main thread, elsewhere this does nothing."""
        if threading.current_thread() is threading.main_thread():
            self._previous[signum] = signal.signal(signum, self._note)

    def give_back(self) -> None:
        """Restore the former handlers and forget received signals."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous, self.received, self.waits = {}, None, False

    def _note(self, received: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked worker: its parent decides
        if received == signal.SIGINT:
            signal.signal(received, signal.default_int_handler)
            if not self.waits:
                raise KeyboardInterrupt
        self.received = received
        if self.speak:
            os.write(2, NOTICE)  # not print: a handler may run while Python's buffers are locked
