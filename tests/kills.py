"""Stop tiny runs at random moments, and compare what they come to: `python tests/kills.py --stops 100`.

Each run is killed (SIGKILL) twice, soon after a random event of its course. Then the same command with
`--ckpt_path last` goes on to the end, and its small generator, networks, optimizers and counters must equal,
bit by bit, those of a run that nobody stopped. Of two ranks one is killed, or both; the other must end by
itself. Jobs of a simulated Slurm get SIGUSR1 instead: all tasks must end with the exit code of that signal
and one call of `scontrol requeue`, and the same command in the next start of the job must go on by itself.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import known_groups
import tiny
from lightning.pytorch import Callback

LIMIT = 900.0  # seconds in which a run must end
GAP = 0.05  # seconds between an event and the stop, at most
IMPORTS = 4.0  # seconds in which a new process is stopped at start-up, at most


class Where(Callback):
    """Write a line per event of a run to a file: the place that the run has reached."""

    def __init__(self, events: str) -> None:
        self.events = events

    def _note(self, trainer: Any, place: str) -> None:
        if trainer.is_global_zero:
            with open(self.events, "a") as file:  # noqa: PTH123
                file.write(place + "\n")

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._note(trainer, "start-up")

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._note(trainer, "start-up")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self._note(trainer, pl_module.phase.name)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self._note(trainer, pl_module.phase.name)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._note(trainer, "validation")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        search = pl_module.phase.name == "search"
        last = trainer.current_epoch + 1 == getattr(pl_module, "search_epochs", 0)
        self._note(trainer, "border" if search and last else pl_module.phase.name)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        self._note(trainer, "writing")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._note(trainer, "end")


# -- runs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of run.

    Attributes:
        teacher: Arguments of its teacher, for a folder.
        run: Arguments of a run, for its folder and the teacher's checkpoint.
        fresh: Whether a process starts with Python and its imports, not as a fork of one that has them.
        tasks: Number of tasks as which Slurm starts it, and sends them SIGUSR1; 0 is no job, which is killed.
    """

    teacher: Callable[[Path], list[str]]
    run: Callable[[Path, Path], list[str]]
    fresh: bool = False
    tasks: int = 0


def _pix2pix(*options: str, fresh: bool = False, tasks: int = 0) -> Kind:
    def run(folder: Path, teacher: Path) -> list[str]:
        return [*tiny.compression(folder, teacher), *tiny.data(teacher.parents[2] / "facades"), *options]

    def teacher(folder: Path) -> list[str]:
        return [*tiny.teacher(folder, tiny.RESNET), *tiny.data(folder.parent / "facades")]

    return Kind(teacher, run, fresh, tasks)


def _cyclegan(*options: str) -> Kind:
    def run(folder: Path, teacher: Path) -> list[str]:
        data = tiny.domains(teacher.parents[2] / "domains")
        return [*tiny.compression(folder, teacher), *tiny.cyclegan(), *data, *options]

    return Kind(
        lambda folder: [*tiny.cyclegan_teacher(folder), *tiny.domains(folder.parent / "domains")], run
    )


KINDS = {
    "Pix2Pix": _pix2pix(),
    "CycleGAN": _cyclegan(),
    "two ranks": _pix2pix("--trainer.devices=2", "--trainer.strategy=ddp_fork"),
    "16-mixed": _pix2pix("--trainer.precision=16-mixed"),
    "bf16-mixed": _pix2pix("--trainer.precision=bf16-mixed"),
    "command line": _pix2pix(fresh=True),
    "Slurm, one task": _pix2pix("--data.num_workers=1", fresh=True, tasks=1),
    "Slurm, two tasks": _pix2pix("--trainer.devices=2", tasks=2),
}


