"""Execution of runs in parallel, each command in a process of its own.

The process pool is our own: `concurrent.futures` reports neither which process died nor of which signal, and
does not forward Ctrl-C so that a run can save a checkpoint. The next command of a run is read from its
folder, so that the same command resumes after any interruption. Jobs of a cluster are in `jobs`.
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
from typing import Any

from lightning_gancompress.errors import UserError
from lightning_gancompress.reporting.comparison.plan import LOG, Run, settings_of

LOOK = 60.0  # seconds between two reports of the runs that are being executed
PROGRAM = "lightning_gancompress"


def execute(
    runs: Sequence[Run],
    jobs: int,
    threads: int,
    finished: Callable[[Run, str | None], None],
    working: Callable[[list[Run]], None],
) -> None:
    """Execute all commands of every run, `jobs` runs at a time; a failed run does not stop the others.

    Ctrl-C and SIGTERM are forwarded; runs then save a checkpoint from which the next call resumes.

    Args:
        runs: Runs to execute.
        jobs: Processes at a time.
        threads: CPU threads per process.
        finished: Called after each run with None, or with the last line of the log of a failed run.
        working: Called every `LOOK` seconds with the runs that are being executed.
    """
    waiting, active = list(runs), dict[Any, tuple[Run, Any]]()
    context = _context()
    with terminable():
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    process = context.Process(target=work, args=(waiting[0], threads))  # type: ignore[attr-defined]
                    process.start()
                    active[process.sentinel] = (waiting.pop(0), process)
                ended = multiprocessing.connection.wait(list(active), LOOK)
                if not ended:
                    working([run for run, _ in active.values()])
                for sentinel in ended:
                    run, process = active.pop(sentinel)
                    process.join()
                    if process.exitcode == 0 and run.stage() != "done":
                        waiting.insert(0, run)
                    else:
                        finished(run, last_words(run, process.exitcode) if process.exitcode else None)
        except BaseException:
            _stop([process for _, process in active.values()])
            raise


def work(run: Run, threads: int) -> None:
    """Execute the next command of a run in this process, which must be new: DDP leaves state behind.

    Exits with 2 after a UserError.
    """
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is forwarded by the parent, which may have to kill the whole group
    if hasattr(signal, "SIGUSR2"):
        signal.signal(
            signal.SIGUSR2, signal.SIG_IGN
        )  # by which Slurm tells the parent that a job's time is up
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for child processes
        import torch

        torch.set_num_threads(threads)
        try:
            _next_command(run)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)


def _next_command(run: Run) -> None:
    """Execute the fit or test that is due in a run."""
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
    """Call `python -m lightning_gancompress` in this process; DDP's launcher repeats `sys.argv`."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), command_line(arguments), flush=True)
    sys.argv[1:] = arguments
    runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)
    sys.stdout.flush()


def command_line(arguments: list[str]) -> str:
    """The shell command with these arguments."""
    return shlex.join(["python", "-m", PROGRAM, *arguments])


def last_words(run: Run, exitcode: int) -> str:
    """The last line of a run's log, or the signal that ended it."""
    if exitcode < 0:
        killed = signal.Signals(-exitcode).name
        return f"ended by {killed}" + (" (out of memory?)" if killed == "SIGKILL" else "")
    with suppress(OSError):
        lines = (run.folder / LOG).read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {exitcode}")
    return f"exit code {exitcode}"


def _context() -> BaseContext:
    """A context that forks processes from a server with all imports done, or spawns where it can't fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{PROGRAM}.cli"])
    return context


def _stop(processes: list[Any]) -> None:
    """Terminate processes and wait for their checkpoints; a second Ctrl-C kills them."""
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
def terminable() -> Iterator[None]:
    """Context in which SIGTERM raises `SystemExit(143)`."""
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
