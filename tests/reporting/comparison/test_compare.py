"""Comparisons as a user runs them: runs that die, fail, change, and are interrupted."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml

from lightning_gancompress.cli import main
from lightning_gancompress.run_folder import alone_in

FAST = ["--model.epochs=1", "--model.decay_epochs=1", "--trainer.limit_train_batches=2"]
RANDOM = ["--trainer.callbacks=RandomChannels", "--trainer.callbacks.seed={seed}"]
DIES = ["--trainer.callbacks+=tiny.KillOnce", "--trainer.callbacks.epoch=1", "--trainer.callbacks.batch=1"]
TEST = ["--trainer.callbacks+=Evaluation", "--trainer.callbacks.latency=false"]


def write(folder: Path, common: list[str], experiments: dict[str, list[str]], **more: Any) -> list[str]:
    """Arguments of a comparison in `folder`."""
    settings = {"output": str(folder), "common": common, "experiments": experiments, "test": TEST}
    settings |= {"seed_options": ["--seed_everything"], "seeds": [0, 1], "metrics": ["l1", "teacher_l1"]}
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(settings | more, sort_keys=False))
    return ["compare", "--config", str(file), "--threads=1"]


@pytest.fixture(scope="module")
def common(unet: Path, facades: list[str]) -> list[str]:
    model = ["--model=CompressionModule", f"--model.teacher={unet}", "--model.budget=0.3"]
    return [*model, *facades, *tiny.QUICK, *FAST]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare") / "all"


@pytest.fixture(scope="module")
def first(folder: Path, common: list[str]) -> int | str | None:
    """Exit code of a comparison of which one experiment dies and one can't be parsed."""
    experiments = {"random": RANDOM, "dies": [*RANDOM, *DIES], "broken": ["--model.nonsense=1"]}
    with pytest.raises(SystemExit) as stop:
        main([*write(folder, common, experiments), "--jobs=2"])
    return stop.value.code


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "command.json").read_text())
    return found


