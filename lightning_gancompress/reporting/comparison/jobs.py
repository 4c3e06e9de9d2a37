"""Execution of runs as jobs of a cluster, by `submitit`.

A job executes all commands of a run, each in a process of its own. Jobs outlive the comparison that has
submitted them: their numbers are kept, so that the same command waits for those that still run.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.files import replacing
from lightning_gancompress.packages import require
from lightning_gancompress.reporting.comparison.plan import Run
from lightning_gancompress.reporting.comparison.runs import LOOK, last_words, terminable, work

Launcher = Literal["local", "slurm"]
FOLDER, NUMBERS = "submitit", "jobs.json"
POLL = 1.0  # seconds between two looks at the jobs
DAY = 24 * 60  # minutes
SAVING = 300  # seconds before the end of a job's time in which runs save, as docs/reliability.md has it
GRACE = 900.0  # seconds in which Slurm ends or requeues a job whose processes got SIGTERM


class Job:
    """What a job executes: the commands of a run that are due, one after the other.

    Args:
        run: The run.
        threads: CPU threads; None takes the cores that Slurm gives a task, else 1.
    """

    def __init__(self, run: Run, threads: int | None) -> None:
        self.run, self.threads = run, threads
        self._process: BaseProcess | None = None

    def __call__(self) -> str | None:
        """Execute them; None, or the last line of the log of a command that has failed."""
        # a run starts its ranks itself, and submitit requeues: it must not act as a task of Slurm
        os.environ.pop("SLURM_NTASKS", None)
        threads = self.threads or int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
        try:
            while self.run.stage() != "done":
                # not forked: a server that forks would die of the signals that a job gets
                self._process = multiprocessing.get_context("spawn").Process(
                    target=work, args=(self.run, threads)
                )
                self._process.start()
                self._process.join()
                if code := self._process.exitcode:
                    if code in (128 + signal.SIGTERM, -signal.SIGTERM):
                        time.sleep(GRACE)  # pre-empted or cancelled, of which submitit tells nothing
                    return last_words(self.run, code)
        except BaseException:
            self._stop()
            raise
        return None

    def checkpoint(self) -> Any:
        """Have the run saved and the job requeued; called by submitit when the job is about to end."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        return DelayedSubmission(Job(self.run, self.threads))

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.join()


@dataclass(frozen=True)
class Cluster:
    """Where jobs are submitted.

    Attributes:
        launcher: `local` for processes of this machine, or `slurm`.
        options: Further parameters of submitit's executor.
        folder: The comparison's folder.
    """

    launcher: Launcher
    options: Mapping[str, Any]
    folder: Path

    def executor(self, jobs: int | None) -> Any:
        """A submitit executor, of whose jobs `jobs` run at a time where Slurm decides it.

        Raises:
            UserError: submitit or Slurm's commands are missing, or an option is none.
        """
        require(f"launcher: {self.launcher}", "submitit")
        import submitit

        if missing := [
            name for name in ("sbatch", "srun") if self.launcher == "slurm" and not shutil.which(name)
        ]:
            raise UserError(
                f"launcher: slurm needs {' and '.join(missing)}, which can't be found: start this where jobs "
                "are submitted to Slurm, or leave launcher out to run everything on this machine."
            )
        if several := [name for name in ("nodes", "tasks_per_node") if self.options.get(name, 1) != 1]:
            raise UserError(
                f"launcher_options: {several[0]} must be 1, since a run starts its own processes: set "
                "gpus_per_node here and trainer.devices among the options of the runs."
            )
        executor = submitit.AutoExecutor(
            self.folder / FOLDER, cluster=self.launcher, slurm_max_num_timeout=10**6
        )
        defaults: dict[str, Any] = {"name": "gancompress", "timeout_min": DAY, "slurm_signal_delay_s": SAVING}
        if self.launcher == "local":
            import torch  # here, since jobs load this file

            defaults |= {"timeout_min": 365 * DAY, "gpus_per_node": torch.cuda.device_count()}
        elif jobs is not None:
            defaults["slurm_array_parallelism"] = jobs
        try:
            executor.update_parameters(**{**defaults, **self.options})
        except (NameError, AssertionError, TypeError, ValueError) as error:
            raise UserError(f"launcher_options: {first_line(error)}") from error
        return executor

    def submitted_before(self, runs: Sequence[Run]) -> dict[Run, Any]:
        """Jobs of an earlier call that still wait or run."""
        if self.launcher != "slurm":
            return {}
        from submitit import SlurmJob

        folder = self.folder / FOLDER
        try:
            numbers = json.loads((folder / NUMBERS).read_bytes())
        except (OSError, ValueError):
            return {}
        known = {run: numbers[str(run.place.path)] for run in runs if str(run.place.path) in numbers}
        jobs: dict[Run, Any] = {run: SlurmJob(folder, number) for run, number in known.items()}
        return {run: job for run, job in jobs.items() if _active(job)}

    def note(self, jobs: Mapping[Run, Any]) -> None:
        """Keep the numbers of the jobs that were submitted."""
        with replacing(self.folder / FOLDER / NUMBERS) as draft:
            draft.write_text(
                json.dumps({str(run.place.path): job.job_id for run, job in jobs.items()}, indent=2)
            )


