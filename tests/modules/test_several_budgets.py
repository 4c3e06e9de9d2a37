"""Several budgets from one search: a `fit` whose `model.budget` is a list."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import documents
import pytest
import tiny
import torch
from lightning.pytorch import Callback

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.cli import main
from lightning_gancompress.cli.command_line import Rehearsal
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.pruning import count_macs

Arguments = Callable[[str, Path], list[str]]
MEASURE = ["--trainer.callbacks+=Evaluation", "--trainer.callbacks.latency=false"]
SHORT = ["--model.epochs=1", "--model.decay_epochs=0", *MEASURE]


class StopIn(Callback):
    """Fail in one epoch of a run, after which its folder holds what a kill leaves."""

    def __init__(self, folder: str, epoch: int) -> None:
        self.folder, self.epoch = folder, epoch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if (Path(trainer.default_root_dir).name, trainer.current_epoch) == (self.folder, self.epoch):
            raise UserError("stopped")


@pytest.fixture(scope="module")
def arguments(facades: list[str], unet: Path) -> Arguments:
    """Arguments of a run of some kind into some folder."""

    def make(kind: str, folder: Path) -> list[str]:
        budget = {"several": "[0.3, 0.7, 0.5]", "one": "0.3"}[kind]
        compression = tiny.compression(folder, unet)
        compression.append("--trainer.callbacks.magnitude_prior=0")  # passes the first budget within 5 steps
        return [*compression, *facades, f"--model.budget={budget}", *MEASURE]

    return make


@pytest.fixture
def several(whole: Callable[[str], Path]) -> Path:
    """A whole run of three budgets."""
    return whole("several")


def share(network: torch.nn.Module, teacher: Path) -> float:
    """MACs as a fraction of the teacher's."""
    whole = load_generator(teacher)
    return count_macs(network, [tiny.sample(whole)]) / count_macs(whole, [tiny.sample(whole)])


def test_each_budget_has_a_run_of_its_own(several: Path, unet: Path) -> None:
    folders = {0.7: several / "budget_0.7", 0.5: several / "budget_0.5", 0.3: several}
    assert sorted(several.glob("budget_*/")) == [folders[0.5], folders[0.7]]
    for budget, folder in folders.items():
        small = load_generator(folder / "generator.pth")
        assert 0.9 * budget < share(small, unet) <= budget
        description = json.loads((folder / "generator.json").read_text())
        assert (description["provenance"]["budget"], description["provenance"]["epochs"]) == (
            budget,
            2 if folder != several else 4,
        )
        header = tiny.read(tiny.last(folder))["gancompress"]
        assert (header["phase"], header["search"]["budgets"]["generator"]) == ("finetune", budget)
        for file in ("report.html", "config.yaml", "test/table.md", "checkpoints/best.ckpt"):
            assert (folder / file).is_file()


def test_the_folder_says_where_the_other_budgets_are(several: Path) -> None:
    told = (several / "README.txt").read_text()
    for name in ("budget_0.5, budget_0.7", "table.md", "results.csv", "plot."):
        assert f"\n{name}" in told


def test_a_search_that_does_not_come_down_is_told(tmp_path: Path, facades: list[str], unet: Path) -> None:
    slow = [*tiny.compression(tmp_path, unet), "--trainer.callbacks.lr=1e-6"]
    with pytest.warns(UserWarning, match=r"^Budget 0\.6: the search has not come down to it") as told:
        main([*slow, *facades, "--model.budget=[0.3, 0.6]", *SHORT])
    assert any("generator: the search ended at" in str(one.message) for one in told)


def test_a_border_is_read_as_the_small_network_that_follows(several: Path, unet: Path) -> None:
    for budget in (0.7, 0.5):
        path = several / f"budget_{budget}" / "checkpoints" / "border.ckpt"
        header = tiny.read(path)["gancompress"]
        assert (header["phase"], header["began"]) == ("search", 0)
        cut, tuned = load_generator(path), load_generator(path.with_name("last.ckpt"))
        assert 0.9 * budget < share(cut, unet) <= budget
        assert [p.shape for p in cut.parameters()] == [p.shape for p in tuned.parameters()]