class Run:
    """The processes of a command: one, or the tasks of a job of Slurm, and those that they have started."""

    def __init__(self, args: list[str], log: Path, fresh: bool, tasks: list[dict[str, str]]) -> None:
        self.log = log
        self._tasks: list[Any] = []
        for number, env in enumerate(tasks):
            path = log.with_suffix(f".{number}.log")
            if fresh:
                line = [sys.executable, "-m", "lightning_gancompress", *args]
                places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
                env = env | {"PYTHONPATH": os.pathsep.join(places)}  # where `Where` is found
                with path.open("w") as file:
                    task = subprocess.Popen(line, stdout=file, stderr=file, env=os.environ | env)
            else:  # most of a start is to read the networks
                task = tiny.Fork(args, path, env | {known_groups.FOLDER: str(log.parent)}).process
            self._tasks.append(task)

    @property
    def codes(self) -> list[int | None]:
        """Exit codes of the tasks, None while they run."""
        return [task.poll() if isinstance(task, subprocess.Popen) else task.exitcode for task in self._tasks]

    @property
    def runs(self) -> bool:
        """Whether all tasks run."""
        return all(code is None for code in self.codes)

    def processes(self) -> list[int]:
        """The tasks and their children."""
        found = [task.pid for task in self._tasks]
        for pid in list(found):
            with suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def wait(self, others: list[int]) -> list[int | None]:
        """Wait until all have ended; the exit codes."""
        deadline = time.monotonic() + LIMIT
        while None in self.codes or any(map(_runs, others)):
            if time.monotonic() > deadline:
                for pid in (*self.processes(), *others):
                    _send(pid, signal.SIGKILL)
                raise AssertionError(f"hangs: {self.log}")
            time.sleep(0.005)
        return self.codes


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _handles(pid: int) -> bool:
    """Whether a process has a handler for SIGUSR1, which would end it: one that has just started has none."""
    with suppress(OSError):
        caught = re.search(r"SigCgt:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
        return caught is not None and bool(int(caught[1], 16) >> signal.SIGUSR1 - 1 & 1)
    return True


def _send(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


# -- kills -----------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of the stops of one kind.

    Attributes:
        places: Stops by place.
        runs: Runs that were stopped and gone on with.
        equal: How many of them ended bit by bit like the whole run.
        faults: What was wrong with the others.
    """

    places: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    equal: int = 0
    faults: list[str] = field(default_factory=list)


class Trials:
    """Runs of one kind that are stopped.

    Args:
        name: Key of `KINDS`.
        folder: Where everything is written.
        chance: Source of the moments.
    """

    def __init__(self, name: str, folder: Path, chance: random.Random) -> None:
        self.kind, self.folder, self.chance = KINDS[name], folder / name.replace(" ", "-"), chance
        self.folder.mkdir(parents=True)
        self.tally, self._starts = Tally(), 0
        teacher = Run(self.kind.teacher(self.folder / "teacher"), self.folder / "teacher.log", False, [{}])
        assert teacher.wait([]) == [0], self.folder
        self._finish(self._args("whole", every_step=True), "whole")
        self.events = len(self._lines("whole"))

    def once(self, stops: int = 2) -> None:
        """Stop a run some times, let it go on, and compare it."""
        name = f"run-{self.tally.runs}"
        args = self._args(name, every_step=self.chance.random() < 0.5)
        if not self.kind.tasks:
            args += ["--ckpt_path", "last"]
        self.tally.runs += 1
        try:
            for number in range(stops):
                self._stop_one(args, f"{name}-stop-{number}")
            self._finish(args, name)
            tiny.assert_same_end(self.folder / "whole", self.folder / name)
            for one in sorted((self.folder / "whole").glob("generator*.pth")):
                tiny.assert_equal(tiny.read(one), tiny.read(self.folder / name / one.name))
        except AssertionError as error:
            self.tally.faults.append(f"{name}: {str(error)[:300]}")
            print(self.tally.faults[-1], flush=True)
        else:
            self.tally.equal += 1
        print(f"{name}: {dict(self.tally.places)}, equal {self.tally.equal} of {self.tally.runs}", flush=True)

    def _args(self, name: str, every_step: bool) -> list[str]:
        args = self.kind.run(self.folder / name, tiny.last(self.folder / "teacher"))
        return [*args, *(tiny.EVERY_STEP if every_step else [])]

    def _events(self, name: str) -> Path:
        return self.folder / f"{name}.events"

    def _lines(self, name: str) -> list[str]:
        return self._events(name).read_text().splitlines()

    def _start(self, args: list[str], name: str) -> Run:
        events = self._events(name)
        events.write_text("")
        where = ["--trainer.callbacks+=kills.Where", f"--trainer.callbacks.events={events}"]
        tasks = slurm_tasks(self.kind.tasks, self.folder, self._starts) if self.kind.tasks else [{}]
        self._starts += 1
        return Run([*args, *where], self.folder / name, self.kind.fresh, tasks)

    def _finish(self, args: list[str], name: str) -> None:
        codes = self._start(args, name).wait([])
        assert not any(codes), f"exit codes {codes}: {self.folder / name}.0.log"

    def _stop_one(self, args: list[str], name: str) -> None:
        """Stop one run soon after a random event; one that comes to its end before counts as none."""
        asked = requeues(self.folder)
        run = self._start(args, name)
        wanted = self.chance.randrange(self.events)
        while run.runs and len(self._lines(name)) < wanted:
            time.sleep(0.001)
        while self.kind.tasks and run.runs and not all(map(_handles, run.processes())):
            time.sleep(0.001)
        time.sleep(self.chance.uniform(0, IMPORTS if self.kind.fresh and not wanted else GAP))
        processes = run.processes()
        place = (self._lines(name) or ["start-up"])[-1]
        if self.kind.tasks:
            self._preempt(run, processes)
        elif run.runs:
            for pid in self.chance.choice([processes, processes[:1], processes[1:] or processes]):
                _send(pid, signal.SIGKILL)
        codes = run.wait(processes)
        if codes[0] != 0:
            self.tally.places[place] += 1
            if self.kind.tasks:
                assert set(codes) == {128 + signal.SIGUSR1}, f"exit codes {codes}: {self.folder / name}.0.log"
                assert requeues(self.folder) == asked + 1, f"requeue: {self.folder / name}.0.log"

    def _preempt(self, run: Run, processes: list[int]) -> None:
        """Send all processes the signal, as Slurm does, not quite at once."""
        for pid in processes:
            if run.runs:
                _send(pid, signal.SIGUSR1)
            time.sleep(self.chance.choice([0, 0.05]))


# -- jobs of Slurm ---------------------------------------------------------------------------------------


def slurm_tasks(count: int, folder: Path, restarts: int = 0) -> list[dict[str, str]]:
    """Environments of the tasks of a job, with an `scontrol` that only notes what it is asked."""
    scontrol = folder / "bin" / "scontrol"
    if not scontrol.exists():
        scontrol.parent.mkdir(parents=True)
        scontrol.write_text(f'#!/bin/sh\necho "$@" >> {folder / "scontrol.log"}\n')
        scontrol.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {
        "PATH": f"{scontrol.parent}:{os.environ['PATH']}",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "SLURM_JOB_ID": "1234",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": str(count),
        "SLURM_NTASKS_PER_NODE": str(count),
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}),
    }
    return [job | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in range(count)]


def requeues(folder: Path) -> int:
    """How often the job was asked to be started again."""
    log = folder / "scontrol.log"
    lines = log.read_text().splitlines() if log.exists() else []
    assert set(lines) <= {"requeue 1234"}, lines
    return len(lines)


# -- report ----------------------------------------------------------------------------------------------


def table(tallies: dict[str, Tally]) -> str:
    """A Markdown table of the stops."""
    rows = ["| kind | stops | where they hit | runs | bit-equal |", "|---|---|---|---|---|"]
    for name, tally in tallies.items():
        places = ", ".join(f"{place} {count}" for place, count in tally.places.most_common())
        rows.append(f"| {name} | {tally.places.total()} | {places} | {tally.runs} | {tally.equal} |")
    return "\n".join(rows)


def main() -> None:
    """Stop runs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stops", type=int, default=100, help="of all kinds together")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for runs and logs, which are kept; default: a new one")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    tallies: dict[str, Tally] = {}
    for name in args.kinds:
        trials = Trials(name, folder, random.Random(f"{name} {args.seed}"))
        tallies[name] = trials.tally
        while trials.tally.places.total() < args.stops / len(args.kinds):
            trials.once()
        print(f"{table({name: trials.tally})}\n{trials.tally.faults or ''}", flush=True)
    print(table(tallies))
    print(f"Logs: {folder}")
    sys.exit(any(tally.faults for tally in tallies.values()))


if __name__ == "__main__":
    main()
