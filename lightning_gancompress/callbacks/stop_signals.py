"""Ctrl-C and SIGTERM, which let the step at hand end."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

NOTICE = b"\nStopping after this batch, with a checkpoint. Ctrl-C (again) stops at once.\n"


class StopSignals:
    """Takes note of signals that ask this process to stop; a second Ctrl-C stops it at once.

    Args:
        speak: Whether to say that the process is about to stop.

    Attributes:
        received: The last signal, or None.
        waits: Whether Ctrl-C waits for somebody to look at `received`; until then it stops at once.
    """

    def __init__(self, speak: bool = False) -> None:
        self.speak = speak
        self.received: int | None = None
        self.waits = False
        self._process = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    def take_over(self, signum: signal.Signals) -> None:
        """Handle a signal from now on; nothing outside of the main thread, where none can be handled."""
        if threading.current_thread() is threading.main_thread():
            self._previous[signum] = signal.signal(signum, self._note)

    def give_back(self) -> None:
        """Forget what was received, and let the signals be handled as before."""
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
            os.write(2, NOTICE)  # without Python's buffers, which a handler may find locked