@pytest.mark.usefixtures("first")
class TestOneAfterTheOther:
    """The states of one comparison."""

    def test_failures_leave_the_others_alone(self, folder: Path, first: int) -> None:
        assert first == 1
        for seed in (0, 1):
            assert record(folder / f"random/seed_{seed}")["finished"] == ["fit", "test"]
            assert record(folder / f"dies/seed_{seed}")["finished"] == []
            assert not (folder / f"broken/seed_{seed}/test").exists()
        log = (folder / "broken/seed_0/log.txt").read_text()
        assert "nonsense" in log.splitlines()[-1]
        table = (folder / "table.md").read_text()
        assert "| random |  | 2 |" in table
        assert "dies" not in table

    def test_seeds_are_seeds(self, folder: Path) -> None:
        rows = list(csv.DictReader((folder / "results.csv").open()))
        assert [row["experiment"] for row in rows] == ["random", "random", "teacher"]
        assert [row["seed"] for row in rows] == ["0", "1", ""]
        assert rows[0]["teacher_l1"] != rows[1]["teacher_l1"]
        assert float(rows[1]["macs_exact"]) < 0.31 * float(rows[2]["macs_exact"])
        for ending in ("png", "svg"):
            assert (folder / f"plot.{ending}").stat().st_size > 5000

    def test_goes_on(self, folder: Path, common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        done, untested = folder / "random/seed_0", folder / "random/seed_1"
        (untested / "test/results.json").unlink()
        before = {run: (run / "log.txt").read_text() for run in (done, untested)}
        args = write(folder, common, {"random": RANDOM, "dies": [*RANDOM, *DIES]})
        main([*args, "--dry_run"])
        words = capsys.readouterr().out.splitlines()
        assert [line for line in words if line.startswith("#")] == [
            "# random/seed_0: done",
            "# dies/seed_0: resume, epoch 1/2 is done",
            "# random/seed_1: test",
            "# dies/seed_1: resume, epoch 1/2 is done",
        ]
        main([*args, "--jobs=2"])
        assert (done / "log.txt").read_text() == before[done]
        added = (untested / "log.txt").read_text().removeprefix(before[untested])
        assert " lightning_gancompress test " in added
        assert " lightning_gancompress fit " not in added
        for seed in (0, 1):
            tiny.assert_same_end(folder / f"dies/seed_{seed}", folder / f"random/seed_{seed}")
        assert "| dies |  | 2 |" in (folder / "table.md").read_text()

    def test_other_settings_are_refused(
        self, folder: Path, common: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        args = write(folder, [*common, "--model.lr=0.1"], {"random": RANDOM})
        code, words = tiny.fail_code(capsys, args)
        assert code == 2
        assert "random/seed_0 was made with other settings" in words
        assert "--model.lr=0.1" in words

    def test_other_test_settings_test_again(
        self, folder: Path, common: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        args = write(folder, common, {"random": RANDOM}, test=[*TEST, "--trainer.limit_test_batches=1"])
        main([*args, "--dry_run"])
        assert "# random/seed_0: test" in capsys.readouterr().out

    def test_report_of_what_is_there(self, folder: Path) -> None:
        for path in folder.glob("random/*/command.json"):
            path.unlink()  # as if made by other means
        (folder / "table.md").unlink()
        main(["compare", f"--output={folder}", "--only_report", "--metrics=[psnr]"])
        table = (folder / "table.md").read_text()
        assert "PSNR, dB ↑" in table
        assert "| random |  | 2 |" in table


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (["--trainer.callbacks+=Evaluatoin"], "Evaluatoin"),
        ([*TEST, "--trainer.callbacks.fid_weights=x.pth"], "but fid_feature is not set"),
        ([*TEST, "--trainer.callbacks.no_option=1"], "no_option"),
    ],
)
def test_the_options_of_the_test_are_read_before_the_training(
    tmp_path: Path, common: list[str], capsys: pytest.CaptureFixture[str], test: list[str], words: str
) -> None:
    experiments = {"broken": ["--model.nonsense=1"], "random": RANDOM}
    code, said = tiny.fail_code(capsys, write(tmp_path / "all", common, experiments, test=test))
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("error: test of random: ")
    assert words in said
    assert not (tmp_path / "all").exists()


def test_interrupted(
    tmp_path: Path,
    common: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lightning_gancompress.reporting.comparison.runs.LOOK", 0.1)
    args = write(tmp_path / "all", [*common, "--model.epochs=100"], {"long": RANDOM}, seeds=[3])
    last = tiny.last(tmp_path / "all/long/seed_3")

    def interrupt() -> None:
        for _ in range(3000):
            if last.exists():
                break
            time.sleep(0.1)
        time.sleep(1)  # ten looks at it
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(SystemExit) as stop:
        main(args)
    thread.join()
    assert stop.value.code == 130
    assert re.search(r"^long/seed_3: epoch \d+/101 is done$", capsys.readouterr().out, re.MULTILINE)
    assert "Stopping after this batch" in (tmp_path / "all/long/seed_3/log.txt").read_text()
    main([*args, "--dry_run"])
    assert "# long/seed_3: resume, epoch " in capsys.readouterr().out

    with alone_in(tmp_path / "all", "another", ""):
        code, words = tiny.fail_code(capsys, args)
    assert code == 2
    assert words.startswith(f"error: Another comparison is at work in {tmp_path / 'all'} (process ")
    assert words.endswith(": wait for it or stop it, or choose another output.\n")


@pytest.mark.parametrize(
    ("config", "runs"),
    [
        ("compare_facades_128.yaml", 17),
        ("compare_horse2zebra_128.yaml", 13),
        ("compare_vintage_256.yaml", 4),
        ("compare_cityscapes_128.yaml", 4),
    ],
)
def test_shipped(
    config: str,
    runs: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["compare", "--config", config, "--seeds=[1]", "--budgets=[0.05]", "--dry_run"]
    main(args)
    lines = [line for line in capsys.readouterr().out.splitlines() if " fit " in line]
    assert len(set(lines)) == len(lines) == runs
    for line in lines:
        with pytest.raises(SystemExit) as stop:
            main([*shlex.split(line)[3:], "--print_config"])
        assert not stop.value.code
        assert "budget: 0.05" in capsys.readouterr().out


def test_runs_share_the_cores_of_the_process(
    tmp_path: Path, common: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr(
        "lightning_gancompress.cli.commands.compare.execute",
        lambda runs, jobs, threads, **_: found.append(threads),
    )
    before = torch.get_num_threads()
    try:
        for available, jobs in ((6, 2), (1, 4)):
            torch.set_num_threads(available)
            main([*write(tmp_path / "all", common, {"random": RANDOM})[:-1], f"--jobs={jobs}"])
    finally:
        torch.set_num_threads(before)
    assert found == [3, 1]
