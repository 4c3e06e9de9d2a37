"""A run that was killed goes on as if nothing had happened: all weights come out bit for bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
import tiny

from lightning_gancompress.cli import main


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, facades: list[str], resnet: Path) -> dict[str, Path]:
    """Runs that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    main([*tiny.teacher(folder / "teacher", tiny.RESNET), *facades])
    main([*tiny.compression(folder / "compression", resnet), *facades])
    return {"teacher": folder / "teacher", "compression": folder / "compression"}


def arguments(kind: str, folder: Path, resnet: Path, facades: list[str]) -> list[str]:
    if kind == "teacher":
        return [*tiny.teacher(folder, tiny.RESNET), *facades, *tiny.EVERY_STEP]
    return [*tiny.compression(folder, resnet), *facades, *tiny.EVERY_STEP]


@pytest.mark.parametrize(
    ("kind", "epoch", "batch", "phase"),
    [
        ("teacher", 1, 0, "teacher"),
        ("teacher", 1, 3, "teacher"),
        ("compression", 0, 1, "search"),
        ("compression", 1, 0, "search"),
        ("compression", 1, 3, "search"),
        ("compression", 2, 0, "finetune"),
        ("compression", 2, 2, "finetune"),
    ],
)
def test_killed_run_ends_like_a_whole_one(
    kind: str,
    epoch: int,
    batch: int,
    phase: str,
    tmp_path: Path,
    whole: dict[str, Path],
    resnet: Path,
    facades: list[str],
) -> None:
    args = arguments(kind, tmp_path / "run", resnet, facades)
    assert tiny.Fork([*args, *tiny.kill(epoch, batch)], tmp_path / "log").wait() == -signal.SIGKILL
    stopped = tiny.last(tmp_path / "run")
    assert tiny.read(stopped)["gancompress"]["phase"] == phase
    main([*args, f"--ckpt_path={stopped}"])
    tiny.assert_same_end(tmp_path / "run", whole[kind])


@pytest.mark.parametrize("attempt", range(2))
def test_killed_at_any_moment(
    attempt: int, tmp_path: Path, whole: dict[str, Path], resnet: Path, facades: list[str]
) -> None:
    args = arguments("compression", tmp_path / "run", resnet, facades)
    run = tiny.Fork(args, tmp_path / "log")
    while not tiny.last(tmp_path / "run").exists() and run.process.is_alive():
        time.sleep(0.01)
    time.sleep(random.SystemRandom().uniform(0, 0.5 * (attempt + 1)))
    run.process.kill()
    run.wait()
    main([*args, f"--ckpt_path={tiny.last(tmp_path / 'run')}"])
    tiny.assert_same_end(tmp_path / "run", whole["compression"])
