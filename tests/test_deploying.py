"""The page on deploying, whose commands and code run as they are written."""

import shutil

import documents
import numpy as np
import torch
from PIL import Image

from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.export import export_onnx
from lightning_gancompress.networks import NetworkSpec


def test_the_page_runs(tmp_path, hub, monkeypatch):
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    run = tmp_path / "runs" / "facades"
    torch.manual_seed(0)
    spec = NetworkSpec("lightning_gancompress.networks.UnetGenerator", {"ngf": 4, "n_downs": 5})
    record = {"crop_size": 32, "in_channels": 3}
    export_onnx(spec.build(), tmp_path / "generator.onnx", torch.zeros(1, 3, 32, 32), preprocessing=record)
    shutil.copy(tmp_path / "generator.onnx", tmp_path / "teacher.onnx")
    save_small(spec.build(), spec, run / "generator.safetensors", preprocessing=record, provenance={})
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8))
    photo.save(tmp_path / "photo.jpg")
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / "a.png")
    documents.run("deploying.md", tmp_path)
    sizes = {}
    for name in ("translated", "a_translated", "translated/a", "predictions/photo", "pixels", "large"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            sizes[name] = picture.size
    assert sizes.pop("predictions/photo") == sizes.pop("pixels") == (32, 32)
    assert set(sizes.values()) == {(200, 150)}
    assert "user/facades/README.md" in hub.files
