"""Lightning's and jsonargparse's private names are touched in one file, and are what that file says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn

import lightning_gancompress
from lightning_gancompress.lightning_internals import (
    ResumableTrainer,
    child_processes,
    set_max_epochs,
    synchronises_batch_norms,
    trainer_of,
)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


PACKAGE = Path(lightning_gancompress.__file__).parent
LIBRARIES = ("lightning.", "jsonargparse")
HANDED = ("trainer", "strategy", "parser", "module", "pl_module", "datamodule", "action", "launcher", "loop")
# private to them also where a class of ours derives from one
BASES = [LightningModule(), LightningDataModule(), ResumableTrainer(logger=False), LightningCLI]
BASES += [Callback(), ModelCheckpoint(), ProgressBar(), LightningArgumentParser(), SaveConfigCallback]
INHERITED = set(filter(private, (name for base in BASES for name in dir(base))))
INHERITED -= set(dir(nn.Module()))


def private_uses(source: str) -> list[str]:
    """Private names of the libraries in a file: imported, read off their objects, or overridden."""
    found: list[str] = []
    if not any(f"{verb} {library}" in source for verb in ("import", "from") for library in LIBRARIES):
        return found
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(LIBRARIES):
            found += [alias.name for alias in node.names if private(alias.name)]
        elif isinstance(node, ast.FunctionDef) and node.name in INHERITED:
            found.append(f"def {node.name}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            found += [
                word.value
                for word in node.args
                if isinstance(word, ast.Constant) and private(str(word.value))
            ]
        elif isinstance(node, ast.Attribute) and private(node.attr):
            owner = ast.unparse(node.value).rpartition(".")[2]
            if owner in HANDED or (owner in ("self", "cls", "super()") and node.attr in INHERITED):
                found.append(f"{owner}.{node.attr}")
    return found


FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def test_private_names_stay_in_one_file() -> None:
    uses = {
        file: private_uses((PACKAGE / file).read_text()) for file in FILES if file != "lightning_internals.py"
    }
    assert {file: found for file, found in uses.items() if found} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters",
        "trainer._checkpoint_connector",
        "self.trainer.strategy._ddp_kwargs",
        "self._trainer",
        "def _run_subcommand(self): ...",
        "super()._set_seed()",
        "getattr(trainer.strategy, '_layer_sync', None)",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert len(private_uses(f"import lightning.pytorch\n{source}")) == 1


def test_public_and_own_names_are_let_pass() -> None:
    source = "self._rates = trainer.strategy.root_device\nmodule.__class__\nfrom torch import _C"
    assert private_uses(f"import lightning.pytorch\n{source}") == []


def test_a_trainer_and_its_module(tmp_path: Path) -> None:
    trainer = ResumableTrainer(default_root_dir=tmp_path, logger=False, max_epochs=3, accelerator="cpu")
    module = BoringModel()
    assert trainer_of(module) is None
    module.trainer = trainer
    assert trainer_of(module) is trainer
    set_max_epochs(trainer, 5)
    assert trainer.max_epochs == 5
    assert child_processes(trainer) == []


@pytest.mark.parametrize("sync", [False, True])
def test_synchronised_batch_norms_are_told(sync: bool, tmp_path: Path) -> None:
    options = {"accelerator": "cpu", "logger": False, "default_root_dir": tmp_path}
    assert not synchronises_batch_norms(ResumableTrainer(**options, sync_batchnorm=sync))
    assert synchronises_batch_norms(ResumableTrainer(**options, devices=2, sync_batchnorm=sync)) == sync
