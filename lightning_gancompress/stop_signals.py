"""Handling of signals that stop a run, such that the current step is finished first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from lightning_gancompress import slurm

NOTICE = b"\nStopping after this batch, with a checkpoint. Ctrl-C (again) stops at once.\n"
# of a terminal that is closed, of the user and of schedulers; Windows has neither
OTHERS = [number for number in signal.Signals if number.name in ("SIGHUP", "SIGUSR1")]


class Stopped(SystemExit):
    """A signal has stopped the run; the exit code is that of shells."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class StopSignals:
    """Records signals that ask this process to stop; a second Ctrl-C stops it at once.

    Args:
        speak: Whether to print that the process is about to stop.
        requeue_signal: Signal after which a job of Slurm is to be started again, if any.

    Attributes:
        received: The last signal, or None.
        waits: Whether signals are only recorded in `received`; if not, they stop the process at once.
    """

    def __init__(self, speak: bool = False, requeue_signal: int | None = None) -> None:
        self.speak, self.requeue_signal = speak, requeue_signal
        self.received: int | None = None
        self.waits = False
        self._requeue = False
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def take_over(self, signum: int) -> None:
        """Handle a signal from now on; only possible in the main thread, elsewhere this does nothing.

        One that is ignored, as SIGHUP under `nohup`, stays so.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        # Lightning ignores Ctrl-C after one, and an own handler needs no second place
        if signal.getsignal(signum) == signal.SIG_IGN and signum != signal.SIGINT:
            return
        previous = signal.signal(signum, self._note)
        self._previous.setdefault(signum, previous)

    def give_back(self) -> None:
        """Restore the former handlers and forget received signals."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous, self.received, self.waits, self._requeue = {}, None, False, False

    def ignore(self, signum: int) -> None:
        """Ignore a signal that is handled here, also after its handler would have been given back."""
        if self._previous.pop(signum, None) is not None:
            signal.signal(signum, signal.SIG_IGN)

    def end(self, signum: int) -> NoReturn:
        """End this process as `signum` asks, and have its job started again if a signal has asked for that.

        Raises:
            KeyboardInterrupt: The signal was Ctrl-C.
            Stopped: It was another.
        """
        self._requeue |= signum == self.requeue_signal
        self.requeue_if_asked()
        raise KeyboardInterrupt if signum == signal.SIGINT else Stopped(signum)

    def requeue_if_asked(self) -> None:
        """Have a job of Slurm started again, once, if a signal has asked for that."""
        if self._requeue:
            self._requeue, self.requeue_signal = False, None
            slurm.requeue()

    def _note(self, received: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked worker: its parent decides
        if received == signal.SIGINT:
            signal.signal(received, signal.default_int_handler)
        self._requeue |= received == self.requeue_signal
        if not self.waits:
            self.end(received)
        self.received = received
        if self.speak:
            os.write(2, NOTICE)  # not print: a handler may run while Python's buffers are locked


@contextmanager
def requeued_at_once() -> Iterator[None]:
    """Context in which SIGUSR1 has a job of Slurm started again at once: there is no training to save.

    A task that ends by it ignores it from then on: another task may have told it to stop before it had the
    signal itself, which would kill it on its way out.
    """
    signals = StopSignals(requeue_signal=signal.SIGUSR1 if OTHERS else None)
    takes_over = bool(OTHERS) and slurm.starts_tasks()
    if takes_over:
        signals.take_over(signal.SIGUSR1)
    try:
        yield
    except SystemExit as stop:
        if takes_over and stop.code == 128 + signal.SIGUSR1:
            signals.ignore(signal.SIGUSR1)
        raise
    finally:
        signals.give_back()


@contextmanager
def handlers_restored() -> Iterator[None]:
    """Context after which the handlers of signals are those of before, whatever a run has left.

    Lightning restores after a failed run what it has found when the run began, which are handlers of the run.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, *OTHERS)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:  # of another language, which can't be set from Python
                    signal.signal(number, handler)
