"""The page on sweeps and clusters: its options exist, its Python runs."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import documents
import pytest
import tiny

from lightning_gancompress.cli import main
from lightning_gancompress.shipped_configs import configs_folder

PAGE = "sweeps_and_clusters.md"


class Trial:
    """What the page uses of Optuna's, which isn't installed for the tests."""

    def __init__(self, number: int) -> None:
        self.number = number

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return low * (self.number + 1)


class Study:
    def optimize(self, objective: Any, n_trials: int) -> None:
        self.values = [objective(Trial(number)) for number in range(n_trials)]


def test_optuna(
    tmp_path: Path,
    unet: Path,
    facades: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    optuna: Any = ModuleType("optuna")
    optuna.Trial, optuna.create_study = Trial, lambda direction: Study()
    monkeypatch.setitem(sys.modules, "optuna", optuna)
    monkeypatch.chdir(tmp_path)
    args = [*tiny.compression(tmp_path, unet, "UniformWidth"), *facades, "--trainer.limit_train_batches=1"]
    args = [arg for arg in args[1:] if "logger" not in arg and "default_root_dir" not in arg]
    with pytest.raises(SystemExit):
        main(["fit", *args, "--model.decay_epochs=0", "--print_config"])
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    (code,) = (text for language, text in documents.blocks(PAGE) if language == "python")
    names: dict[str, Any] = {}
    exec(compile(code, PAGE, "exec"), names)
    assert len(names["study"].values) == 2
    assert all(0 < value < 1 for value in names["study"].values)
    assert (tmp_path / "runs/optuna/1/generator.pth").is_file()


def test_the_comparison_has_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = (text for _, text in documents.blocks(PAGE) if "--launcher slurm" in text)
    words = shlex.split(text.replace("\\\n", ""))[1:]
    words[words.index("comparison.yaml")] = "compare_facades_128.yaml"
    main([*words, f"--output={tmp_path}", "--seeds=[0]", "--budgets=[0.1]", "--dry_run"])
    assert "# agents/budget_0.1/seed_0: fit" in capsys.readouterr().out


def test_the_files_are_there() -> None:
    page = (documents.DOCS / PAGE).read_text()
    named = set(re.findall(r"`(?:sweeps/)?([\w]+\.(?:yaml|sh))`", page)) - {"mine.yaml"}
    shipped = {p.name for folder in ("sweeps", "cluster") for p in (configs_folder() / folder).iterdir()}
    assert named == shipped
