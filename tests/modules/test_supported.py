"""What of Lightning's trainer can't work is refused before a run begins."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import tiny
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy

from lightning_gancompress.cli import main
from lightning_gancompress.errors import UserError
from lightning_gancompress.modules.supported import require_whole_networks, say_who_waits

REFUSED = [
    ("strategy=fsdp", "use ddp."),
    ("strategy=deepspeed_stage_2", "use ddp."),
    ("precision=transformer-engine", "use bf16-mixed."),
    ("precision=16-true", "use 16-mixed, bf16-mixed or bf16-true."),
    ("accelerator=tpu", "there is no tpu here, but cpu: choose that, or auto."),
    ("accelerator=banana", "there is no banana here"),
    ("check_val_every_n_epoch=0", "trainer.limit_val_batches to 0"),
    ("val_check_interval=0", "trainer.limit_val_batches to 0"),
    ("num_nodes=2", "set MASTER_ADDR"),
]


@pytest.mark.parametrize(("option", "remedy"), REFUSED)
def test_what_cant_work_is_refused_in_one_sentence(
    option: str, remedy: str, tmp_path: Path, facades: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    code, said = tiny.fail_code(capsys, [*tiny.teacher(tmp_path / "run"), *facades, f"--trainer.{option}"])
    assert code == 2
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: trainer.{option.partition('=')[0]}: ")
    assert remedy in line
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_strategies_that_divide_networks_are_told_by_class() -> None:
    require_whole_networks(DDPStrategy())
    for strategy in (FSDPStrategy(), DeepSpeedStrategy.__new__(DeepSpeedStrategy)):
        with pytest.raises(UserError, match=type(strategy).__name__):
            require_whole_networks(strategy)


def test_several_machines_say_where_they_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "2345", "NODE_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", num_nodes=2, devices=2, logger=False)
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        say_who_waits(trainer)
    assert caplog.messages[-1] == (
        "Waiting at 10.0.0.7:2345 for 4 processes on 2 machines; this is machine 1."
    )


def test_overfitting_shows_the_same_batches_in_every_epoch(
    tmp_path: Path, unet: Path, facades: list[str]
) -> None:
    options = ["--trainer.overfit_batches=2", "--trainer.callbacks+=tiny.Tables"]
    main(tiny.compression(tmp_path / "run", unet, "CollaborativePruning", *facades, *options))
    batches = json.loads((tmp_path / "run" / "tables.json").read_text())["batches"]["index"]
    assert len(batches) == 4
    assert batches[:2] == batches[2:]
    assert batches[0] != batches[1]
