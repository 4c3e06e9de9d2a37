"""The benchmark still knows the modules that it times."""

import argparse

import benchmark
import pytest

from lightning_gancompress.modules import TeacherModule


@pytest.mark.parametrize("kind", benchmark.KINDS)
def test_a_step(tmp_path, kind):
    sizes = {"size": 32, "ngf": 2, "batch": 2, "generator": "unet"}
    options = argparse.Namespace(**sizes, budget=0.5, discriminator_budget=1.0, device="cpu")
    step, module = benchmark.make_step(kind, options, tmp_path)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    step()
    assert isinstance(module, TeacherModule) == (kind == "teacher")
    assert module.phase.name == kind
    assert any(not before[name].equal(tensor) for name, tensor in module.state_dict().items())
