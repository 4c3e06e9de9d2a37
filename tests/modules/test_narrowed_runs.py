"""Runs whose student loses channels within the search: resumed, tested, on two ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from lightning_gancompress import load_generator
from lightning_gancompress.cli import main
from lightning_gancompress.pruning import count_macs

Arguments = Callable[[str, Path], list[str]]


@pytest.fixture(scope="module")
def arguments(facades: list[str], domains: list[str], unet: Path, cyclegan: Path) -> Arguments:
    """Arguments of a run of some kind into some folder."""

    def make(kind: str, folder: Path) -> list[str]:
        if kind == "cyclegan":
            run = [*tiny.compression(folder, cyclegan), *tiny.cyclegan(), *domains]
        else:
            run = [*tiny.compression(folder, unet), *facades]
        windows = ["--model.accumulate_grad_batches=2"] * (kind == "windows")
        return [*run, "--trainer.callbacks.slack=0.1", *windows]

    return make


def left(checkpoint: Path) -> list[float]:
    """Shares of the channels that the sides have left, within a search."""
    state = tiny.read(checkpoint)["state_dict"]
    return [float(t.float().mean()) for name, t in state.items() if name.endswith(".left")]


@pytest.mark.parametrize(("kind", "steps"), [("unet", 5), ("cyclegan", 6), ("windows", 7)])
def test_a_stopped_run_ends_like_a_whole_one(
    kind: str, steps: int, tmp_path: Path, whole: Callable[[str], Path], arguments: Arguments
) -> None:
    args = arguments(kind, tmp_path / "run")
    main([*args, f"--trainer.max_steps={steps}"])
    stopped = tiny.last(tmp_path / "run")
    assert min(left(stopped)) < 1
    main([*args, f"--ckpt_path={stopped}"])
    tiny.assert_same_end(tmp_path / "run", whole(kind))


def test_a_checkpoint_of_a_narrowed_search_is_read(
    tmp_path: Path, arguments: Arguments, unet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*arguments("unet", tmp_path / "run"), "--trainer.max_steps=6"])
    stopped = tiny.last(tmp_path / "run")
    assert min(left(stopped)) < 1
    small, whole = (load_generator(path, network="generator") for path in (stopped, unet))
    macs = count_macs(small, [tiny.sample(whole)]) / count_macs(whole, [tiny.sample(whole)])
    assert 0.3 < macs < 1
    capsys.readouterr()
    folder = f"--trainer.default_root_dir={tmp_path}"
    main(["test", f"--ckpt_path={stopped}", folder, "--trainer.callbacks+=Evaluation"])
    results = json.loads(next((tmp_path / "test").glob("results*.json")).read_text())
    assert results["phase"] == "search"
    # what is cut for good is no more computed, and costs nothing
    before, after = (results["networks"][name]["macs_exact"] for name in ("teacher", "student"))
    assert macs < after / before < 1


def test_two_ranks_lose_the_same_channels(tmp_path: Path, arguments: Arguments) -> None:
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp_fork", "--trainer.callbacks+=tiny.RankHashes"]
    run = tiny.Fork([*arguments("unet", tmp_path / "run"), *ranks], tmp_path / "log")
    assert run.wait() == 0, (tmp_path / "log").read_text()
    found = json.loads((tmp_path / "run" / "hashes.json").read_text())
    assert [when for when, (one, other) in found if one != other] == []
    sides = {
        str([v for k, v in one.items() if k.endswith(".left")])
        for when, (one, _) in found
        if "search" in when
    }
    assert len(sides) > 1
