"""The folder of a run: one run trains there at a time, and what an earlier one has left is set aside."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from lightning_gancompress import slurm
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import alive, place_of_process
from lightning_gancompress.metadata import SAFETENSORS, has_description

try:
    import fcntl
except ImportError:  # Windows, where runs aren't kept apart
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
CHECKPOINTS = "checkpoints"
BORDER = f"{CHECKPOINTS}/border.ckpt"  # from which a run begins with its fine-tuning
CONFIG_HEADER = "# lightning_gancompress "
INDEX = "README.txt"
QUALITY = "quality.md"
QUALITY_HEADER = "Networks that were tried to find the smallest "
INDEX_HEADER = "A run of lightning_gancompress, and what its files are.\n"
BEAT = 20.0  # seconds between two signs of life of a run
PATIENCE = (
    120.0  # seconds without one after which a run on another host is gone; network disks cache a minute
)

_ASIDE = "previous-"  # and a number
_EXPORTED = (".onnx", ".pt2", ".xml", ".bin")

# what runs, their tests and exports write
_WRITTEN = (
    *(f"{CHECKPOINTS}/*{ending}" for ending in (".ckpt", *_EXPORTED)),
    "config.yaml",
    "config_*[0-9].yaml",
    INDEX,
    QUALITY,
    *(f"generator*{ending}" for ending in (".pth", ".json", ".safetensors", *_EXPORTED)),
    "images/epoch_*[0-9]*.png",
    "logs/version_*[0-9]/metrics.csv",
    "logs/version_*[0-9]/hparams.yaml",
    *(f"{name}/**/*.png" for name in ("predictions", "predictions_*")),
    "report.html",
    "speed*.json",
    *(f"test{of}/{name}" for of in ("", "_*") for name in ("grid*.png", "results*.json", "table*.md")),
    *(f"validate{of}/grid*.png" for of in ("", "_*")),
)
# what a comparison of runs writes; the first tells that it did
COMPARISON = ("results.csv", "table.md", "plot.png", "plot.svg", "search.png", "search.svg")
COMPARISON_HEADER = "experiment,"
# a folder without any of these is none of a run, whatever else is called alike
_SIGNS = (
    f"{CHECKPOINTS}/last.ckpt",
    BORDER,
    "config.yaml",
    "generator*.json",
    "generator*.safetensors",
    "test/results*.json",
)


# -- folders ---------------------------------------------------------------------------------------------


def folder_of_budget(root: Path, budget: float | str) -> Path:
    """The folder of the run of one of several budgets of a search whose run's folder is `root`."""
    return root / f"budget_{str(budget).strip()}"


# -- results of an earlier run ---------------------------------------------------------------------------


def earlier_results(folder: Path, without: Collection[Path] = ()) -> list[Path]:
    """Files that a run, and the runs of its larger budgets, have written into its folder.

    Those in the folders `without` are left out.
    """
    if not any(ours(path) for sign in _SIGNS for path in folder.glob(sign)):
        return []
    found = [path for pattern in _WRITTEN for path in sorted(folder.glob(pattern)) if ours(path)]
    if is_comparison(folder):
        found += [path for name in COMPARISON if (path := folder / name).is_file()]
    for inner in sorted(folder.glob("budget_*/")):
        found += earlier_results(inner)
    return [path for path in found if path.parent.resolve() not in without]


def set_aside(folder: Path, files: Collection[Path]) -> Path:
    """Move files of a run's folder into a new folder `previous-1`, `previous-2`, ... in it.

    Raises:
        UserError: They can't be moved.
    """
    aside = next(path for n in range(1, 10**6) if not os.path.lexists(path := folder / f"{_ASIDE}{n}"))
    try:
        for path in files:
            target = aside / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    except OSError as error:
        raise UserError(
            f"The results of an earlier run in {folder} can't be moved to {aside} ({error.strerror}): mend "
            "that, or choose another trainer.default_root_dir."
        ) from error
    parents = {parent for path in files for parent in path.parents if folder in parent.parents}
    for parent in sorted(parents, key=lambda parent: -len(parent.parts)):
        with suppress(OSError):  # it holds something else
            parent.rmdir()
    return aside


def is_comparison(folder: Path) -> bool:
    """Whether the tables and plots in a folder are those of a comparison."""
    table = folder / COMPARISON[0]
    return table.is_file() and table.read_text(errors="replace").startswith(COMPARISON_HEADER)


def is_aside(path: Path) -> bool:
    """Whether a relative path leads into results that were set aside."""
    return any(part.startswith(_ASIDE) and part.removeprefix(_ASIDE).isdigit() for part in path.parts)


def ours(path: Path) -> bool:
    """Whether a file whose name is one of a run's was written by one."""
    if not path.is_file():
        return False
    header = {INDEX: INDEX_HEADER, QUALITY: QUALITY_HEADER}.get(path.name)
    if path.name.startswith("config"):
        header = CONFIG_HEADER
    if header is not None:
        with path.open(errors="replace") as file:
            return file.read(len(header)) == header
    if path.suffix == SAFETENSORS:
        return has_description(path)
    pairs = {".pth": ".json", ".json": ".pth"}
    pair = pairs.get(path.suffix) if path.match("generator*") else None
    return pair is None or path.with_suffix(pair).is_file()


