"""Comparisons whose runs are jobs: of submitit's local executor, and of a Slurm of one machine."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fake_slurm
import pytest
import tiny
import yaml

from lightning_gancompress.cli import main
from lightning_gancompress.reporting.comparison import jobs, plan

TEST = ["--trainer.callbacks+=Evaluation", "--trainer.callbacks.latency=false"]
BROKEN = {"broken": ["--model.nonsense=1"]}


@pytest.fixture
def common(unet: Path, facades: list[str]) -> list[str]:
    model = ["--model=CompressionModule", f"--model.teacher={unet}", "--model.budget=0.3"]
    return [*model, *facades, *tiny.QUICK, "--trainer.limit_train_batches=1", "--model.decay_epochs=0"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "slurm"


def write(folder: Path, common: list[str], experiments: dict[str, list[str]], **more: Any) -> list[str]:
    """Arguments of a comparison in `folder`."""
    settings = {"output": str(folder), "common": common, "experiments": experiments, "test": TEST}
    settings |= {"seed_options": ["--seed_everything"], "seeds": [0], "metrics": ["l1"]}
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(settings | more, sort_keys=False))
    return ["compare", "--config", str(file), "--threads=1"]


@pytest.mark.slow
def test_a_job_goes_on_when_its_time_is_over(tmp_path: Path, common: list[str]) -> None:
    experiments = {"long": ["--trainer.callbacks=UniformWidth", "--model.epochs=20", *tiny.EVERY_STEP]}
    args = write(tmp_path / "all", common, experiments)
    run = tmp_path / "all" / "long" / "seed_0"

    def end_time() -> None:
        while not tiny.last(run).exists():
            time.sleep(0.05)
        (number,) = json.loads((tmp_path / "all/submitit/jobs.json").read_text()).values()
        (worker,) = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        os.kill(int(worker), signal.SIGUSR2)

    thread = threading.Thread(target=end_time)
    thread.start()
    main([*args, "--launcher=local"])
    thread.join()
    log = (run / "log.txt").read_text()
    assert log.count(" lightning_gancompress fit ") == 2
    assert log.count("\nepoch 1/20 ") == 1  # nothing was repeated
    assert "\nepoch 20/20 " in log
    assert json.loads((run / "command.json").read_text())["finished"] == ["fit", "test"]
    assert "| long |  | 1 |" in (tmp_path / "all/table.md").read_text()


def test_slurm_runs_an_array_and_its_failures_are_told(
    slurm: Path, tmp_path: Path, common: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = write(tmp_path / "all", common, BROKEN, seeds=[0, 1])
    options = json.dumps({"slurm_partition": "small", "timeout_min": 90, "cpus_per_task": 2})
    with pytest.raises(SystemExit) as stop:
        main([*args, "--launcher=slurm", "--jobs=1", f"--launcher_options={options}"])
    assert stop.value.code == 1
    said = capsys.readouterr().out
    for seed in (0, 1):
        assert f"broken/seed_{seed}: failed: error: model: option 'nonsense' is not accepted." in said
    (script,) = (tmp_path / "all/submitit").glob("[0-9]*_submission*.sh")
    lines = script.read_text().splitlines()
    for words in ("array=0-1%1", "partition=small", "time=90", "signal=USR2@300", "job-name=gancompress"):
        assert f"#SBATCH --{words}" in lines
    assert len(list(slurm.glob("*_*.state"))) == 2


def stored(run: Any, folder: Path, number: str) -> None:
    """The number of a job that an earlier comparison has submitted."""
    (folder / "submitit").mkdir(parents=True)
    (folder / "submitit" / "jobs.json").write_text(json.dumps({str(run.place.path): number}))


def one_run(tmp_path: Path) -> Any:
    rest: Any = {"seeds": [0], "budgets": [], "common": [], "test": [], "seed_options": []}
    (run,) = plan(tmp_path / "all", {"a": []}, **rest)
    return run


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_jobs_of_an_earlier_call_are_waited_for(state: str, slurm: Path, tmp_path: Path) -> None:
    run = one_run(tmp_path)
    stored(run, tmp_path / "all", "77_0")
    (slurm / "77_0.state").write_text(state)
    result = tmp_path / "all/submitit/77_0_0_result.pkl"
    threading.Timer(0.5, lambda: result.write_bytes(pickle.dumps(("success", "error: it failed.")))).start()
    ended: list[Any] = []
    cluster = jobs.Cluster("slurm", {}, tmp_path / "all")
    jobs.execute_jobs([run], cluster, None, None, lambda *said: ended.append(said), print)
    assert ended == [(run, "error: it failed.")]
    assert not list((tmp_path / "all/submitit").glob("*.sh"))  # nothing was submitted


def test_jobs_that_are_over_are_submitted_again(slurm: Path, tmp_path: Path) -> None:
    run = one_run(tmp_path)
    stored(run, tmp_path / "all", "78_0")
    cluster = jobs.Cluster("slurm", {}, tmp_path / "all")
    assert cluster.submitted_before([run]) == {}  # Slurm has forgotten it
    (slurm / "78_0.state").write_text("CANCELLED by 0")
    assert cluster.submitted_before([run]) == {}


def test_ctrl_c_cancels_the_jobs(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = one_run(tmp_path)
    stored(run, tmp_path / "all", "79_0")
    (slurm / "79_0.state").write_text("RUNNING")
    (slurm / "79_0.pids").write_text("")

    def interrupt(runs: list[Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "LOOK", 0.0)
    cluster = jobs.Cluster("slurm", {}, tmp_path / "all")
    with pytest.raises(KeyboardInterrupt):
        jobs.execute_jobs([run], cluster, None, None, lambda *_: None, interrupt)
    assert (slurm / "79_0.cancelled").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nonsense_x": 1}, "launcher_options: Unknown executor 'nonsense' in parameter 'nonsense_x'."),
        ({"slurm_nonsense": 1}, "launcher_options: Unknown argument 'nonsense' for executor 'slurm'"),
        ({"timeout_min": "long"}, 'launcher_options: Parameter "timeout_min" expected type'),
        ({"nodes": 2}, "launcher_options: nodes must be 1"),
        ({"slurm_partition": "none"}, "invalid partition specified: none"),
    ],
)
def test_options_that_submitit_or_slurm_refuses(
    options: dict[str, Any],
    words: str,
    slurm: Path,
    tmp_path: Path,
    common: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = write(tmp_path / "all", common, BROKEN)
    line = [*args, "--launcher=slurm", f"--launcher_options={json.dumps(options)}"]
    code, said = tiny.fail_code(capsys, line)
    assert code == 2
    assert said.startswith(("error: ", "sbatch: error: "))  # which says it too
    assert words in said.splitlines()[-1]
    assert not (tmp_path / "all" / "broken").exists()


def test_without_slurm_or_submitit(
    tmp_path: Path, common: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = write(tmp_path / "all", common, BROKEN)
    monkeypatch.setenv("PATH", "")
    code, said = tiny.fail_code(capsys, [*args, "--launcher=slurm"])
    assert (code, said.count("\n")) == (2, 1)
    assert "launcher: slurm needs sbatch and srun, which can't be found" in said
    monkeypatch.setitem(sys.modules, "submitit", None)
    code, said = tiny.fail_code(capsys, [*args, "--launcher=local"])
    assert (code, said.count("\n")) == (2, 1)
    assert "needs submitit: run `pip install submitit`" in said


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, common: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    args = write(tmp_path / "all", common, BROKEN)
    code, said = tiny.fail_code(capsys, [*args, f"--output={tmp_path / 'file' / 'all'}"])
    assert (code, said.count("\n")) == (2, 1)
    assert "can't be written to (Not a directory): mend that, or choose another with output." in said
