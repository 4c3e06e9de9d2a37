"""The shipped sweeps, by the command lines that W&B's agent makes of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import wandb_files
import yaml

from lightning_gancompress.cli import main
from lightning_gancompress.shipped_configs import configs_folder, shipped

SWEEPS = sorted((configs_folder() / "sweeps").glob("*.yaml"))
START = ["/usr/bin/env", "python", "-m", "lightning_gancompress"]
Agent = Callable[[dict[str, Any], str, dict[str, Any]], list[str]]


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Agent:
    """W&B's own agent, without its server: the command line of a run, whose variables are set."""
    import wandb.wandb_agent

    wandb_files.offline(monkeypatch)
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # to be restored
    monkeypatch.chdir(tmp_path)
    started: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **_: Any) -> None:
            started.append(command)

    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", Process)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))  # which the agent sets

    def command(sweep: dict[str, Any], run: str, values: dict[str, Any]) -> list[str]:
        wandb.teardown()  # which has read the environment of the run before
        agent = wandb.wandb_agent.Agent(api=None, queue=None, sweep_id="s1")
        agent._sweep_command = [*sweep["command"]]
        args = {name: {"value": value} for name, value in values.items()}
        agent._command_run({"type": "run", "run_id": run, "program": sweep["program"], "args": args})
        return started[-1]

    return command


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def choices(parameter: dict[str, Any]) -> list[Any]:
    """The ends of what a sweep can choose."""
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_all_values_are_options(path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = read(path)
    parameters = sweep["parameters"]
    for at in (0, -1):  # the ends are within the ranges of the options
        line = agent(sweep, "r1", {name: choices(parameter)[at] for name, parameter in parameters.items()})
        assert line[:4] == START
        with pytest.raises(SystemExit) as stop:
            main([*line[4:], "--print_config"])
        assert not stop.value.code
        printed = yaml.safe_load(capsys.readouterr().out)
        for name, parameter in parameters.items():
            assert value_at(printed, name) == choices(parameter)[at]


def value_at(settings: Any, name: str) -> Any:
    for key in name.split("."):
        settings = settings[-1] if isinstance(settings, list) else settings
        settings = settings.get("init_args", settings)[key]
    return settings


@pytest.fixture
def few(unet: Path, facades: list[str]) -> list[str]:
    """Options that make a run of a shipped sweep tiny."""
    few = [f"--model.teacher={unet}", *facades, "--trainer.accelerator=cpu", "--model.epochs=1"]
    few += [
        "--model.decay_epochs=0",
        "--trainer.limit_train_batches=1",
        "--trainer.callbacks.search_epochs=1",
    ]
    return [*few, "--trainer.log_every_n_steps=1", "--trainer.limit_test_batches=1"]


@pytest.mark.filterwarnings("ignore:generator. the search ended")
def test_runs_keep_apart_and_log_what_sweeps_ask_for(
    agent: Agent, few: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = read(configs_folder() / "sweeps" / "budget.yaml")
    sweep["command"][-1:] = [*few, "${args}"]
    folder = tmp_path / "runs" / "sweep_budget"
    for run, budget in {"r1": 0.5, "r2": 0.3}.items():
        line = agent(sweep, run, {"model.budget": budget, "seed_everything": 1})
        assert line[-2:] == [f"--model.budget={budget}", "--seed_everything=1"]
        main(line[4:])
        assert wandb_files.run_ids(folder / run) == {run}
        assert read(folder / run / "config.yaml")["model"]["init_args"]["budget"] == budget
        assert (folder / run / "generator.pth").is_file()
    assert not (folder / "generator.pth").exists()

    names = wandb_files.logged(folder / "r1")
    for path in SWEEPS:
        assert read(path)["metric"]["name"] in names

    # a run that was pre-empted, and that the agent starts again, goes on: here it is over
    saved = tiny.last(folder / "r2").stat().st_mtime_ns
    main(agent(sweep, "r2", {"model.budget": 0.3, "seed_everything": 1})[4:])
    assert tiny.last(folder / "r2").stat().st_mtime_ns == saved
    assert not (folder / "r2" / "previous-1").exists()

    # afterwards, without the agent
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        os.environ.pop(name)
    for run in ("r1", "r2"):
        quick = ["--trainer.callbacks=Evaluation", "--trainer.callbacks.latency=false"]
        main(["test", f"--ckpt_path={tiny.last(folder / run)}", *quick])
    capsys.readouterr()
    main(["compare", f"--output={folder}", "--only_report"])
    table = capsys.readouterr().out
    assert "| r1 |" in table
    assert "| r2 |" in table
    assert "- r1: model.budget 0.5" in table
    assert "- r2: model.budget 0.3" in table


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model.bugdet": 0.1}, ["model", "'bugdet'", "not accepted"]),
        ({"model.init_args.bugdet": 0.1}, ["model", "'bugdet'", "not accepted"]),
        ({"trainer.callbacks.learning_rate": 0.1}, ["trainer.callbacks", "'learning_rate'", "not accepted"]),
        ({"budget": 0.1}, ["--budget=0.1"]),
        ({"model": {"init_args": {"bugdet": 0.1}}}, ["'bugdet'", "not accepted"]),  # a nested parameter
        ({"data.batch_size": None}, ["data.batch_size", "None"]),
        ({"model.lr": "fast"}, ["model.lr", "fast"]),
    ],
)
def test_a_key_or_value_that_is_none_is_one_sentence(
    values: dict[str, Any], words: list[str], agent: Agent, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = agent(read(configs_folder() / "sweeps" / "budget.yaml"), "r1", values)
    code, said = tiny.fail_code(capsys, line[4:])
    assert (code, said.count("\n")) == (2, 1)
    for word in words:
        assert word in said
    assert not (tmp_path / "runs").exists()


def test_nested_parameters_booleans_lists_and_texts(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "trainer.callbacks.feedback": False,
        "model": {"init_args": {"budget": 0.3, "ignored_layers": ["a b", "model.*"]}},
        "data.root": "/pictures of mine/$HOME 'x'",
    }
    line = agent(read(configs_folder() / "sweeps" / "budget.yaml"), "r1", values)
    with pytest.raises(SystemExit):
        main([*line[4:], "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert value_at(printed, "trainer.callbacks.feedback") is False
    assert value_at(printed, "model.budget") == 0.3
    assert value_at(printed, "model.ignored_layers") == ["a b", "model.*"]
    assert value_at(printed, "data.root") == values["data.root"]
    assert value_at(printed, "model.epochs") == 20  # of the configuration


def test_sweeps_are_no_configurations() -> None:
    assert len(SWEEPS) == 3
    assert "sweeps" not in shipped()
    assert "log_wandb.yaml" in shipped()
