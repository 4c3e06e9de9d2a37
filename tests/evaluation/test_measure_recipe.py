"""The recipe for a measure runs as it is written."""

import json
import re
import shlex
from pathlib import Path

import tiny

from lightning_gancompress.cli import main

TEXT = (Path(__file__).parents[2] / "docs" / "recipes" / "measure.md").read_text()
MODULE, COMMAND = (block for _, block in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S))


def test_recipe(tmp_path, monkeypatch, unet, facades):
    (tmp_path / "sharpness.py").write_text(MODULE)
    (tmp_path / "last.ckpt").write_bytes(unet.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = shlex.split(COMMAND)
    assert words[:3] == ["python", "-m", "lightning_gancompress"]
    quick = ["--trainer.callbacks=Evaluation", "--trainer.callbacks.latency=false", *tiny.QUICK]
    main([words[3], *facades, *quick, f"--trainer.default_root_dir={tmp_path}", *words[4:]])
    results = json.loads((tmp_path / "test" / "results.json").read_text())
    assert results["networks"]["generator"]["sharpness"] > 0
    assert results["sharpness"] == {"direction": "horizontal"}
    assert results["metrics"]["sharpness"]["label"] == "Sharpness"
    assert "| Sharpness |" in (tmp_path / "test" / "table.md").read_text()
