"""Whole runs on images of all kinds, through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from lightning_gancompress.callbacks import prediction
from lightning_gancompress.cli import main
from lightning_gancompress.data.facades import render_facade


def test_predictions_of_all_kinds(unet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are mixed, one is not for the network, some files are damaged; the others are translated."""
    sources = tmp_path / "sources"
    sources.mkdir()
    photo = Image.fromarray(np.arange(32 * 64 * 3, dtype=np.uint8).reshape(32, 64, 3))
    photo.getexif()[0x0112] = 6
    photo.save(sources / "turned.jpg", exif=photo.getexif())
    photo.save(sources / "wide.webp")
    photo.crop((0, 0, 20, 20)).save(sources / "small.gif")
    (sources / "cut.jpg").write_bytes((sources / "turned.jpg").read_bytes()[:700])
    (sources / "text.png").write_text("")
    line = [
        "predict",
        f"--ckpt_path={unet}",
        "--data.preprocess=none",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    said: list[str] = []
    monkeypatch.setattr(prediction, "rank_zero_info", said.append)
    with pytest.warns(UserWarning, match="Left out") as warned:
        main([*line, f"--data.predict_folder={sources}"])
    found = {path.name: Image.open(path).size for path in (tmp_path / "predictions").iterdir()}
    assert found == {"turned.png": (32, 64), "wide.png": (64, 32)}
    assert said == [f"Predictions: 2 in {tmp_path / 'predictions'}, 3 left out."]
    for why in ("small.gif: UnetGenerator can't", "cut.jpg can't be decoded", "text.png can't be decoded"):
        assert any(why in str(warning.message) for warning in warned)


def test_prediction_of_one_file(unet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, other = tmp_path / "in" / "one.jfif", tmp_path / "in" / "no.png"
    photo.parent.mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(photo, "JPEG")
    other.write_text("")
    line = ["predict", f"--ckpt_path={unet}", f"--trainer.default_root_dir={tmp_path}"]
    main([*line, f"--data.predict_folder={photo}"])
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["one.png"]
    code, said = tiny.fail_code(capsys, [*line, f"--data.predict_folder={other}"])
    assert code == 2
    assert "No image was translated: Image" in said


def test_a_fit_without_validation_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Photos beside labels are not cut in half; as two folders they train without a validation split."""
    for split in ("train", "trainannot"):
        (tmp_path / split).mkdir()
        for i in range(8):
            picture = render_facade(64, 0, i)[split != "train"]
            picture.resize((96, 64)).save(tmp_path / split / f"{i}.png")
    options = ["load_size=32", "crop_size=32", "num_workers=0", "batch_size=4", f"root={tmp_path}"]
    data = ["--data=PairedDataModule", *(f"--data.{option}" for option in options)]
    line = [*tiny.teacher(tmp_path / "run"), *data]
    code, said = tiny.fail_code(capsys, line)
    assert code == 2
    assert "Set data.source_folder to '{split}' and data.target_folder to '{split}annot'" in said
    line += ["--data.source_folder={split}", "--data.target_folder={split}annot"]
    assert "or trainer.limit_val_batches to 0" in tiny.fail_code(capsys, line)[1]
    main([*line, "--trainer.limit_val_batches=0"])
    assert tiny.last(tmp_path / "run").is_file()
