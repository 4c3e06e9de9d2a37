"""A run that is stopped on purpose goes on where it was: all weights come out bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Timer

from lightning_gancompress.cli import main


class StopAt(Callback):
    """Ask the trainer to stop in some hook of a batch, or of an epoch, as the user's callbacks do."""

    def __init__(self, epoch: int, batch: int, hook: str = "on_train_batch_end") -> None:
        self.epoch, self.batch = epoch, batch
        setattr(self, hook, self.stop)

    def stop(self, trainer: Any, *_: Any) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed
        if trainer.ckpt_path is None and (trainer.current_epoch, done) == (self.epoch, self.batch):
            trainer.should_stop = True


Arguments = Callable[[str, Path], list[str]]


@pytest.fixture(scope="module")
def arguments(facades: list[str], resnet: Path) -> Arguments:
    """Arguments of a run of some kind into some folder."""

    def make(kind: str, folder: Path) -> list[str]:
        if kind == "teacher":
            return [*tiny.teacher(folder, tiny.RESNET), *facades]
        return [*tiny.compression(folder, resnet), *facades]

    return make


def loops(folder: Path) -> dict[str, Any]:
    """Counters of a run's loops."""
    found: dict[str, Any] = tiny.read(tiny.last(folder))["loops"]["fit_loop"]
    return found


def batches(folder: Path) -> int:
    """Batches that a run has done."""
    return int(loops(folder)["epoch_loop.batch_progress"]["total"]["processed"])


def assert_same_end(one: Path, other: Path) -> None:
    """Weights are equal, and the steps of the loggers as well."""
    tiny.assert_same_end(one, other)
    for counter in ("epoch_loop.state_dict", "epoch_progress", "epoch_loop.batch_progress"):
        assert loops(one)[counter] == loops(other)[counter]


KINDS = pytest.mark.parametrize(("kind", "limits"), [("teacher", [3]), ("compression", [3, 8, 10])])


@KINDS
def test_max_steps_counts_batches(
    kind: str, limits: list[int], tmp_path: Path, arguments: Arguments, whole: Callable[[str], Path]
) -> None:
    resume: list[str] = []
    for limit in limits:
        main([*arguments(kind, tmp_path), f"--trainer.max_steps={limit}", *resume])
        assert batches(tmp_path) == limit
        resume = ["--ckpt_path", "last"]
    main([*arguments(kind, tmp_path), *resume])
    assert_same_end(tmp_path, whole(kind))


@KINDS
def test_max_time(
    kind: str,
    limits: list[int],
    tmp_path: Path,
    arguments: Arguments,
    whole: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Timer, "time_elapsed", lambda timer, stage="train": clock(timer))
    trained = {"batches": 0}

    def clock(timer: Any) -> float:
        return float(trained["batches"])

    def count(timer: Any, trainer: Any, *_: Any) -> None:
        trained["batches"] += 1
        timer._check_time_remaining(trainer)

    monkeypatch.setattr(Timer, "on_train_batch_end", count)
    resume: list[str] = []
    for limit in limits:
        main([*arguments(kind, tmp_path), f"--trainer.max_time=00:00:00:{limit:02}", *resume])
        assert batches(tmp_path) == limit
        resume = ["--ckpt_path", "last"]
    main([*arguments(kind, tmp_path), *resume])
    assert_same_end(tmp_path, whole(kind))


@pytest.mark.parametrize(
    ("epoch", "batch", "hook", "done"),
    [
        (1, 4, "on_train_batch_end", 8),  # the last batch: the border is crossed
        (2, 4, "on_train_epoch_start", 8),  # the counter is that of the epoch before
        (1, 2, "on_train_batch_start", 7),  # this batch is finished
        (2, 4, "on_train_epoch_end", 12),
        (3, 1, "on_validation_end", 13),  # a validation within the epoch
    ],
)
def test_should_stop(
    epoch: int,
    batch: int,
    hook: str,
    done: int,
    tmp_path: Path,
    arguments: Arguments,
    whole: Callable[[str], Path],
) -> None:
    stop = [f"--trainer.callbacks+={__name__}.StopAt", f"--trainer.callbacks.epoch={epoch}"]
    stop += [f"--trainer.callbacks.batch={batch}", f"--trainer.callbacks.hook={hook}"]
    args = [*arguments("compression", tmp_path)]
    args += ["--trainer.val_check_interval=1"] if done == 13 else []
    main([*args, *stop])
    assert batches(tmp_path) == done
    main([*args, "--ckpt_path", "last"])
    assert_same_end(tmp_path, whole("compression"))


