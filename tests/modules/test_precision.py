"""Whole runs in every precision that Lightning's trainer has, and on devices without double precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from lightning_gancompress import load_generator
from lightning_gancompress.cli import main

PRECISIONS = ["64-true", "32-true", "bf16-true", "bf16-mixed", "16-mixed"]
DTYPES = {"64-true": torch.float64, "bf16-true": torch.bfloat16}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_compression_runs_in_every_precision(
    precision: str, tmp_path: Path, unet: Path, facades: list[str]
) -> None:
    run, option = tmp_path / "run", f"--trainer.precision={precision}"
    distilled = ["--model.distillation=Distillation", "--model.distillation.features=1.0"]
    main(tiny.compression(run, unet, "CollaborativePruning", *facades, *distilled, option))
    small = torch.load(run / "generator.pth", weights_only=True)
    assert {t.dtype for t in small.values() if t.is_floating_point()} == {
        DTYPES.get(precision, torch.float32)
    }
    main(["export", "--ckpt_path", str(run / "generator.pth")])
    folder = ["--trainer.default_root_dir", str(run)]
    main(["test", "--ckpt_path", str(tiny.last(run)), option, *folder, *tiny.QUICK])
    figures = json.loads((run / "test" / "results.json").read_text())["networks"]
    assert figures["student"]["macs_exact"] <= 0.3 * figures["teacher"]["macs_exact"]
    photos = ["--data.predict_folder", str(Path(facades[1].partition("=")[2], "test"))]
    main(["predict", "--ckpt_path", str(tiny.last(run)), option, *folder, *tiny.QUICK, *photos])
    assert load_generator(run / "generator.pth")(torch.zeros(1, 3, 32, 32)).isfinite().all()
