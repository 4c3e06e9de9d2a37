"""The fine-tuning phase in whole runs."""

from __future__ import annotations

import csv
from pathlib import Path

import tiny

from lightning_gancompress.cli import main


def test_discriminators_train_in_every_second_step(tmp_path: Path, facades: list[str], unet: Path) -> None:
    args = tiny.compression(tmp_path / "run", unet, "UniformWidth", "--model.discriminator_every=2")
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}"]
    main([*[a for a in args if "logger" not in a], *logger, "--trainer.log_every_n_steps=4", *facades])
    generator, discriminator = tiny.read(tiny.last(tmp_path / "run"))["optimizer_states"]
    assert {int(state["step"]) for state in generator["state"].values()} == {8}  # two epochs of four steps
    assert {int(state["step"]) for state in discriminator["state"].values()} == {4}
    rows = list(csv.DictReader(next(tmp_path.rglob("metrics.csv")).open()))
    logged = [row for row in rows if row["train/generator"]]  # in steps without the discriminator: its last
    assert len(logged) == 2
    assert all(float(row["train/discriminator"]) > 0 for row in logged)
