"""Several processes share the real images, and count each once, as one process does."""

import json
import os

import pytest
import tiny
import torch
from tiny_module import Pairs, TinyModule, make_trainer
from torch import nn

from lightning_gancompress.data import DatasetDataModule
from lightning_gancompress.evaluation.evaluation import Evaluation
from lightning_gancompress.metrics import fid as fid_module


class Pool(nn.Module):
    """In place of Inception: 64 features of an image; notes the images of each process."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def forward(self, images):
        with (self.notes / str(os.getpid())).open("a") as file:
            file.write(f"{len(images)}\n")
        return (nn.functional.adaptive_avg_pool2d(images.float() / 255, 5).flatten(1)[:, :64],)


def measured(folder, ranks, monkeypatch):
    """Results of a test, cached features of the real images, and the images that each process encoded."""
    folder.mkdir()
    monkeypatch.setattr(fid_module, "load_inception", lambda feature, weights: Pool(folder))
    data = DatasetDataModule(Pairs(13), test=Pairs(7), eval_batch_size=2)
    many = {"devices": ranks, "strategy": "ddp_fork"} if ranks > 1 else {}
    evaluation = Evaluation(fid_feature=64, fid_reals="train+test", latency=False)
    make_trainer(folder / "run", evaluation, **many).test(TinyModule(), datamodule=data, verbose=False)
    (cached,) = (folder / "run" / "cache").glob("*.pt")
    encoded = [sum(map(int, notes.read_text().split())) for notes in folder.iterdir() if notes.is_file()]
    results = json.loads((folder / "run" / "test" / "results.json").read_text())
    return results, torch.load(cached), encoded


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_image_is_encoded_by_one_rank_and_counts_once(ranks, tmp_path, monkeypatch):
    one, features, whole = measured(tmp_path / "one", 1, monkeypatch)
    assert whole == [
        3 * 7 + 13
    ]  # teacher's, student's and real images of the test, and those of the training
    many, gathered, shares = measured(tmp_path / "many", ranks, monkeypatch)
    assert torch.equal(gathered, features)
    assert (len(shares), sum(shares)) == (ranks, sum(whole))
    assert many["fid"] == one["fid"]
    assert (one["fid"]["n_real"], one["fid"]["n_fake"], many["images"]) == (20, 7, 7)
    for name in ("teacher", "student"):
        assert many["networks"][name] == pytest.approx(one["networks"][name], rel=1e-5)


def test_neighbourhoods_of_two_ranks_are_those_of_one(tmp_path, unet, facades):
    tables = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        args = [*tiny.compression(folder / "run", unet), *facades, "--data.eval_batch_size=5"]
        args += [
            *tiny.kill(0, 0),
            "--trainer.limit_val_batches=0",
        ]  # after the table
        args += ["--trainer.devices=2", "--trainer.strategy=ddp_fork"] * (ranks == 2)
        tiny.Fork(args, tmp_path / "log").wait(120)
        (table,) = (folder / "neighbours").glob("*.pt")
        tables.append(torch.load(table))
    assert torch.equal(*tables)
