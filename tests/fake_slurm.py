"""A Slurm of one machine for tests: `sbatch`, `srun`, `scontrol`, `scancel` and `sacct`, as far as used here.

Jobs start at once. Several nodes are processes of this machine. A job keeps its number when it is requeued.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scontrol", "scancel", "sacct")
WITH_VALUE = ("--output", "--error", "--signal", "--array", "--nodes", "--ntasks-per-node", "-o", "-j")


def install(folder: Path) -> dict[str, str]:
    """Variables of an environment in which the commands are found; their state lies in `folder`."""
    (folder / "bin").mkdir(parents=True)
    for name in COMMANDS:
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {__file__} {name} "$@"\n')
        script.chmod(0o755)
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"FAKE_SLURM": str(folder), "PATH": path}


def state() -> Path:
    """The folder of the jobs."""
    return Path(os.environ["FAKE_SLURM"])


def split(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options, and what follows them."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        name, equal, value = rest.pop(0).partition("=")
        options[name.lstrip("-")] = value if equal else rest.pop(0) if name in WITH_VALUE else "true"
    return options, rest


def sbatch(arguments: list[str]) -> int:
    """Submit a script."""
    given, rest = split(arguments)
    lines = [line for line in Path(rest[0]).read_text().splitlines() if line.startswith("#SBATCH ")]
    options: dict[str, str] = {}
    for line in lines:
        options |= split([word for word in shlex.split(line[8:], comments=True) if word.startswith("-")])[0]
    options |= given
    if options.get("partition") == "none":
        print("sbatch: error: invalid partition specified: none", file=sys.stderr)
        return 1
    job = free_number()
    line = [sys.executable, __file__, "job", str(job), json.dumps(options), *rest]
    log = (state() / "jobs.log").open("a")
    subprocess.Popen(line, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    print(f"Submitted batch job {job}")
    return 0


def free_number() -> int:
    """A number of a job whose port, by Lightning's rule 15000 + number, is free."""
    while True:
        number = random.randrange(1000, 9900)
        with socket.socket() as port, suppress(OSError):
            port.bind(("127.0.0.1", 15000 + number))
            return number


def run_job(job: str, options: dict[str, str], script: list[str]) -> None:
    """Run a job, or all elements of an array."""
    if "array" not in options:
        run_element(job, job, options, script, {})
        return
    elements, _, limit = options["array"].partition("%")
    first, _, last = elements.partition("-")
    numbers = range(int(first), int(last or first) + 1)
    with ThreadPoolExecutor(int(limit or len(numbers))) as pool:
        for number in numbers:
            array = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(number)}
            own = str(int(job) + number)
            pool.submit(run_element, f"{job}_{number}", own, options, script, array)


def run_element(
    name: str, job: str, options: dict[str, str], script: list[str], array: dict[str, str]
) -> None:
    """Run a script until it isn't requeued."""
    nodes, tasks = int(options.get("nodes", 1)), int(options.get("ntasks-per-node", 1))
    env = os.environ | array
    env |= {"SLURM_JOB_ID": job, "SLURM_JOB_NAME": options.get("job-name", "job"), "FAKE_NAME": name}
    env |= {"SLURM_NNODES": str(nodes), "SLURM_NTASKS": str(nodes * tasks), "SLURM_NODELIST": "127.0.0.1"}
    env |= {"SLURM_NTASKS_PER_NODE": str(tasks), "SLURM_JOB_NODELIST": "127.0.0.1"}
    if "cpus-per-task" in options:
        env["SLURM_CPUS_PER_TASK"] = options["cpus-per-task"]
    restarts = 0
    while True:
        note(name, "RUNNING")
        env |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        with open(expand(options.get("output", "slurm-%j.out"), env), "a") as out:  # noqa: PTH123
            code = subprocess.run(["bash", *script], env=env, stdout=out, stderr=out, check=False).returncode
        requeued = state() / f"{name}.requeue"
        if not requeued.exists():
            break
        requeued.unlink()
        restarts += 1
    cancelled = (state() / f"{name}.cancelled").exists()
    note(name, "CANCELLED by 0" if cancelled else "FAILED" if code else "COMPLETED")


def expand(name: str, env: dict[str, str] | os._Environ[str], task: int = 0) -> str:
    """A name of a file with the numbers of job and task."""
    numbers = {"%j": env["SLURM_JOB_ID"], "%t": str(task)}
    numbers |= {"%A": env.get("SLURM_ARRAY_JOB_ID", ""), "%a": env.get("SLURM_ARRAY_TASK_ID", "")}
    for short, number in numbers.items():
        name = name.replace(short, number)
    return name


def note(name: str, what: str) -> None:
    draft = state() / f"{name}.draft"
    draft.write_text(what)
    draft.rename(state() / f"{name}.state")


def srun(arguments: list[str]) -> int:
    """Start the tasks of a job."""
    options, command = split(arguments)
    tasks = []
    for number in range(int(os.environ["SLURM_NTASKS"])):
        per_node = int(os.environ["SLURM_NTASKS_PER_NODE"])
        env = os.environ | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number % per_node)}
        env |= {"SLURM_NODEID": str(number // per_node)}
        out = open(expand(options["output"], env, number), "a") if "output" in options else None  # noqa: PTH123, SIM115
        tasks.append(subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True))
    pids = state() / f"{os.environ['FAKE_NAME']}.pids"
    pids.write_text(" ".join(str(task.pid) for task in tasks))
    codes = [task.wait() for task in tasks]
    pids.unlink()
    return max(abs(code) for code in codes)


def scontrol(arguments: list[str]) -> int:
    """Requeue a job."""
    assert arguments[0] == "requeue"
    name = os.environ.get("FAKE_NAME", arguments[1])
    (state() / f"{name}.requeue").touch()
    with (state() / "requeued").open("a") as log:
        log.write(f"{arguments[1]}\n")
    return 0


def scancel(arguments: list[str]) -> int:
    """Send a signal to the tasks of a job, or end it."""
    name = next(word for word in arguments if word[0].isdigit())
    signum = next((w.partition("=")[2] for w in arguments if w.startswith("--signal=")), "")
    if not signum:
        (state() / f"{name}.cancelled").touch()
    for pid in (state() / f"{name}.pids").read_text().split():
        with suppress(ProcessLookupError):
            os.killpg(int(pid), getattr(signal, f"SIG{signum or 'TERM'}"))
            if not signum:
                time.sleep(0.2)
                os.killpg(int(pid), signal.SIGKILL)
    return 0


def sacct(arguments: list[str]) -> int:
    """The states of jobs."""
    print("JobID|State|NodeList")
    for job in (word for word in arguments if word.isdigit()):
        for path in [*state().glob(f"{job}.state"), *state().glob(f"{job}_*.state")]:
            print(f"{path.stem}|{path.read_text()}|here")
    return 0


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if name == "job":
        run_job(rest[0], json.loads(rest[1]), rest[2:])
    else:
        sys.exit(globals()[name](rest))