def test_the_search_goes_on_as_if_nothing_was_kept(several: Path, whole: Callable[[str], Path]) -> None:
    one, other = (tiny.read(tiny.last(folder)) for folder in (several, whole("one")))
    tiny.assert_equal(one["state_dict"], other["state_dict"])
    assert "passes" not in other["gancompress"]["search"]


def test_the_table_has_each_budget(several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split(" | ")[:2] for line in (several / "table.md").read_text().splitlines()[2:6]]
    assert rows == [["| teacher", ""], *(["| several", str(budget)] for budget in (0.7, 0.5, 0.3))]
    assert (several / "plot.png").is_file()
    before = (several / "results.csv").read_bytes()
    main(["compare", f"--output={several}", "--only_report"])
    assert (several / "results.csv").read_bytes() == before


def test_the_same_command_goes_on_where_it_stopped(
    several: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    args = arguments("several", run)
    stop = [f"--trainer.callbacks+={__name__}.StopIn", "--trainer.callbacks.folder=budget_0.5"]
    assert tiny.fail_code(capsys, [*args, *stop, "--trainer.callbacks.epoch=1"])[0] == 2
    assert not (run / "table.md").exists()
    done = [file for folder in (run, run / "budget_0.7") for file in (folder / "test").iterdir()]
    times = [file.stat().st_mtime_ns for file in done]
    main([*args, f"--ckpt_path={tiny.last(run)}"])
    assert [file.stat().st_mtime_ns for file in done] == times
    for folder in ("", "budget_0.7", "budget_0.5"):
        tiny.assert_same_end(run / folder, several / folder)
    assert (run / "table.md").is_file()


def test_a_search_that_stopped_keeps_what_it_passed(
    several: Path, tmp_path: Path, arguments: Arguments
) -> None:
    run = tmp_path / "run"
    args = arguments("several", run)
    main([*args, "--trainer.max_steps=5"])
    assert tiny.read(tiny.last(run))["gancompress"]["passed"] == [0.7]
    assert not (run / "test").exists()
    main([*args, f"--ckpt_path={tiny.last(run)}"])
    for folder in ("", "budget_0.7", "budget_0.5"):
        tiny.assert_same_end(run / folder, several / folder)


def test_a_new_run_sets_all_aside(tmp_path: Path, facades: list[str], unet: Path) -> None:
    run = tmp_path / "run"
    args = [*tiny.compression(run, unet, "UniformWidth"), *facades, *SHORT]
    main([*args, "--model.budget=[0.5, 0.3]"])
    assert share(load_generator(run / "budget_0.5" / "generator.pth"), unet) <= 0.5
    assert not (run / "budget_0.5" / "checkpoints" / "border.ckpt").exists()
    main([*args, "--model.budget=0.3"])
    assert not (run / "budget_0.5").exists()
    assert not (run / "table.md").exists()
    assert (run / "previous-1" / "budget_0.5" / "generator.pth").is_file()
    assert (run / "previous-1" / "table.md").is_file()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (
            "pix2pix",
            ["--model.budget=[2M, 900K]", "--model.macs=literature", "--model.student_weights=fresh"],
        ),
        ("cyclegan", ["--model.budget=[0.6, 0.4]", "--trainer.callbacks.slack=0.1"]),
    ],
)
def test_other_kinds(
    kind: str,
    options: list[str],
    tmp_path: Path,
    facades: list[str],
    domains: list[str],
    unet: Path,
    cyclegan: Path,
) -> None:
    run = tmp_path / "run"
    teacher, rest = (unet, facades) if kind == "pix2pix" else (cyclegan, [*tiny.cyclegan(), *domains])
    main([*tiny.compression(run, teacher), *rest, *options, *SHORT])
    if kind == "pix2pix":
        for folder, budget in ((run, 900e3), (run / "budget_2M", 2e6)):
            results = json.loads((folder / "test" / "results.json").read_text())
            assert 0.9 * budget < results["networks"]["student"]["macs_literature"] <= budget
        return
    for folder, budget in ((run, 0.4), (run / "budget_0.6", 0.6)):
        found = [
            json.loads(file.read_text())["networks"] for file in sorted((folder / "test").glob("*.json"))
        ]
        assert len(found) == 2
        macs = {name: sum(one[name]["macs_exact"] for one in found) for name in ("teacher", "student")}
        assert 0.85 * budget < macs["student"] / macs["teacher"] <= budget


