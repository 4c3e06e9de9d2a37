"""Teachers for whole runs, trained once."""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import known_groups
import known_shapes
import pytest
import tiny
import torch
from hub import Hub
from lightning.pytorch.utilities import rank_zero_only

from lightning_gancompress.cli import main

torch.set_num_threads(1)  # small tensors, and tests may run side by side


def pytest_configure(config: pytest.Config) -> None:
    """Give all processes of the session a folder for the groups that they have read."""
    if known_groups.FOLDER not in os.environ:
        folder = tempfile.TemporaryDirectory()
        config.add_cleanup(folder.cleanup)
        config.add_cleanup(lambda: os.environ.pop(known_groups.FOLDER))
        os.environ[known_groups.FOLDER] = folder.name
    known_groups.install()
    known_shapes.install()
    # as Lightning leaves it where a handler of pytest was there before: caplog's is the root's
    logging.getLogger("lightning.pytorch").propagate = True


@pytest.fixture(scope="session")
def facades(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of the data set of all runs."""
    return tiny.data(tmp_path_factory.mktemp("tiny") / "facades")


@pytest.fixture(scope="session")
def domains(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of the data set of all runs without pairs."""
    return tiny.domains(tmp_path_factory.mktemp("tiny") / "domains")


@pytest.fixture(scope="session")
def cyclegan(tmp_path_factory: pytest.TempPathFactory, domains: list[str]) -> Path:
    """Checkpoint of a CycleGAN teacher with batch norm and dropout."""
    folder = tmp_path_factory.mktemp("cyclegan")
    main([*tiny.cyclegan_teacher(folder), *domains])
    return tiny.last(folder)


@pytest.fixture(scope="session")
def unet(tmp_path_factory: pytest.TempPathFactory, facades: list[str]) -> Path:
    """Checkpoint of a U-Net teacher."""
    folder = tmp_path_factory.mktemp("unet")
    main([*tiny.teacher(folder), *facades])
    return tiny.last(folder)


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory, facades: list[str]) -> Path:
    """Checkpoint of a ResNet teacher with batch norm and dropout."""
    folder = tmp_path_factory.mktemp("resnet")
    main([*tiny.teacher(folder, tiny.RESNET), *facades])
    return tiny.last(folder)


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, arguments: Callable[[str, Path], list[str]]
) -> Callable[[str], Path]:
    """Runs that nobody stopped, of the kinds that the `arguments` of a test's module know."""
    folder = tmp_path_factory.mktemp("whole")

    def run(kind: str) -> Path:
        if not (folder / kind).exists():
            main(arguments(kind, folder / kind))
        return folder / kind

    return run


@pytest.fixture(autouse=True)
def first_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be rank 0 again after a test that has made the trainer of another rank, whose loggers are silent."""
    monkeypatch.setattr(rank_zero_only, "rank", 0)


@pytest.fixture
def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Adam compute as it does under an fp16 scaler and in a loop of one's own, to the last bit."""
    monkeypatch.setattr("lightning_gancompress.modules.base.fused", lambda optimizer: optimizer)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the Hugging Face Hub, on this machine."""
    constants = pytest.importorskip("huggingface_hub.constants")
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()
