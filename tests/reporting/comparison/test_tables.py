"""Means, spreads, the rule of bold, and what a table says, on numbers made by hand."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_gancompress import UserError
from lightning_gancompress.cli.commands.compare import compare
from lightning_gancompress.reporting.comparison import found_runs, plan, write_comparison
from lightning_gancompress.reporting.comparison.plot import _over_seeds
from lightning_gancompress.reporting.comparison.results import Place
from lightning_gancompress.reporting.comparison.statistics import Sample, holm, pooled_std, welch, winner

CLOSE, FAR = [1.0, 1.1, 1.2], [2.0, 2.1, 2.2]


def test_sample() -> None:
    sample = Sample.of([1.0, 2.0, 3.0])
    assert (sample.mean, sample.std, sample.n) == (2.0, 1.0, 3)  # n - 1 in the denominator
    assert math.isnan(Sample.of([5.0]).std)


@pytest.mark.parametrize(("t", "freedom"), [(12.706, 1), (4.303, 2), (2.776, 4), (2.228, 10), (1.984, 100)])
def test_student_t_of_the_tables(t: float, freedom: int) -> None:
    # of equal spreads and n seeds each, sqrt(n / 2) * difference / spread has 2 n - 2 degrees of freedom
    if freedom == 1:  # one of them has no spread and two seeds: only the other's freedom counts
        one, other = Sample(t / math.sqrt(2), 1.0, 2), Sample(0.0, 0.0, 2)
    else:
        n = freedom // 2 + 1
        one, other = Sample(t * math.sqrt(2 / n), 1.0, n), Sample(0.0, 1.0, n)
    assert welch(one, other) == pytest.approx(0.05, abs=1e-4)


def test_welch_by_hand() -> None:
    # means 1.1 and 2.1, variances 0.01: t = 1 / sqrt(0.02 / 3) = 12.247 at 4 degrees of freedom
    assert welch(Sample.of(CLOSE), Sample.of(FAR)) == pytest.approx(2.552e-4, rel=1e-3)
    assert welch(Sample.of([1.0]), Sample.of(FAR)) == 1
    assert welch(Sample.of([1.0, 1.0]), Sample.of([1.0, 1.0])) == 1
    assert welch(Sample.of([1.0, 1.0]), Sample.of([2.0, 2.0])) == 0


def test_holm_by_hand() -> None:
    # times 3, 2, 1 from the smallest: 0.03, 0.06, 0.04, of which the last may not be below 0.06
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02, 0.9, 0.8]) == pytest.approx([0.06, 1.0, 1.0])  # 2 * 0.8 is cut to 1
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_pooled_std() -> None:
    # squares 2 of two values and 8 of three: (2 + 8) / (1 + 2)
    samples = [Sample.of([1.0, 3.0]), Sample.of([0.0, 2.0, 4.0]), Sample.of([9.0])]
    assert pooled_std(samples) == pytest.approx(math.sqrt(10 / 3))
    assert math.isnan(pooled_std(samples[2:]))


def test_winner() -> None:
    samples = {"a": Sample.of(CLOSE), "b": Sample.of(FAR)}
    assert winner(samples, better="lower") == "a"
    assert winner(samples, better="higher") == "b"
    assert winner(samples | {"c": Sample.of([1.15, 1.2, 1.3])}, better="lower") is None  # within the spread
    assert winner(samples | {"c": Sample.of([9.0])}, better="lower") is None  # of one seed nobody knows
    assert winner({"a": samples["a"]}, better="lower") is None


def test_many_rivals_make_it_harder_to_win() -> None:
    # against each of four like b the uncorrected p is 0.0213; Holm's for the smallest of four is 0.085
    best, rival = Sample(0.0, 1.0, 3), Sample(3.0, 1.0, 3)
    assert welch(best, rival) == pytest.approx(0.0213, abs=1e-4)
    assert winner({"a": best, "b": rival}, better="lower") == "a"
    assert winner({"a": best} | dict.fromkeys("bcde", rival), better="lower") is None


@pytest.mark.parametrize(
    "place",
    [Place("a", "", 0), Place("a", "0.05", 12), Place("deep/er", "600M", 1), Place("a/b", "", None)],
    ids=str,
)
def test_places_are_folders(place: Place) -> None:
    assert Place.of(place.path) == place
    assert Place.of(Path("a/b")) == Place("a/b", "", None)


def result(output: Path, place: str, student: dict[str, Any], suffix: str = "", **more: Any) -> None:
    """What a test leaves."""
    networks = {"teacher": {"macs_exact": 100e6, "fid_768": 1.5}, "student": {"macs_exact": 10e6} | student}
    file = output / place / "test" / f"results{suffix}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {"phase": "finetune", "images": 7, "size": [16, 24], "networks": networks}
    file.write_text(json.dumps(facts | more))


def latency(median: float) -> dict[str, float]:
    """What is known of one."""
    return {"median_ms": median, "p10_ms": median, "p90_ms": median, "repetitions": 20}


def report(output: Path, *metrics: str) -> tuple[list[str], list[str]]:
    """Warnings and lines of the table."""
    warnings = write_comparison(output, found_runs(output), metrics or ("fid_*", "psnr"))
    return warnings, (output / "table.md").read_text().splitlines()


def test_table(tmp_path: Path) -> None:
    for seed in range(3):
        result(tmp_path, f"good/budget_0.1/seed_{seed}", {"fid_768": CLOSE[seed], "psnr": 20.0 + seed})
        result(tmp_path, f"bad/budget_0.1/seed_{seed}", {"fid_768": FAR[seed], "psnr": 20.5 + seed})
    result(tmp_path, "good/budget_0.05/seed_0", {"fid_768": 3.0, "macs_exact": 5e6, "phases": [1]})
    warnings, lines = report(tmp_path)
    assert warnings == []
    assert lines[0] == "| experiment | budget | seeds | MACs (exact), G ↓ | FID-768 ↓ | PSNR, dB ↑ |"
    assert lines[2:7] == [
        "| teacher |  |  | 0.1 | 1.500 |  |",
        "| bad | 0.1 | 3 | 0.01 | 2.100 ± 0.100 (3) | 21.50 ± 1.00 (3) |",
        "| good | 0.1 | 3 | 0.01 | **1.100** ± 0.100 (3) | 21.00 ± 1.00 (3) |",
        "| good | 0.05 | 1 | 0.005 | 3.000 |  |",
        "| *spread of seeds* |  |  |  | 0.100 | 1.00 |",
    ]
    assert "Measured with: images 7; size [16, 24]." in lines
    assert "Welch" in lines[-1]
    assert "Holm" in lines[-1]


@pytest.mark.parametrize(
    ("root", "name", "seed"), [("", "out", None), ("a/seed_3/", "a", 3), ("sweep/x1/", "sweep/x1", None)]
)
def test_budgets_of_one_search_are_one_line(root: str, name: str, seed: int | None, tmp_path: Path) -> None:
    for folder in ("", "budget_0.25", "budget_0.1", "previous-1/budget_0.5"):
        result(tmp_path / "out", root + folder, {"fid_768": 1.0})
    description = {"version": 1, "provenance": {"budget": 0.05}}
    (tmp_path / "out" / root / "generator.json").write_text(json.dumps(description))
    found = [(p.name, p.budget, p.seed, p.path) for p in found_runs(tmp_path / "out")]
    places = {"0.25": "budget_0.25", "0.1": "budget_0.1", "0.05": ""}
    assert found == [(name, budget, seed, Path(root + folder)) for budget, folder in places.items()]


def test_the_table_leaves_no_metric_of_the_csv_out(tmp_path: Path) -> None:
    figures = {"psnr": 20.0, "ssim": 0.5, "spots": 7.0, "latency_ms": latency(3.0)}
    result(tmp_path, "a/seed_0", figures, teacher_ssim=0.25)
    _, lines = report(tmp_path, "psnr")
    assert lines[0] == "| experiment | budget | seeds | MACs (exact), G ↓ | PSNR, dB ↑ |"
    second = lines.index("All other figures:") + 2
    cells = [[cell.strip() for cell in line.split("|")] for line in lines[second : second + 4]]
    heads = ["Latency, ms ↓", "SSIM ↑", "FID-768 ↓", "spots", "SSIM to the teacher ↑"]
    assert cells[0][5:-1] == heads
    assert cells[2][5:-1] == ["", "", "1.500", "", ""]  # the teacher
    assert cells[3][5:-1] == ["3", "0.5000", "", "7", "0.2500"]


def test_csv_has_every_number(tmp_path: Path) -> None:
    result(tmp_path, "a/seed_4", {"latency_ms": latency(0.1 + 0.2), "name": "x"}, teacher_l1=0.25)
    report(tmp_path)
    student, teacher = csv.DictReader((tmp_path / "results.csv").open())
    assert (student["experiment"], student["seed"], student["teacher_l1"]) == ("a", "4", "0.25")
    assert float(student["latency_ms.median_ms"]) == float(student["latency_ms"]) == 0.1 + 0.2
    assert (teacher["experiment"], teacher["fid_768"]) == ("teacher", "1.5")
    assert "name" not in student


def log(output: Path, place: str, losses: dict[int, float]) -> None:
    """What a search logs."""
    file = output / place / "logs" / "version_0" / "metrics.csv"
    file.parent.mkdir(parents=True)
    lines = [f"{step},{loss}" for step, loss in losses.items()]
    file.write_text("\n".join(["step,train/discriminator_density", *lines, ""]))


def test_curves_of_searches(tmp_path: Path) -> None:
    for seed in range(2):
        result(tmp_path, f"a/seed_{seed}", {"fid_768": 1.0 + seed})
    report(tmp_path)
    assert (tmp_path / "plot.svg").exists()
    assert not (tmp_path / "search.svg").exists()
    log(tmp_path, "a/seed_0", {49: 0.5, 99: 0.25})
    report(tmp_path)
    one = (tmp_path / "search.svg").read_bytes()
    log(tmp_path, "a/seed_1", {49: 0.75, 149: 0.1})
    report(tmp_path)
    assert (tmp_path / "search.svg").read_bytes() != one
    assert (tmp_path / "search.png").stat().st_size > 1000


def test_curves_meet_where_all_seeds_have_points() -> None:
    curves = [[(49, 0.5), (99, 0.25)], [(49, 0.75), (149, 0.1)], [(49, 1.0)]]
    assert list(_over_seeds(curves)) == [(49, 0.5, 0.75, 1.0)]
    assert list(_over_seeds([])) == []


def test_curves_that_never_meet_cost_no_table(tmp_path: Path) -> None:
    for seed, step in enumerate((49, 24)):
        result(tmp_path, f"a/seed_{seed}", {"fid_768": 1.0 + seed})
        log(tmp_path, f"a/seed_{seed}", {step: 0.5})
    _, lines = report(tmp_path)
    assert any(line.startswith("| a |") for line in lines)


def test_directions_apart(tmp_path: Path) -> None:
    for suffix, fid in (("_AtoB", 1.0), ("_BtoA", 2.0)):
        result(tmp_path, "a/seed_0", {"fid_768": fid}, suffix)
    _, lines = report(tmp_path)
    assert [line for line in lines if line.startswith("##")] == ["## AtoB", "## BtoA"]
    assert [line.split(" | ")[4] for line in lines if line.startswith("| a")] == ["1.000 |", "2.000 |"]


def test_what_can_not_be_compared(tmp_path: Path) -> None:
    result(tmp_path, "a/seed_0", {"fid_768": 1.0}, fid={"feature": 768, "weights_sha256": "a" * 64})
    result(tmp_path, "b/seed_0", {"fid_768": 1.0}, fid={"feature": 768, "weights_sha256": "b" * 64})
    networks = {"teacher": {"macs_exact": 99e6}, "student": {"macs_exact": 10e6}}
    result(tmp_path, "c/seed_0", {}, networks=networks, fid={"feature": 768, "weights_sha256": "a" * 64})
    (other, teacher), lines = report(tmp_path)
    assert f"fid.weights_sha256: {'a' * 12} in a/seed_0, c/seed_0, {'b' * 12} in b/seed_0." in other
    assert "macs_exact from 9.9e+07 to 1e+08" in teacher
    assert lines[0] == f"**Warning.** {other}"


def test_a_run_in_the_midst_of_its_search_is_told(tmp_path: Path) -> None:
    result(tmp_path, "a/seed_0", {"fid_768": 1.0})
    result(tmp_path, "b/seed_0", {"fid_768": 2.0}, phase="search")
    assert report(tmp_path)[0] == [
        "b/seed_0: tested in the search, with masks. Finish the runs and test them again."
    ]


def test_seeds_without_effect(tmp_path: Path) -> None:
    for seed in (0, 1):
        result(tmp_path, f"a/seed_{seed}", {"fid_768": 1.0, "latency_ms": latency(seed)})
    assert report(tmp_path)[0] == [
        "The seeds of a made no difference at all: leave data.seed out, or see seed_options."
    ]


def test_runs_of_a_sweep_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    for run, lr in {"x1": 0.1, "y2": 0.2}.items():
        result(tmp_path, run, {"fid_768": lr})
        callback = {"class_path": "pkg.Agents", "init_args": {"lr": lr, "feedback": True}}
        trainer = {"default_root_dir": f"runs/{run}", "callbacks": [callback]}
        settings = {"model": {"class_path": "Net", "init_args": {"budget": 0.1}}, "trainer": trainer}
        (tmp_path / run / "config.yaml").write_text(yaml.safe_dump(settings))
    result(tmp_path, "y2/previous-1", {"fid_768": 3.0})  # set aside
    _, lines = report(tmp_path)
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ")][-2:] == ["x1", "y2"]
    assert lines[-3:] == [
        "",
        "- x1: trainer.callbacks.Agents.lr 0.1",
        "- y2: trainer.callbacks.Agents.lr 0.2",
    ]
    (tmp_path / "x1" / "config.yaml").write_text("- 1")
    with pytest.raises(UserError, match=r"x1/config\.yaml holds no settings"):
        report(tmp_path)


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("name,salary\n")
    with pytest.raises(UserError, match=r"results\.csv is of no comparison"):
        compare(str(tmp_path), only_report=True)
    (tmp_path / "results.csv").rename(tmp_path / "table.md")
    with pytest.raises(UserError, match=r"table\.md is of no comparison"):
        compare(str(tmp_path), {"a": []})


def test_metrics_that_nobody_measured(tmp_path: Path) -> None:
    result(tmp_path, "a/seed_0", {"fid_768": 1.0})
    assert report(tmp_path, "miou")[0] == [
        "None of the metrics miou has been measured; there are macs_exact, fid_768."
    ]


def test_damaged_results(tmp_path: Path) -> None:
    result(tmp_path, "a/seed_0", {})
    (tmp_path / "a/seed_0/test/results.json").write_text("{")
    with pytest.raises(UserError, match=r"a/seed_0/test/results.json holds no results"):
        report(tmp_path)


def make_plan(**settings: Any) -> Any:
    nothing: dict[str, Any] = {"seeds": [0], "budgets": [], "common": [], "test": [], "seed_options": []}
    return plan(Path("out"), **{"experiments": {"a": None}, **nothing, **settings})


def test_plan() -> None:
    runs = make_plan(
        experiments={"a": None, "b": ["policy_random.yaml", "--trainer.callbacks.seed={seed}"]},
        seeds=[0, 1],
        budgets=[0.1, "600M"],
        common=["pix2pix_facades.yaml", "--x={budget}"],
        test=["--y=1"],
        seed_options=["--seed_everything"],
    )
    assert [run.place.path.as_posix() for run in runs[:3]] == [
        "a/budget_0.1/seed_0",
        "b/budget_0.1/seed_0",
        "a/budget_600M/seed_0",
    ]
    assert runs[-1].command("test") == [
        *("test", "--config", "pix2pix_facades.yaml", "--x=600M", "--model.budget=600M"),
        *("--config", "policy_random.yaml", "--trainer.callbacks.seed=1", "--seed_everything=1"),
        *("--trainer.default_root_dir=out/b/budget_600M/seed_1", "--y=1"),
        "--ckpt_path=out/b/budget_600M/seed_1/checkpoints/last.ckpt",
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"experiments": {"../a": None}}, "can't be a folder"),
        ({"experiments": {"a/budget_1": None}}, "can't be a folder"),
        ({"common": ["nowhere.yaml"]}, "no configuration nowhere.yaml"),
        ({"common": ["--model.lr", "0.1"]}, "--key=value"),
    ],
)
def test_bad_plans(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_plan(**settings)
