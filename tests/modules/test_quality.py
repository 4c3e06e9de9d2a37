"""The smallest network that keeps a quality: a `fit` with `model.quality`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny

from lightning_gancompress import UserError
from lightning_gancompress.cli import main
from lightning_gancompress.cli.trials import Trials
from lightning_gancompress.evaluation.quality import Quality
from lightning_gancompress.evaluation.results import NetworkResults, TestResults
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.pruning import down_to

BUDGETS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


def options(folder: Path, teacher: Path, data: list[str], *more: str) -> list[str]:
    """Arguments of a run that tries at most three of four networks."""
    args = [*tiny.compression(folder, teacher), *data, "--trainer.callbacks+=Evaluation"]
    args += ["--trainer.callbacks.latency=false", "--model.quality_trials=3"]
    return [*args, "--model.epochs=1", "--model.decay_epochs=0", *more]


@pytest.mark.parametrize(("smallest", "tried"), [(0, 1), (1, 4), (2, 4), (3, 4), (5, 4), (7, 4), (8, 4)])
def test_a_bisection_finds_the_smallest_that_keeps_it(smallest: int, tried: int, tmp_path: Path) -> None:
    asked = []

    def measure(budget: float | str, quality: Quality) -> float:
        asked.append(budget)
        return 0.1 if BUDGETS.index(float(budget)) >= smallest else 0.3

    names = {b: f"budget_{b}" if b > BUDGETS[0] else "." for b in [BUDGETS[0], *reversed(BUDGETS[1:])]}
    folders = {b: tmp_path / name for b, name in names.items()}
    trials = Trials(Quality(0.2, "l1"), folders, measure)
    trials.run()
    assert trials.found == (BUDGETS[smallest] if smallest < 8 else None)
    assert len(asked) == len({*asked}) <= tried
    trials.write(tmp_path / "quality.md")
    text = (tmp_path / "quality.md").read_text()
    if smallest == 8:
        assert "\nNone keeps it.\n" in text
        with pytest.raises(UserError, match=r"l1 of at most 0\.2, the best of those tried has 0\.3"):
            trials.require_found()
    else:
        trials.require_found()
        found = f"budget {BUDGETS[smallest]}, {names[BUDGETS[smallest]]}/generator.pth."
        assert f"\nSmallest that keeps it: {found}" in text
        assert ("Lower model.budget" in text) == (smallest == 0)


def test_budgets_in_equal_factors() -> None:
    assert down_to(0.0625, 4, "b") == [0.5, 0.25, 0.12, 0.0625]
    assert down_to("0.5", 1, "b") == ["0.5"]
    assert down_to(0.98, 8, "b") == [0.99, 0.98]  # as far as two digits tell them apart
    for wrong in (1.0, "2.4G", [0.5, 0.1]):
        with pytest.raises(UserError, match=r"^b is .*: with model\.quality give the smallest fraction"):
            down_to(wrong, 4, "b")


def test_higher_is_better_for_some() -> None:
    low, high = Quality(0.2, "teacher_l1"), Quality(0.2, "teacher_coverage")
    assert (str(low), str(high)) == ("teacher_l1 of at most 0.2", "teacher_coverage of at least 0.2")
    assert [low.kept_by(v) for v in (0.1, 0.2, 0.3, float("nan"))] == [True, True, False, False]
    assert [high.kept_by(v) for v in (0.1, 0.2, 0.3, float("nan"))] == [False, True, True, False]
    for name in ("density", "nonsense"):
        with pytest.raises(UserError, match=f"whether more or less {name} is better is not known"):
            str(Quality(0.2, name))


@pytest.mark.parametrize("name", ["latency_ms", "macs_exact", "bytes", "activation_bytes"])
def test_what_a_network_costs_is_no_quality(name: str) -> None:
    with pytest.raises(UserError, match=rf"quality_metric: {name} is no quality, a smaller network has less"):
        CompressionModule(quality=3.0, quality_metric=name)


def test_a_figure_is_that_of_the_validation_or_of_the_test_and_the_worst_of_both_directions() -> None:
    def of(ssim: float, distance: float) -> TestResults:
        networks = {"teacher": NetworkResults(), "student": NetworkResults({"ssim": ssim, "bytes": 9.0})}
        return TestResults("finetune", 1, (8, 8), networks, {"teacher_l1": distance})

    tests = [of(0.5, 0.3), of(0.4, 0.1)]
    logged = {"val/AtoB/teacher_l1": 0.15, "val/BtoA/teacher_l1": 0.2, "test/AtoB/ssim": 0.0}
    assert Quality(1, "teacher_l1").figure(logged, tests) == 0.2
    assert Quality(1, "ssim").figure(logged, tests) == 0.4
    for name in logged.keys() - {"test/AtoB/ssim"}:  # in whichever direction
        found = Quality(1, "teacher_l1").figure(logged | {name: math.nan}, tests)
        assert math.isnan(found)
        assert not Quality(1, "teacher_l1").kept_by(found)
    with pytest.raises(UserError, match=r"fid was not measured: .* one of ssim, teacher_l1, or with"):
        Quality(1, "fid").figure(logged, tests)


def test_of_one_trial_it_is_a_check(
    tmp_path: Path, facades: list[str], unet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = options(tmp_path, unet, facades, "--model.quality_trials=1")
    code, said = tiny.fail_code(capsys, [*args, "--model.quality=1e-9"])
    assert code == 2
    assert "no network has teacher_l1 of at most 1e-09" in said
    assert "None keeps it." in (tmp_path / "quality.md").read_text()
    # what was trained is kept, and any limit can be tried on it
    main([*args, "--model.quality=2", f"--ckpt_path={tiny.last(tmp_path)}"])
    assert "Smallest that keeps it: budget 0.3, " in (tmp_path / "quality.md").read_text()


def test_the_smallest_network_is_found_and_the_same_command_goes_on(
    tmp_path: Path, facades: list[str], unet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    args = options(run, unet, facades, "--model.quality_metric=l1")
    # the first trial fails, and no other is better
    assert tiny.fail_code(capsys, [*args, "--model.quality=1e-9"])[0] == 2
    rows = [line.split(" | ") for line in (run / "quality.md").read_text().splitlines()[4:7]]
    assert [row[0] for row in rows] == ["| 0.3", "| 0.55", "| 0.74"]
    assert sorted(path.name for path in run.glob("budget_*/")) == [
        "budget_0.41",
        "budget_0.55",
        "budget_0.74",
    ]
    assert not (run / "budget_0.41" / "generator.pth").exists()  # its masks are kept, for later
    assert (run / "budget_0.41" / "checkpoints" / "border.ckpt").is_file()
    figures = {row[0].removeprefix("| "): float(row[1]) for row in rows}
    assert "quality.md" in (run / "README.txt").read_text()
    # a limit that the largest of the three keeps, and perhaps smaller ones: none is trained again
    before = {path: path.stat().st_mtime_ns for path in run.rglob("last.ckpt")}
    main([*args, f"--model.quality={1.001 * figures['0.74']}", f"--ckpt_path={tiny.last(run)}"])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    kept = min(float(budget) for budget, figure in figures.items() if figure <= 1.001 * figures["0.74"])
    assert f"Smallest that keeps it: budget {kept}, " in (run / "quality.md").read_text()


@pytest.mark.parametrize("count", [2, 5, 7, 16, 40, 64, 128])
@pytest.mark.parametrize("smallest", [0.05, 0.1, "0.3", 0.92])
def test_no_budget_is_tried_twice(smallest: float | str, count: int) -> None:
    budgets = down_to(smallest, count, "model.budget")
    assert budgets[-1] == smallest
    assert len({float(budget) for budget in budgets}) == len(budgets)
    assert sorted(map(float, budgets), reverse=True) == list(map(float, budgets))
