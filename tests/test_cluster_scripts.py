"""The shipped scripts of clusters: on a Slurm of one machine, two nodes being processes of it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import fake_slurm
import pytest
import tiny
import yaml

from lightning_gancompress.cli import main
from lightning_gancompress.shipped_configs import configs_folder

SCRIPTS = configs_folder() / "cluster"
RECORDER = """#!/bin/sh
exec >> "$RECORD.$SLURM_PROCID$SLURM_ARRAY_TASK_ID"
echo "$@"
env | grep -E '^(SLURM|SRUN)_' | tr '\\n' ' '
echo
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Slurm, which is that of the tests' working folder too."""
    for name, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):  # of other tests
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "slurm"


@pytest.fixture
def recorder(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that get the arguments and the environment of each process in place of Python."""
    for name in ("python", "torchrun"):
        path = slurm / "bin" / name
        path.write_text(RECORDER)
        path.chmod(0o755)
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    return tmp_path / "record"


def submit(*arguments: str) -> str:
    line = ["sbatch", *arguments]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return said.split()[-1]


def until(happened: Callable[[], object], log: Path | None = None, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, log and log.read_text()
        time.sleep(0.02)


def over(slurm: Path, name: str) -> bool:
    path = slurm / f"{name}.state"
    return path.exists() and path.read_text() != "RUNNING"


def parsed(line: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The settings that a command of a script has after the parser."""
    words = line.split()
    with pytest.raises(SystemExit) as stop:
        main([*words[words.index("lightning_gancompress") + 1 :], "--print_config"])
    assert not stop.value.code
    settings: dict[str, object] = yaml.safe_load(capsys.readouterr().out)["trainer"]
    return settings


@pytest.mark.parametrize(("nodes", "tasks"), [(1, 4), (2, 8)])
def test_one_machine_or_several(
    nodes: int, tasks: int, slurm: Path, recorder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [] if nodes == 1 else ["--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8"]
    job = submit(*options, str(SCRIPTS / "slurm.sh"), "--config", "pix2pix_facades.yaml")
    until(lambda: over(slurm, job))
    for number in range(nodes * tasks):
        line, variables = recorder.with_suffix(f".{number}").read_text().splitlines()
        assert f"SLURM_NODEID={number // tasks} " in variables
        assert "SRUN_CPUS_PER_TASK=8 " in variables
        if number == 0:
            trainer = parsed(line, capsys)
            assert (trainer["devices"], trainer["num_nodes"]) == (str(tasks), nodes)


def test_seeds(slurm: Path, recorder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = submit("--array=3-4", str(SCRIPTS / "slurm_seeds.sh"), "--config", "pix2pix_facades.yaml")
    for seed in (3, 4):
        until(lambda name=f"{job}_{seed}": over(slurm, name))
        fit, _, test, _ = recorder.with_suffix(f".0{seed}").read_text().splitlines()
        assert f" --seed_everything={seed} " in fit
        assert parsed(fit, capsys)["default_root_dir"] == f"runs/seeds/seed_{seed}"
        assert f" test --ckpt_path=runs/seeds/seed_{seed}/checkpoints/last.ckpt" in test


@pytest.mark.slow
def test_a_job_of_two_nodes_goes_on_when_its_time_is_over(
    slurm: Path, tmp_path: Path, facades: list[str]
) -> None:
    run = [*tiny.teacher(tmp_path / "run"), *facades, "--model.epochs=14", "--data.num_workers=0"]
    job = submit("--nodes=2", "--ntasks-per-node=1", str(SCRIPTS / "slurm.sh"), *run[1:], *tiny.EVERY_STEP)
    log = tmp_path / f"slurm-{job}.out"
    until(tiny.last(tmp_path / "run").exists, log)
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    until(lambda: over(slurm, job), log)
    text = log.read_text()
    assert (slurm / f"{job}.state").read_text() == "COMPLETED", text
    assert (slurm / "requeued").read_text().split() == [job]
    assert f"Slurm will start job {job} again." in text
    assert "MEMBER: 2/2" in text
    assert re.search(r"^epoch 15/15 ", text, re.MULTILINE)
    assert text.count("\nepoch 1/15 ") == 1  # nothing was repeated
    assert tiny.read(tiny.last(tmp_path / "run"))["epoch"] == 14


def test_torchrun(
    recorder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {"NODES": "2", "NODE_RANK": "1", "GPUS": "4", "MASTER_ADDR": "host0"}
    line = ["bash", str(SCRIPTS / "torchrun.sh"), "--config", "pix2pix_facades.yaml"]
    subprocess.run(line, env=os.environ | variables, check=True)
    words = recorder.with_name("record.").read_text().splitlines()[0]
    torch, _, own = words.partition(" -m ")
    assert_torchrun_takes(torch.split())
    assert "--node-rank=1 --nproc-per-node=4 --master-addr=host0" in torch
    trainer = parsed(own, capsys)
    assert (trainer["devices"], trainer["num_nodes"]) == ("4", 2)


def assert_torchrun_takes(options: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    read = get_args_parser().parse_args([*options, "-m", "x"])
    assert (read.nnodes, read.nproc_per_node) == ("2", "4")


def test_kubernetes(capsys: pytest.CaptureFixture[str]) -> None:
    service, job = yaml.safe_load_all((SCRIPTS / "kubernetes.yaml").read_text())
    spec = job["spec"]
    pod = spec["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert spec["completions"] == spec["parallelism"] == 2
    words = " ".join(pod["containers"][0]["command"]).replace("$(NODE_RANK)", "1")
    torch, _, own = words.removeprefix("torchrun ").partition(" -m ")
    assert_torchrun_takes(torch.split())
    trainer = parsed(own, capsys)
    gpus = pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert (trainer["devices"], trainer["num_nodes"]) == (str(gpus), spec["completions"])


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "data.batch_size" in script.read_text() or "one GPU each" in script.read_text()
