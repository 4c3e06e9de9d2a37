"""The benchmark of exported forms still knows the forms that it measures."""

import json

import benchmark_exports
import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.networks import NetworkSpec


def test_a_table_of_a_tiny_generator(tmp_path):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    spec = NetworkSpec("lightning_gancompress.networks.ResnetGenerator", {"ngf": 4, "n_blocks": 1})
    record = {"crop_size": 16, "in_channels": 3}
    save_small(spec.build(), spec, tmp_path / "g.safetensors", preprocessing=record, provenance={})
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    folders = [f"--pictures={tmp_path}", f"--calibration={tmp_path}", f"--json={tmp_path / 'f.json'}"]
    forms = ["--rounds=1", "--forms", "torch", "onnx_int8"]
    benchmark_exports.main([str(tmp_path / "g.safetensors"), *folders, *forms])
    torch_row, row = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert (torch_row["ratio"], torch_row["l1_torch"]) == (1, 0)
    assert row["l1_teacher"] == pytest.approx(row["l1_torch"])
    assert 0 < row["l1_torch"] < row["worst"] < 0.2
