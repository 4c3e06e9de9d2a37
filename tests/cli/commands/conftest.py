"""A CycleGAN compression as a checkpoint, made by hand."""

import pytest
import torch

from lightning_gancompress.networks import NetworkSpec


@pytest.fixture
def specs():
    return {
        role: NetworkSpec("lightning_gancompress.networks.ResnetGenerator", {"ngf": ngf, "n_blocks": 1})
        for role, ngf in (("generator_AtoB", 4), ("generator_BtoA", 6))
    }


@pytest.fixture
def networks(specs):
    torch.manual_seed(0)
    return {
        f"{part}.{role}": spec.build().eval()
        for part in ("teacher", "student")
        for role, spec in specs.items()
    }


@pytest.fixture
def file(tmp_path, specs, networks):
    file = tmp_path / "last.ckpt"
    state = {f"{p}.{key}": value for p, net in networks.items() for key, value in net.state_dict().items()}
    header = {
        "version": 1,
        "kind": "compression",
        "phase": "finetune",
        "networks": {prefix: specs[prefix.partition(".")[2]].to_dict() for prefix in networks},
        "preprocessing": {"crop_size": 16},
    }
    torch.save({"state_dict": state, "gancompress": header}, file)
    return file
