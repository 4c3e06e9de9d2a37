"""Every argument that is a path may name the home folder and environment variables."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_gancompress import UserError, compress, load_generator
from lightning_gancompress.callbacks import LastCheckpoint, PredictionWriter, SegmentationScore
from lightning_gancompress.checkpoints import load_networks, load_small, load_upstream, save_small
from lightning_gancompress.cli.commands.compare import compare
from lightning_gancompress.cli.commands.demo import demo
from lightning_gancompress.cli.commands.export import export
from lightning_gancompress.cli.commands.profile import profile
from lightning_gancompress.cli.commands.report import report
from lightning_gancompress.cli.configs import expanded
from lightning_gancompress.data import (
    FolderDataModule,
    PairedDataModule,
    SyntheticFacades,
    UnpairedDataModule,
)
from lightning_gancompress.density import BackboneEncoder
from lightning_gancompress.density.neighbourhoods import cache_folder
from lightning_gancompress.export import export_torch
from lightning_gancompress.files import user_path
from lightning_gancompress.finetune.distillation import load_vgg
from lightning_gancompress.metrics.fid import load_inception
from lightning_gancompress.metrics.lpips import Lpips
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.shipped_configs import find_config
from lightning_gancompress.trainer import Trainer

X = "$NOPE/x"
USES = {
    "default_root_dir": lambda: Trainer(default_root_dir=X),
    "dirpath": lambda: LastCheckpoint(dirpath=X),
    "folder": lambda: PredictionWriter(X),
    "fid_weights": lambda: load_inception(64, X),
    "lpips_weights": lambda: Lpips(X),
    "cache_dir": lambda: cache_folder(X, SimpleNamespace(fast_dev_run=False)),
    "labels": lambda: SegmentationScore(labels=X, protocol="field"),
    "encoder": lambda: BackboneEncoder("resnet18", X),
    "vgg": lambda: load_vgg(X),
    "teacher": lambda: CompressionModule(teacher=X).phases.build(),
    "teacher by role": lambda: CompressionModule(teacher={"generator": X}).phases.build(),
    "pairs": lambda: PairedDataModule(X),
    "domains": lambda: UnpairedDataModule(X),
    "images": lambda: FolderDataModule(X),
    "facades": lambda: SyntheticFacades(X),
    "predict_folder": lambda: FolderDataModule(".", predict_folder=X).predict_dataset(),
    "load_generator": lambda: load_generator(X),
    "load_networks": lambda: load_networks(X),
    "load_small": lambda: load_small(X),
    "load_upstream": lambda: load_upstream(X),
    "save_small": lambda: save_small(nn.Conv2d(3, 3, 1), None, X, preprocessing={}, provenance={}),
    "compress": lambda: compress(nn.Conv2d(3, 3, 1), folder=X),
    "compress data": lambda: compress(nn.Conv2d(3, 3, 1), data=X),
    "config": lambda: find_config(X),
    "export": lambda: export(X),
    "export output": lambda: export("here", output=X),
    "export_torch": lambda: export_torch(nn.Conv2d(3, 3, 1), X, torch.zeros(1, 3, 8, 8)),
    "profile": lambda: profile(ckpt_path=X),
    "profile json": lambda: profile(ckpt_path="here", json=X),
    "compare": lambda: compare(X),
    "report": lambda: report(X),
    "demo": lambda: demo(X, port=0),
    "demo samples": lambda: demo("here", samples=X, port=0),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_variables_are_replaced(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the environment variable NOPE is not set"):
        use()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["https://host/x.png", Path("https://host/x.png"), "$HOST/x.png"])
def test_an_address_is_no_path(name, monkeypatch):
    monkeypatch.setenv("HOST", "https://host")
    with pytest.raises(UserError, match=r"^https://host/x.png is an address: give a file or folder of this"):
        user_path(name)
    assert user_path("C:/x") == Path("C:/x")


def test_variables_in_an_address_among_the_settings_are_replaced(monkeypatch):
    monkeypatch.setenv("HOST", "host")
    assert expanded({"tracking_uri": "https://$HOST/x"}) == {"tracking_uri": "https://host/x"}
