"""Running commands side by side, each in a process of its own.

The pool is written by hand. `concurrent.futures` doesn't tell which process has died of which signal, nor
does it pass Ctrl-C on such that a run leaves a checkpoint; `submitit` and its like need a scheduler such as
Slurm. A run is locked while it is worked on, so that several machines can share a comparison, and what is due
next is read from its folder, so that the same command goes on after any end.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import runpy
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.context import BaseContext
from typing import IO, Any

from lightning_gancompress.errors import UserError
from lightning_gancompress.reporting.comparison.plan import Run, settings_of

BUSY = 75  # exit code of a run that another comparison is at work on
PROGRAM = "lightning_gancompress"


def execute(
    runs: Sequence[Run], jobs: int, threads: int, finished: Callable[[Run, str | None], None]
) -> list[Run]:
    """Bring every run to its end, `jobs` at a time; a failure of one leaves the others alone.

    Ctrl-C and SIGTERM are passed on; runs stop with a checkpoint from which the next call goes on. Each run
    is locked by its process (`flock`: freed by the system when that dies; between machines as far as their
    file system has it, and not on Windows).

    Args:
        runs: What is to be done.
        jobs: Processes at once.
        threads: CPU threads of each.
        finished: Called after each run, with None or the last words of one that failed.

    Returns:
        Runs that another comparison was at work on.
    """
    waiting, active, elsewhere = list(runs), dict[Any, tuple[Run, Any]](), list[Run]()
    context = _context()
    with _terminable():
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    process = context.Process(target=work, args=(waiting[0], threads))  # type: ignore[attr-defined]
                    process.start()
                    active[process.sentinel] = (waiting.pop(0), process)
                for sentinel in multiprocessing.connection.wait(list(active)):
                    run, process = active.pop(sentinel)
                    process.join()
                    if process.exitcode == BUSY:
                        elsewhere.append(run)
                    elif process.exitcode == 0 and run.stage() != "done":
                        waiting.insert(0, run)
                    else:
                        finished(run, last_words(run, process.exitcode) if process.exitcode else None)
        except BaseException:
            _stop([process for _, process in active.values()])
            raise
    return elsewhere


def work(run: Run, threads: int) -> None:
    """Do what is due next, in this process alone: DDP leaves traces in one. Ends it unless all is well."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C comes through the parent, which may have to end all that this starts
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "lock").open("a") as lock, (run.folder / "log.txt").open("a") as log:
        if not _locked(lock):
            sys.exit(BUSY)
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of further processes
        import torch

        torch.set_num_threads(threads)
        try:
            _next_command(run)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)


def _next_command(run: Run) -> None:
    """The fit or the test that is due of a run that this process has locked."""
    if (settings_of(run.fit), settings_of(run.test)) != (run.settings["fit"], run.settings["test"]):
        raise UserError("Its configurations were edited after the comparison was started: start it again.")
    stage = run.stage()
    if stage in ("fit", "resume"):
        run.note()
        _call(run.command(stage))
        run.note("fit")
    elif stage == "test":
        run.note("fit")
        for old in run.results():
            old.unlink()  # of other settings
        _call(run.command(stage))
        if not run.results():
            raise UserError("The test has left no results: it needs the Evaluation callback.")
        run.note("fit", "test")


def _call(arguments: list[str]) -> None:
    """As `python -m lightning_gancompress` does, so that DDP's launcher finds the command to repeat."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), command_line(arguments), flush=True)
    sys.argv[1:] = arguments
    runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)
    sys.stdout.flush()


def command_line(arguments: list[str]) -> str:
    """What to type for the same."""
    return shlex.join(["python", "-m", PROGRAM, *arguments])


def last_words(run: Run, exitcode: int) -> str:
    """The end of a run's log, or the signal that ended it."""
    if exitcode < 0:
        killed = signal.Signals(-exitcode).name
        return f"ended by {killed}" + (" (out of memory?)" if killed == "SIGKILL" else "")
    with suppress(OSError):
        lines = (run.folder / "log.txt").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {exitcode}")
    return f"exit code {exitcode}"


def _context() -> BaseContext:
    """Processes forked from one that has imported everything and started nothing, where there are such."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{PROGRAM}.cli"])
    return context


def _locked(file: IO[str]) -> bool:
    """Whether this process now holds the lock on a file; the system frees it when the process ends."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _stop(processes: list[Any]) -> None:
    """Let runs write their checkpoints; a second Ctrl-C ends them at once."""
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.join()
    except (KeyboardInterrupt, SystemExit):
        for process in processes:
            with suppress(ProcessLookupError, AttributeError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block by `SystemExit(143)`, an exception as Ctrl-C is one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
