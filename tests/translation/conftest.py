"""Small generators as files."""

from pathlib import Path

import pytest
import torch

from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.networks import NetworkSpec

RECORD = {"preprocess": "resize_and_crop", "load_size": 36, "crop_size": 32, "in_channels": 3}


@pytest.fixture
def saved(tmp_path):
    """Writes a generator with random weights, by class, arguments and recorded preprocessing."""

    def save(kind: str = "UnetGenerator", record=RECORD, name: str = "generator.pth", **arguments) -> Path:
        shape = {"n_downs": 5} if kind == "UnetGenerator" else {"n_blocks": 1}
        spec = NetworkSpec(
            f"lightning_gancompress.networks.{kind}", {"ngf": 4, "init_gain": 0.3, **shape, **arguments}
        )
        torch.manual_seed(0)
        path = tmp_path / name
        save_small(spec.build(), spec, path, preprocessing=dict(record), provenance={})
        return path

    return save


@pytest.fixture
def unet(saved):
    return saved()
