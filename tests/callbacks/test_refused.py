"""Callbacks of Lightning that can't work here are told before anything runs."""

from typing import Any

import pytest
import tiny
from lightning.pytorch import callbacks as lightnings
from lightning.pytorch.tuner import Tuner

from lightning_gancompress.callbacks.refused import REFUSED
from lightning_gancompress.cli import main
from lightning_gancompress.errors import UserError
from lightning_gancompress.trainer import Trainer

CASES: dict[str, dict[str, Any]] = {
    "EMAWeightAveraging": {},
    "WeightAveraging": {},
    "StochasticWeightAveraging": {"swa_lrs": 0.001},
    "BatchSizeFinder": {},
    "LearningRateFinder": {},
    "GradientAccumulationScheduler": {"scheduling": {0: 2}},
    "BackboneFinetuning": {},
    "ModelPruning": {"pruning_fn": "l1_unstructured"},
    "SpikeDetection": {},
}


@pytest.mark.parametrize("name", CASES)
def test_on_the_command_line(name, tmp_path, unet, facades, capsys):
    options = [f"--trainer.callbacks.{key}={value}" for key, value in CASES[name].items()]
    args = [*tiny.compression(tmp_path, unet), *facades, f"--trainer.callbacks+={name}", *options]
    code, words = tiny.fail_code(capsys, args)
    assert code == 2
    assert f"trainer.callbacks: {name} " in words
    assert words.count("\n") == 1 or "error: trainer.callbacks" in words.splitlines()[-1]
    assert not list(tmp_path.rglob("*.ckpt"))


def test_all_that_are_declared_are_tried():
    tried = [getattr(lightnings, name) for name in CASES]
    assert all(any(issubclass(cls, kind) for cls in tried) for kind in REFUSED)


def test_a_remedy_is_there(tmp_path, unet, facades):
    main([*tiny.compression(tmp_path, unet, "UniformWidth"), *facades, "--trainer.callbacks+=GeneratorEMA"])


def test_lightnings_tuner(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False)
    from lightning.pytorch.demos.boring_classes import BoringModel

    with pytest.raises(UserError, match=r"set model\.lr"):
        Tuner(trainer).lr_find(BoringModel())