def test_two_ranks_train_each_budget(tmp_path: Path, arguments: Arguments) -> None:
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp_fork", "--trainer.callbacks+=tiny.RankHashes"]
    run = tiny.Fork([*arguments("several", tmp_path / "run"), *ranks], tmp_path / "log")
    assert run.wait() == 0, (tmp_path / "log").read_text()
    for folder in ("", "budget_0.7", "budget_0.5"):
        found = json.loads((tmp_path / "run" / folder / "hashes.json").read_text())
        assert [when for when, (one, other) in found if one != other] == []
    assert (tmp_path / "run" / "table.md").is_file()


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budgets", "words"),
    [
        ([0.1, "0.10"], "has a budget twice: leave one out"),
        (["600M", 0.6e9], "has a budget twice"),
        ([0.1, "600M"], "can't be sorted: give all as the one or the other"),
        ([1.0, 0.1], "1.0 of .* is the whole network"),
        ([2.5, 0.1], "give a fraction .* or a list of such"),
        ([], r"at least 1 of them"),
    ],
)
def test_lists_that_are_no_budgets(budgets: list[Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        CompressionModule(budget=budgets)


def test_the_commands_of_the_page() -> None:
    several, quality = (
        Rehearsal(shlex.split(command)[3:]).config_init["fit"].model
        for _, command in documents.blocks("choosing_a_budget.md")
    )
    assert several.pruning.passes == [0.25, 0.1]
    assert str(quality.quality) == "teacher_l1 of at most 0.2"
    assert len(quality.pruning.passes) == 7


def test_one_in_a_list_is_one() -> None:
    assert CompressionModule(budget=[0.2]).pruning == CompressionModule(budget=0.2).pruning


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer.enable_checkpointing=false"], "this run keeps none in its folder"),
        (
            ["--trainer.callbacks+=BestCheckpoint", "--trainer.callbacks.dirpath=best"],
            "BestCheckpoint.dirpath is",
        ),
        (["--model.budget=[0.3, 9G]"], "can't be sorted"),
        (["--model.budget=[9G, 8G]"], "is above the teacher's own"),
    ],
)
def test_refused_before_work(
    options: list[str],
    words: str,
    tmp_path: Path,
    facades: list[str],
    unet: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = [*tiny.compression(tmp_path / "run", unet), *facades, "--model.budget=[0.5, 0.3]", *options]
    code, said = tiny.fail_code(capsys, args)
    assert (code, words in said) == (2, True), said
    assert not (tmp_path / "run" / "budget_0.5").exists()


def test_other_budgets_come_too_late(
    several: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    main([*arguments("several", run), "--trainer.max_steps=2"])
    for folder, budgets in ((run, "[0.3, 0.6]"), (run, "0.3"), (several, "[0.3, 0.6]")):
        line = ["fit", f"--ckpt_path={tiny.last(folder)}", f"--model.budget={budgets}"]
        code, said = tiny.fail_code(capsys, line)
        assert (code, "model.budget" in said, "comes too late" in said) == (2, True, True), said


def test_a_run_of_a_sweep_has_one_budget(
    tmp_path: Path,
    facades: list[str],
    unet: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "r")
    args = [*tiny.compression(tmp_path / "run", unet), *facades, "--model.budget=[0.5, 0.3]"]
    assert "let the sweep vary it" in tiny.fail_code(capsys, args)[1]
