"""Jobs of Slurm: which one this process is a task of, and having it started again."""

from __future__ import annotations

import os
import subprocess
import sys

_asked_for: set[tuple[str, str]] = set()  # starts of jobs which this process has had started again
INTERACTIVE = ("bash", "interactive")  # names of jobs in which Lightning ignores Slurm


def job() -> tuple[str, str] | None:
    """The job's number and how often it was started again, or None outside a job."""
    number = os.environ.get("SLURM_JOB_ID")
    return (number, os.environ.get("SLURM_RESTART_COUNT", "0")) if number else None


def starts_tasks() -> bool:
    """Whether Slurm has started this process as a task that trains, as Lightning tells it."""
    if "TORCHELASTIC_RUN_ID" in os.environ or job() is None:
        return False
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in INTERACTIVE


def requeue() -> None:
    """Have this job started again; only its first task asks for that, once, and says what came of it."""
    this = job()
    if this is None or this in _asked_for or os.environ.get("SLURM_PROCID", "0") != "0":
        return
    _asked_for.add(this)
    number = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        number = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", number], capture_output=True, text=True, check=False)
        fault = done.stderr.strip() if done.returncode else None
    except OSError as error:
        fault = str(error)
    if fault is None:
        words = f"Slurm will start job {number} again."
    else:
        words = (
            f"Slurm does not start job {number} again (scontrol requeue: {fault}): submit it with `sbatch "
            "--requeue`, or submit the same script again, with `--ckpt_path last` in its command."
        )
    os.write(2, f"{words}\n".encode())  # not print: a signal's handler may run while buffers are locked
    sys.stderr.flush()
