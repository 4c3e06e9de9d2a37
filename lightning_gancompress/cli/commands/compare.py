"""The command `compare`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch

from lightning_gancompress.cli.explain import explain
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.metrics import COMPARED
from lightning_gancompress.files import require_writable, user_path
from lightning_gancompress.options import Items, Seed, Threads, checked
from lightning_gancompress.pruning import Budget
from lightning_gancompress.reporting.comparison import (
    Cluster,
    Launcher,
    Run,
    execute,
    execute_jobs,
    found_runs,
    plan,
    require_own,
    with_larger_budgets,
    write_comparison,
)
from lightning_gancompress.reporting.comparison.runs import command_line
from lightning_gancompress.run_folder import alone_in

Rehearse = Callable[[list[str]], object]  # reads the arguments of a command and makes what they name


@checked
def compare(
    output: str,
    experiments: dict[str, list[str] | None] | None = None,
    seeds: Annotated[list[Seed], Items()] = [0, 1, 2],  # noqa: B006  # the command's help shows it
    budgets: list[Budget] = [],  # noqa: B006
    common: list[str] = [],  # noqa: B006
    test: list[str] = [],  # noqa: B006
    metrics: Annotated[list[str], Items()] = list(COMPARED),  # noqa: B006
    seed_options: list[str] = ["--seed_everything"],  # noqa: B006
    jobs: Threads | None = None,
    threads: Threads | None = None,
    launcher: Launcher | None = None,
    launcher_options: dict[str, Any] = {},  # noqa: B006
    only_report: bool = False,
    dry_run: bool = False,
    rehearse: Rehearse | None = None,
) -> None:
    """Run experiments with several seeds, and write tables and plots of their results.

    Every run is a `fit` and a `test` in OUTPUT/NAME[/budget_B]/seed_S, whose output is in log.txt. The
    options of the tests are read before anything is trained; epochs are told every minute. Finished commands
    are not repeated: the same command resumes after Ctrl-C or a failure. With --launcher slurm the runs are
    jobs of a cluster, and go on when the time of a job is over. After each run OUTPUT gets results.csv,
    table.md, plot.png (quality against MACs) and search.png (both sides' losses during the searches).
    Arguments of a run are configurations (`*.yaml`) and options (`--key=value`), in which {seed} and {budget}
    are replaced by those of the run.

    Args:
        output: The comparison's folder.
        experiments: Name -> arguments of its runs, after the common ones.
        seeds: Seeds; each experiment runs with each.
        budgets: Values of `--model.budget`; each experiment runs at each, or at its own if none are given.
        common: Arguments of every run.
        test: Further arguments of every test.
        metrics: Columns of the first table and panels of the plot: names in results.csv, or patterns. A
            second table has all others.
        seed_options: Options that get the seed. Order and augmentation of the images follow
            `--seed_everything`, unless `data.seed` is given.
        jobs: Runs at a time; None is one, with `slurm` all.
        threads: CPU threads per run; None divides the cores of this process, or OMP_NUM_THREADS, by `jobs`,
            and takes those of its job with `slurm`.
        launcher: Who runs them: this command, or jobs that submitit starts, `local` on this machine or by
            `slurm`, whose machines need the same files. Ctrl-C cancels jobs of Slurm; if this command ends
            otherwise they go on, and the same command waits for them again.
        launcher_options: Parameters of submitit's executor, such as `timeout_min`, `gpus_per_node`,
            `cpus_per_task`, `mem_gb`, `slurm_partition`, `slurm_account`, `slurm_setup`.
        only_report: Tabulate the runs in `output`, also those of other commands, and run nothing.
        dry_run: Print the commands, and run nothing.
        rehearse: Tries the arguments of a `fit` or a `test`; without it mistakes show when a run begins.
    """
    folder = user_path(output)
    require_own(folder)
    if only_report:
        _tabulate(folder, metrics)
        return
    if not experiments:
        raise UserError("`compare` needs experiments: give --config comparison.yaml.")
    runs = plan(
        folder, experiments, seeds=seeds, budgets=budgets, common=common, test=test, seed_options=seed_options
    )
    stages = {run: run.stage() for run in runs}
    if dry_run:
        _show(stages)
    else:
        if rehearse is not None:
            check_tests((run for run, stage in stages.items() if stage != "done"), rehearse)
        require_writable(folder, "output")
        with alone_in(folder, "Another comparison is at work", "output"):
            _run_all(stages, folder, metrics, engine(folder, jobs, threads, launcher, launcher_options))


def engine(
    folder: Path, jobs: int | None, threads: int | None, launcher: Launcher | None, options: dict[str, Any]
) -> Callable[..., None]:
    """What executes runs, and tells when one is finished."""
    own = threads or max(1, torch.get_num_threads() // (jobs or 1))
    if launcher is None:
        return partial(execute, jobs=jobs or 1, threads=own)
    cluster = Cluster(launcher, options, folder)
    return partial(execute_jobs, cluster=cluster, jobs=jobs, threads=threads if launcher == "slurm" else own)


def _tabulate(folder: Path, metrics: list[str]) -> None:
    """Write and print the tables of all runs in a folder."""
    places = found_runs(folder)
    if not places:
        raise UserError(
            f"{folder} holds no tested runs, each with test/results.json in a folder of its own: test them "
            "first, or give the folder that theirs lie in."
        )
    _print(f"warning: {warning}" for warning in write_comparison(folder, places, metrics))
    print((folder / "table.md").read_text())


def _show(stages: dict[Run, str]) -> None:
    """Print the commands that are due for each run."""
    for run, stage in stages.items():
        print(f"# {run.place.path}: {state(run, stage)}")
        commands = {"done": [], "test": ["test"]}.get(stage, [stage, "test"])
        _print(command_line(run.command(command)) for command in commands)


def _run_all(stages: dict[Run, str], folder: Path, metrics: list[str], execute: Callable[..., None]) -> None:
    """Execute all due commands, rewrite the tables after each run, and exit with 1 if a run failed."""
    failed: dict[Run, str] = {}
    said: dict[Run, str] = {}
    due = [run for run, stage in stages.items() if stage != "done"]
    print(", ".join(f"{stage}: {n}" for stage, n in Counter(stages.values()).items()), flush=True)

    def write() -> list[str]:
        names = list(dict.fromkeys(run.place.name for run in stages))
        done = [run.place for run in stages if run.stage() == "done"]
        done.sort(key=lambda place: (names.index(place.name), place.seed or 0))
        return write_comparison(folder, with_larger_budgets(folder, done), metrics)

    def finished(run: Run, failure: str | None) -> None:
        print(f"{run.place.path}: {'failed: ' + failure if failure else 'done'}", flush=True)
        if failure:
            failed[run] = failure
        else:
            write()

    def working(runs: list[Run]) -> None:
        for run in runs:
            if (now := state(run, run.stage()).removeprefix("resume, ")) != said.get(run):
                print(f"{run.place.path}: {now}", flush=True)
                said[run] = now

    execute(due, finished=finished, working=working)
    _print(f"warning: {warning}" for warning in write())
    print((folder / "table.md").read_text())
    if failed:
        print(f"{len(failed)} of {len(stages)} runs failed; the same command tries them again:")
        _print(f"{run.place.path}: {words} (see {run.folder / 'log.txt'})" for run, words in failed.items())
        raise SystemExit(1)


def state(run: Run, stage: str) -> str:
    """What is due in a run, and the epoch that its training has finished last."""
    epoch = run.epoch() if stage == "resume" else ""
    return f"{stage}, {epoch} is done" if epoch else stage


def check_tests(runs: Iterable[Run], rehearse: Rehearse) -> None:
    """Read the options of the tests, and make their callbacks, before the trainings begin.

    One run of each experiment is tried; one whose training can't be read either tells so itself, at once.

    Args:
        runs: Those that are due.
        rehearse: Reads the arguments of a command and makes what they name.

    Raises:
        UserError: The options of a test can't be used.
    """
    for run in {run.place.name: run for run in reversed(list(runs))}.values():
        try:
            rehearse(["fit", *run.fit])
        except Exception:  # whatever is wrong with it stands in its log soon
            continue
        try:
            rehearse(["test", *run.test])
        except Exception as error:
            if (words := explain(error)) is None:
                raise
            raise UserError(f"test of {run.place.name}: {words}") from error


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
