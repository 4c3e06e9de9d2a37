"""Kill tiny runs at random moments, and compare what they come to: `python tests/kills.py --kills 100`.

Each run is killed (SIGKILL) twice: soon after a random event of its course. Then the same command with
`--ckpt_path last` goes on to the end, and its small generator, networks, optimizers and counters must equal,
bit by bit, those of a run that nobody killed. Of two ranks one is killed, or both; the other must end by
itself.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
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

import tiny
from lightning.pytorch import Callback

LIMIT = 180.0  # seconds in which a run must end
GAP = 0.05  # seconds between an event and the kill, at most
IMPORTS = 4.0  # seconds in which a new process is killed at start-up, at most


class Where(Callback):
    """Write a line per event of a run: the place that the run has reached."""

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
    """

    teacher: Callable[[Path], list[str]]
    run: Callable[[Path, Path], list[str]]
    fresh: bool = False


def _pix2pix(*options: str, fresh: bool = False) -> Kind:
    def run(folder: Path, teacher: Path) -> list[str]:
        return [*tiny.compression(folder, teacher), *tiny.data(teacher.parents[2] / "facades"), *options]

    return Kind(
        lambda folder: [*tiny.teacher(folder, tiny.RESNET), *tiny.data(folder.parent / "facades")], run, fresh
    )


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
}


class Run:
    """A process that runs a command, and those that it has started."""

    def __init__(self, args: list[str], log: Path, fresh: bool) -> None:
        self.log = log
        self._process: Any
        if fresh:
            line = [sys.executable, "-m", "lightning_gancompress", *args]
            with log.open("w") as file:
                self._process = subprocess.Popen(line, stdout=file, stderr=file)
        else:
            self._process = tiny.Fork(args, log).process
        self.pid: int = self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        done: int | None = (
            self._process.poll() if isinstance(self._process, subprocess.Popen) else self._process.exitcode
        )
        return done

    def processes(self) -> list[int]:
        """This process and its children."""
        with suppress(OSError):
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [self.pid, *map(int, text.split())]
        return [self.pid]

    def wait(self, others: list[int]) -> int:
        """Wait until all have ended; the exit code."""
        deadline = time.monotonic() + LIMIT
        while self.code is None or any(map(_runs, others)):
            if time.monotonic() > deadline:
                for pid in (self.pid, *others):
                    _kill(pid)
                raise AssertionError(f"hangs: {self.log}")
            time.sleep(0.005)
        return self.code


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# -- kills -----------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of the kills of one kind.

    Attributes:
        places: Kills by place.
        runs: Runs that were killed and gone on with.
        equal: How many of them ended bit by bit like the whole run.
        faults: What was wrong with the others.
    """

    places: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    equal: int = 0
    faults: list[str] = field(default_factory=list)


class Trials:
    """Runs of one kind that are killed.

    Args:
        name: Key of `KINDS`.
        folder: Where everything is written.
        chance: Source of the moments.
    """

    def __init__(self, name: str, folder: Path, chance: random.Random) -> None:
        self.kind, self.folder, self.chance = KINDS[name], folder / name.replace(" ", "-"), chance
        self.folder.mkdir(parents=True)
        self.tally = Tally()
        self._finish(self.kind.teacher(self.folder / "teacher"), "teacher")
        self._finish(self._args("whole", every_step=True), "whole")
        self.events = len(self._lines("whole"))

    def once(self, kills: int = 2) -> None:
        """Kill a run some times, let it go on, and compare it."""
        name = f"run-{self.tally.runs}"
        args = [*self._args(name, every_step=self.chance.random() < 0.5), "--ckpt_path", "last"]
        self.tally.runs += 1
        try:
            for number in range(kills):
                self._kill_one(args, f"{name}-kill-{number}")
            self._finish(args, name)
            tiny.assert_same_end(self.folder / "whole", self.folder / name)
            for one in sorted((self.folder / "whole").glob("generator*.pth")):
                tiny.assert_equal(tiny.read(one), tiny.read(self.folder / name / one.name))
        except AssertionError as error:
            self.tally.faults.append(f"{name}: {str(error)[:300]}")
        else:
            self.tally.equal += 1

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
        return Run([*args, *where], self.folder / f"{name}.log", self.kind.fresh)

    def _finish(self, args: list[str], name: str) -> None:
        code = self._start(args, name).wait([])
        assert code == 0, f"exit code {code}: {self.folder / name}.log"

    def _kill_one(self, args: list[str], name: str) -> None:
        """Kill one run soon after a random event; one that comes to its end before counts as none."""
        run = self._start(args, name)
        wanted = self.chance.randrange(self.events)
        while run.code is None and len(self._lines(name)) < wanted:
            time.sleep(0.001)
        time.sleep(self.chance.uniform(0, IMPORTS if self.kind.fresh and not wanted else GAP))
        processes = run.processes()
        victims = self.chance.choice([processes, processes[:1], processes[1:] or processes])
        place = (self._lines(name) or ["start-up"])[-1]
        if run.code is None:
            for pid in victims:
                _kill(pid)
        if run.wait(processes) != 0:
            self.tally.places[place] += 1


# -- report ----------------------------------------------------------------------------------------------


def table(tallies: dict[str, Tally]) -> str:
    """A Markdown table of the kills."""
    rows = ["| kind | kills | where they hit | runs | bit-equal |", "|---|---|---|---|---|"]
    for name, tally in tallies.items():
        places = ", ".join(f"{place} {count}" for place, count in tally.places.most_common())
        rows.append(f"| {name} | {tally.places.total()} | {places} | {tally.runs} | {tally.equal} |")
    return "\n".join(rows)


def main() -> None:
    """Kill, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of all kinds together")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for runs and logs, which are kept; default: a new one")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    tallies: dict[str, Tally] = {}
    for name in args.kinds:
        trials = Trials(name, folder, random.Random(f"{name} {args.seed}"))
        tallies[name] = trials.tally
        while trials.tally.places.total() < args.kills / len(args.kinds):
            trials.once()
        print(f"{table({name: trials.tally})}\n{trials.tally.faults or ''}", flush=True)
    print(table(tallies))
    print(f"Logs: {folder}")
    sys.exit(any(tally.faults for tally in tallies.values()))


if __name__ == "__main__":
    main()