# -- development runs ----------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    """Contents of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Notes(Callback):
    """Note the phase of each step."""

    steps: ClassVar[list[tuple[int, str]]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.steps.append((trainer.current_epoch, pl_module.phase.name))


@pytest.mark.parametrize(
    ("kind", "batches", "steps"),
    [
        ("teacher", "true", ["teacher"]),
        ("compression", "true", ["search", "finetune"]),
        ("compression", "2", ["search", "search", "finetune", "finetune"]),
        ("uniform", "1", ["finetune"]),
    ],
)
def test_a_development_run_has_all_phases_and_writes_nothing(
    kind: str,
    batches: str,
    steps: list[str],
    tmp_path: Path,
    arguments: Arguments,
    facades: list[str],
    resnet: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Notes, "steps", [])
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "generator.pth", "checkpoints/last.ckpt", "checkpoints/.last.1.ckpt"):
        (folder / name).write_text("of a run before")
    before = files(folder)
    if kind == "uniform":
        args = [*tiny.compression(folder, resnet, "UniformWidth"), *facades]
    else:
        args = arguments(kind, folder)
    logger = args.index("--trainer.logger=false")
    args = [*args[:logger], *args[logger + 1 :], f"--trainer.callbacks+={__name__}.Notes"]
    main([*args, f"--trainer.fast_dev_run={batches}"])
    assert [phase for _, phase in Notes.steps] == steps
    assert files(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # no folder of caches


def test_a_development_test_keeps_the_results(tmp_path: Path, resnet: Path, facades: list[str]) -> None:
    for command, option in (
        ("test", []),
        ("predict", [f"--data.predict_folder={facades[1].partition('=')[2]}"]),
    ):
        (tmp_path / command).mkdir()
        main(
            [
                command,
                f"--ckpt_path={resnet}",
                f"--trainer.default_root_dir={tmp_path / command}",
                "--trainer.fast_dev_run=true",
                "--trainer.logger=false",
                *facades,
                *option,
            ]
        )
        assert files(tmp_path / command) == {}


def test_a_development_run_is_a_new_one(
    tmp_path: Path, arguments: Arguments, resnet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*arguments("teacher", tmp_path), "--trainer.fast_dev_run=true", f"--ckpt_path={resnet}"]
    code, words = tiny.fail_code(capsys, args)
    assert code == 2
    assert "leave ckpt_path out" in words


# -- lengths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["max_epochs", "min_epochs"])
def test_more_epochs_than_the_schedule_are_no_silent_wish(
    option: str, tmp_path: Path, arguments: Arguments
) -> None:
    with pytest.warns(UserWarning, match=rf"trainer\.{option}: 9 is above the 2 epochs.*raise model\.epochs"):
        main([*arguments("teacher", tmp_path), f"--trainer.{option}=9"])
    assert tiny.read(tiny.last(tmp_path))["epoch"] == 1


def test_a_stopped_run_says_how_far_it_came(
    tmp_path: Path, facades: list[str], resnet: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = [*tiny.compression(tmp_path, resnet, "UniformWidth"), *facades]
    main([*args, "--trainer.max_steps=5"])
    assert "Stopped after 1.25 of 2 epochs" in caplog.text
    provenance = json.loads((tmp_path / "generator.json").read_text())["provenance"]
    assert (provenance["epochs"], provenance["of_epochs"]) == (1.25, 2)
    assert "1.25 of 2: the run was stopped before its end" in (tmp_path / "report.html").read_text()
    caplog.clear()
    main([*args, "--ckpt_path", "last"])
    assert "Stopped after" not in caplog.text
    assert "stopped before its end" not in (tmp_path / "report.html").read_text()