# -- one run at a time -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Owner:
    """Who trains in a folder.

    Attributes:
        pid: Number of the process.
        host: Name of its host.
        place: What tells its host and numbering of processes from others.
        job: Job of a scheduler and how often that was started again, if any.
        since: Time of its start.
    """

    pid: int
    host: str
    place: str
    job: tuple[str, str] | None
    since: str

    @classmethod
    def of_this_process(cls) -> Owner:
        """This process."""
        now = time.strftime("%Y-%m-%d %H:%M")
        return cls(os.getpid(), socket.gethostname(), place_of_process(), slurm.job(), now)

    @classmethod
    def of(cls, text: str) -> Owner | None:
        """The owner that a lock names; None if it names none, as that of a run that is just starting."""
        try:
            content: Mapping[str, Any] = json.loads(text)
            job = content["job"] and (str(content["job"][0]), str(content["job"][1]))
            return cls(
                int(content["pid"]), str(content["host"]), str(content["place"]), job, str(content["since"])
            )
        except (ValueError, TypeError, LookupError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def training_in(folder: Path) -> Iterator[None]:
    """Context in which no other run can train in a folder.

    Raises:
        UserError: Another run trains there.
    """
    with alone_in(folder, "Another run trains", "trainer.default_root_dir"):
        yield


@contextmanager
def alone_in(folder: Path, other: str, option: str) -> Iterator[None]:
    """Context in which no other process can enter such a context for a folder, by a file `run.lock` in it.

    The system gives the lock free when the process dies, however it dies. Not every file system shares locks
    between hosts, so the file's time is renewed too: a run on another host that no longer does so is gone,
    and so is the earlier start of the same job of Slurm.

    Args:
        folder: The folder.
        other: What another process is that does so, and does: the begin of the message.
        option: Option that chooses another folder, for the message.

    Raises:
        UserError: Another process does.
    """
    if fcntl is None:
        yield
        return
    path = folder.resolve() / LOCK
    try:
        if path in _locks:
            raise _Busy(Owner.of_this_process())
        lock = _acquired(path)
    except _Busy as busy:
        raise UserError(
            f"{other} in {path.parent} ({busy}): wait for it or stop it, or choose another {option}."
        ) from None
    _locks.add(path)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(path, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        with suppress(OSError):
            if _same(path, lock):
                path.unlink()
        lock.close()
        _locks.remove(path)


def holds(folder: Path) -> bool:
    """Whether this process, or the one that has started it as a rank, trains in a folder."""
    path = folder.resolve() / LOCK
    if fcntl is None or path in _locks:  # opening and closing the file would give the lock free
        return True
    try:
        owner = Owner.of(path.read_text())
    except OSError:
        return False
    return owner is not None and owner.pid == os.getppid()


_locks: set[Path] = set()  # of this process, against which the system doesn't lock


class _Busy(Exception):
    """Another process holds the lock: its owner is the message."""


def _acquired(path: Path) -> IO[str]:
    """The locked file, with this process as its owner."""
    lock = path.open("a+")
    try:
        locks = _locked(lock)
        lock.seek(0)
        owner = Owner.of(lock.read())
        if locks is False or (owner is not None and not _gone(owner, path, locks is None)):
            raise _Busy(owner or "just started")
        if _same(path, lock):
            lock.truncate(0)
            lock.write(json.dumps(asdict(Owner.of_this_process())) + "\n")
            lock.flush()
            return lock
    except BaseException:
        lock.close()
        raise
    lock.close()
    return _acquired(path)  # its owner has ended and removed it meanwhile


def _locked(lock: IO[str]) -> bool | None:
    """Lock a file for this process; False if another one has locked it, None where there are no locks."""
    try:
        # not flock: the workers of data loaders would inherit it, and outlive a killed run by seconds
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def _gone(owner: Owner, path: Path, unlockable: bool) -> bool:
    """Whether the owner of a file that the system hasn't locked has died."""
    this = Owner.of_this_process()
    if owner.place == this.place:
        return not unlockable or owner.pid == this.pid or not alive(owner.pid)
    if owner.host == this.host and not unlockable:
        return True  # a container that was started again
    if owner.job and this.job and owner.job[0] == this.job[0] and owner.job != this.job:
        return True  # requeued
    print(f"Waiting up to {PATIENCE:.0f} s for a sign of life of another run in {path.parent} ({owner}) ...")
    deadline, last = time.monotonic() + PATIENCE, path.stat().st_mtime_ns
    while time.monotonic() < deadline:
        time.sleep(min(BEAT, PATIENCE) / 10)
        with suppress(FileNotFoundError):  # it has ended
            if path.stat().st_mtime_ns != last:
                return False
    return True


def _beat(path: Path, ended: threading.Event) -> None:
    """Give signs of life."""
    while not ended.wait(BEAT):
        with suppress(OSError):
            os.utime(path)


def _same(path: Path, lock: IO[str]) -> bool:
    """Whether the open file is still the one at its path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False