def execute_jobs(
    runs: Sequence[Run],
    cluster: Cluster,
    jobs: int | None,
    threads: int | None,
    finished: Callable[[Run, str | None], None],
    working: Callable[[list[Run]], None],
) -> None:
    """Execute all commands of every run in jobs; a failed run does not stop the others.

    With `slurm` they are one array of jobs. Ctrl-C and SIGTERM cancel the jobs; what has begun then saves a
    checkpoint from which the next call resumes.

    Args:
        runs: Runs to execute.
        cluster: Where they are executed.
        jobs: Jobs at a time; None is one, with `slurm` all.
        threads: CPU threads per run; None are the cores of the job.
        finished: Called after each run with None, or with the reason of its failure.
        working: Called every `LOOK` seconds with the runs that are being executed.

    Raises:
        UserError: The jobs can't be submitted.
    """
    executor = cluster.executor(jobs)
    active = cluster.submitted_before(runs)
    waiting = [run for run in runs if run not in active]
    at_once = len(runs) if cluster.launcher == "slurm" else jobs or 1
    looked = time.monotonic()
    with terminable():
        try:
            while waiting or active:
                if new := waiting[: at_once - len(active)]:
                    active |= _submit(executor, new, threads)
                    waiting = waiting[len(new) :]
                    cluster.note(active)
                time.sleep(POLL)
                for run in [run for run, job in active.items() if job.done()]:
                    finished(run, _failure(active.pop(run)))
                if time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    working(list(active))
        except BaseException:
            for job in active.values():
                job.cancel(check=False)
            raise


def _submit(executor: Any, runs: Sequence[Run], threads: int | None) -> dict[Run, Any]:
    try:
        with executor.batch():
            jobs = [executor.submit(Job(run, threads)) for run in runs]
        return dict(zip(runs, jobs, strict=True))
    except Exception as error:
        words = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"launcher: the jobs were refused ({words[-1] if words else type(error).__name__}): mend "
            "launcher_options."
        ) from error


def _failure(job: Any) -> str | None:
    """Why a job that is over has failed; None if it hasn't."""
    try:
        words: str | None = job.result()
    except Exception as error:  # of submitit, where the job has left no result
        return f"job {job.job_id}: {first_line(error)}"
    return words


def _active(job: Any) -> bool:
    """Whether a job of an earlier call still waits or runs."""
    state = job.watcher.get_state(job.job_id, mode="force").upper()
    return not job.paths.result_pickle.exists() and state in (
        "PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED", "SUSPENDED",
    )  # fmt: skip
