"""A run that was killed goes on as if nothing had happened: all weights come out bit for bit."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch

from lightning_gancompress.checkpoints import load_network
from lightning_gancompress.cli import main

Arguments = Callable[[str, Path], list[str]]


@pytest.fixture(scope="module")
def arguments(
    tmp_path_factory: pytest.TempPathFactory,
    facades: list[str],
    domains: list[str],
    resnet: Path,
    cyclegan: Path,
) -> Arguments:
    """Arguments of a run of some kind into some folder."""
    alone = tmp_path_factory.mktemp("upstream") / "latest_net_G_A.pth"
    torch.save(load_network(cyclegan, "generator_AtoB")[0].state_dict(), alone)

    def make(kind: str, folder: Path) -> list[str]:
        if kind == "teacher":
            return [*tiny.teacher(folder, tiny.RESNET), *facades]
        if kind == "compression":
            return [*tiny.compression(folder, resnet), "--trainer.callbacks.search_weights=frozen", *facades]
        if kind == "all weights":  # those of the search and of the distillation too
            terms = ["--model.distillation=Distillation", "--model.distillation.features=1"]
            return [*tiny.compression(folder, resnet), *terms, *facades]
        if kind == "cyclegan teacher":
            return [*tiny.cyclegan_teacher(folder), *domains]
        if kind == "cyclegan alone":
            return [*tiny.compression(folder, alone), *tiny.cyclegan("AtoB"), *tiny.pattern(3), *domains]
        seldom = "--model.discriminator_every=2"
        return [*tiny.compression(folder, cyclegan), *tiny.cyclegan("AtoB"), seldom, *domains]

    return make


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
        ("all weights", 1, 1, "search"),
        ("all weights", 2, 2, "finetune"),
        ("cyclegan teacher", 0, 3, "teacher"),
        ("cyclegan", 1, 1, "search"),
        ("cyclegan", 2, 3, "finetune"),
        ("cyclegan alone", 1, 3, "search"),
        ("cyclegan alone", 2, 3, "finetune"),
    ],
)
def test_killed_run_ends_like_a_whole_one(
    kind: str,
    epoch: int,
    batch: int,
    phase: str,
    tmp_path: Path,
    whole: Callable[[str], Path],
    arguments: Arguments,
) -> None:
    args = [*arguments(kind, tmp_path / "run"), *tiny.EVERY_STEP]
    assert tiny.Fork([*args, *tiny.kill(epoch, batch)], tmp_path / "log").wait() == -signal.SIGKILL
    stopped = tiny.last(tmp_path / "run")
    assert tiny.read(stopped)["gancompress"]["phase"] == phase
    assert ("image_pools" in tiny.read(stopped)) == ("cyclegan" in kind and phase != "search")
    main([*args, f"--ckpt_path={stopped}"])
    tiny.assert_same_end(tmp_path / "run", whole(kind))


@pytest.mark.parametrize("attempt", range(2))
def test_killed_at_any_moment(
    attempt: int, tmp_path: Path, whole: Callable[[str], Path], arguments: Arguments
) -> None:
    args = [*arguments("compression", tmp_path / "run"), *tiny.EVERY_STEP]
    run = tiny.Fork(args, tmp_path / "log")
    while not tiny.last(tmp_path / "run").exists() and run.process.is_alive():
        time.sleep(0.01)
    time.sleep(random.SystemRandom().uniform(0, 0.5 * (attempt + 1)))
    run.process.kill()
    run.wait()
    main([*args, f"--ckpt_path={tiny.last(tmp_path / 'run')}"])
    tiny.assert_same_end(tmp_path / "run", whole("compression"))
