"""Two processes: equal parameters, buffers, masks and neighbourhoods, through the border and on resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from lightning_gancompress.checkpoints import load_network
from lightning_gancompress.pruning import count_macs

# forked, which saves importing everything twice for every test; the command itself starts processes anew
FORKED = ["--trainer.devices=2", "--trainer.strategy=ddp_fork", "--trainer.callbacks+=tiny.RankHashes"]
SEARCH = ["search epoch", "search step", "search step"]
FINETUNE = ["finetune epoch", "finetune step", "finetune step"]


def assert_ranks_agree(folder: Path, expected: list[str]) -> None:
    """Both ranks held the same after every step, and something else than the step before."""
    found = json.loads((folder / "hashes.json").read_text())
    assert [when for when, _ in found] == expected
    for when, (one, other) in found:
        assert [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)] == [], when
        assert ("table" in one) == when.startswith("search") or when == "end"
    steps = [str(one) for when, (one, _) in found if when.endswith("step")]
    assert len(set(steps)) == len(steps)


def assert_within_budget(folder: Path, teacher: Path) -> None:
    for role, budget in (("generator", 0.3), ("discriminator", 0.5)):
        whole, small = (load_network(path, role)[0] for path in (teacher, tiny.last(folder)))
        sample = tiny.sample(whole)
        assert 0.97 * budget < count_macs(small, [sample]) / count_macs(whole, [sample]) <= budget


def fork(args: list[str], log: Path) -> int:
    code = tiny.Fork(args, log).wait()
    print(log.read_text())
    return code


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_through_the_border(precision: str, tmp_path: Path, unet: Path, facades: list[str]) -> None:
    args = [
        *tiny.compression(tmp_path / "whole", unet),
        *facades,
        *FORKED,
        f"--trainer.precision={precision}",
    ]
    assert fork(args, tmp_path / "log") == 0
    assert_ranks_agree(tmp_path / "whole", [*SEARCH, *SEARCH, *FINETUNE, *FINETUNE, "end"])
    assert_within_budget(tmp_path / "whole", unet)


def test_teacher(tmp_path: Path, facades: list[str]) -> None:
    args = [*tiny.teacher(tmp_path / "run", tiny.RESNET), *facades, *FORKED]
    assert fork(args, tmp_path / "log") == 0
    found = json.loads((tmp_path / "run" / "hashes.json").read_text())
    assert len(found) == 7
    assert all(one == other for _, (one, other) in found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, facades: list[str], unet: Path) -> Path:
    """A run of two ranks that nobody stopped."""
    folder = tmp_path_factory.mktemp("ddp") / "whole"
    assert fork([*tiny.compression(folder, unet), *facades, *FORKED], folder.parent / "log") == 0
    return folder


@pytest.mark.parametrize(
    ("epoch", "batch", "left"),
    [
        (1, 1, ["search step", *FINETUNE, *FINETUNE]),
        (2, 0, [*FINETUNE, *FINETUNE]),
        (3, 1, ["finetune step"]),
    ],
)
def test_resume(
    epoch: int, batch: int, left: list[str], tmp_path: Path, unet: Path, facades: list[str], whole: Path
) -> None:
    args = [*tiny.compression(tmp_path / "run", unet), *facades, *FORKED, *tiny.EVERY_STEP]
    assert fork([*args, *tiny.kill(epoch, batch)], tmp_path / "killed") != 0
    resumed = [*args, f"--ckpt_path={tiny.last(tmp_path / 'run')}"]
    assert fork(resumed, tmp_path / "log") == 0
    assert_ranks_agree(tmp_path / "run", [*left, "end"])
    tiny.assert_same_end(tmp_path / "run", whole)


def command(args: list[str]) -> subprocess.CompletedProcess[str]:
    """The command itself, which starts the second rank with its own words."""
    ddp = ["--trainer.devices=2", "--trainer.strategy=ddp_find_unused_parameters_true"]
    env = os.environ | {"PYTHONPATH": str(Path(tiny.__file__).parent)}
    line = [sys.executable, "-m", "lightning_gancompress", *args, *ddp]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_command(tmp_path: Path, unet: Path, facades: list[str]) -> None:
    args = [*tiny.compression(tmp_path / "run", unet), *facades, "--trainer.callbacks+=tiny.RankHashes"]
    result = command(args)
    assert result.returncode == 0, result.stderr
    assert_ranks_agree(tmp_path / "run", [*SEARCH, *SEARCH, *FINETUNE, *FINETUNE, "end"])


@pytest.mark.slow
def test_an_error_on_one_rank_ends_all(tmp_path: Path, unet: Path, facades: list[str]) -> None:
    args = [*tiny.compression(tmp_path / "run", unet), *facades, "--trainer.callbacks+=tiny.Stumble"]
    result = command(args)
    assert result.returncode != 0
    assert "[rank 1] error: This rank can't go on: mend it." in result.stderr
