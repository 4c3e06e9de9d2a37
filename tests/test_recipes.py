"""The recipes run as they are written."""

import json

import documents
import pytest
import torch
from torch import nn

from lightning_gancompress import compress, load_generator
from lightning_gancompress.networks import ResnetGenerator
from lightning_gancompress.pruning import count_macs


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which all blocks ran, in order, and the names they left behind."""
    folder = tmp_path_factory.mktemp("recipes")
    return folder, documents.run("recipes.md", folder)


def test_data_module_and_task(ran):
    folder, _ = ran
    small = load_generator(folder / "runs/small/generator.pth")
    assert small(torch.zeros(1, 3, 16, 24)).shape == (1, 3, 16, 24)
    (logs,) = folder.glob("runs/teacher/logs/**/metrics.csv")
    columns = logs.read_text().splitlines()[0].split(",")
    assert {"train/generator_l1", "train/generator", "train/discriminator"} <= set(columns)


def test_a_task_does_without_discriminator(ran, tmp_path):
    _, names = ran
    small = compress(
        ResnetGenerator(ngf=4, n_blocks=1),
        data=names["WavesDataModule"](batch_size=4),
        budget=0.5,
        task=names["Denoising"](),
        search_epochs=1,
        epochs=1,
        decay_epochs=0,
        folder=tmp_path,
        accelerator="cpu",
        logger=False,
    )
    assert isinstance(small, ResnetGenerator)


def test_policy(ran):
    folder, names = ran
    sample = [torch.zeros(1, 3, 16, 24)]
    teacher = load_generator(folder / "runs/teacher/checkpoints/last.ckpt")
    by_name = load_generator(folder / "runs/median/generator.pth")
    for small in by_name, names["small"]:
        assert count_macs(small, sample) <= 0.3 * count_macs(teacher, sample)
    assert widths(by_name) == widths(names["small"])
    description = json.loads((folder / "runs/median/generator.json").read_text())
    assert description["provenance"]["policy"] == "GeometricMedian"


def widths(network):
    return [layer.weight.shape for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def test_measure(ran):
    folder, _ = ran
    results = json.loads((folder / "runs/small/test/results.json").read_text())
    assert results["networks"]["student"]["sharpness"] > 0
    assert results["sharpness"] == {"direction": "horizontal"}
    assert results["metrics"]["sharpness"]["label"] == "Sharpness"
    assert "| Sharpness |" in (folder / "runs/small/test/table.md").read_text()
