"""What a step computes, and that it waits for nothing on its device."""

from __future__ import annotations

import traceback
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import TensorDataset

from lightning_gancompress.callbacks import CollaborativePruning, UniformWidth
from lightning_gancompress.data import DatasetDataModule
from lightning_gancompress.finetune import Distillation
from lightning_gancompress.modules import CompressionModule, GANModule, TeacherModule
from lightning_gancompress.networks import PatchDiscriminator, UnetGenerator
from lightning_gancompress.trainer import Trainer

aten = torch.ops.aten
WAITING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default}


class Waits(TorchDispatchMode):
    """Notes where numbers of tensors become Python's: a GPU must have computed them by then."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITING:
            stack = traceback.extract_stack()
            frames = [f for f in stack if "lightning_gancompress" in f.filename] or stack
            self.places[f"{Path(frames[-1].filename).name}: {frames[-1].line}"] += 1
        return func(*args, **(kwargs or {}))


class First(Callback):
    """Watches steps from their start, and counts the forward passes of networks; comes first."""

    def __init__(self) -> None:
        self.waits, self.calls, self.steps, self.within = Waits(), Counter[str](), 0, False
        self.last = True  # whether all inputs lay channels last

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.module = pl_module
        for name, network in networks(pl_module).items():
            network.register_forward_hook(partial(self._called, name))

    def _called(self, name: str, network: nn.Module, args: Any, output: Any) -> None:
        if self.within:
            self.calls[name] += 1
            self.last &= args[0].is_contiguous(memory_format=torch.channels_last)

    def on_train_batch_start(self, *_: Any) -> None:
        self.steps, self.within = self.steps + 1, True
        self.waits.__enter__()


class Last(Callback):
    """Ends what `First` has begun; comes last."""

    def __init__(self, first: First) -> None:
        self.first = first

    def on_train_batch_end(self, *_: Any) -> None:
        self.first.waits.__exit__(None, None, None)
        self.first.within = False


def networks(module: GANModule) -> dict[str, nn.Module]:
    if isinstance(module, TeacherModule):
        return {str(role): network for role, network in module.networks.items()}
    owners = {"teacher": module.teacher, "student": module.student}
    return {f"{owner} {role}": net for owner, nets in owners.items() for role, net in nets.items()}


def train(kind: str, folder: Path, **options: Any) -> First:
    """Two steps of a kind of training; `options` are the trainer's."""
    torch.manual_seed(0)
    generator, discriminator = UnetGenerator(ngf=2, n_downs=5), PatchDiscriminator(ndf=2, n_layers=1)
    policy: list[Callback] = []
    if kind == "teacher":
        module: GANModule = TeacherModule(generator, discriminator, gradient_clip_val=1.0)
    else:
        searches = kind.startswith("search")
        module = CompressionModule(
            generator=generator,
            discriminator=discriminator,
            own_weights=True,
            budget=0.5,
            distillation=None if searches else Distillation(output=1.0, critic=1.0, features=1.0),
        )
        task_weight = 1.0 if kind == "search by sources" else 0.0
        # slack: a search waits at 50 points, where it asks for the channels in reach
        search = CollaborativePruning(1, neighbours=3, members=2, task_weight=task_weight, slack=1.0)
        policy = [search if searches else UniformWidth()]
    first = First()
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=2,
        limit_val_batches=0,
        callbacks=[first, *policy, Last(first)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        **options,
    )
    images = torch.rand(16, 3, 32, 32) * 2 - 1
    data = TensorDataset(images) if kind.endswith("by sources") else TensorDataset(images, images.flip(1))
    trainer.fit(module, DatasetDataModule(data, data, batch_size=4, search_batch_size=4))
    return first


@pytest.mark.parametrize(
    ("kind", "generators"),
    [
        ("teacher", {"generator": 1}),
        # the teacher's images are cached
        ("search", {"student generator": 1}),
        ("search by sources", {"student generator": 1}),
        ("finetune", {"student generator": 1, "teacher generator": 1}),
        ("finetune by sources", {"student generator": 1, "teacher generator": 1}),
    ],
)
def test_a_step_computes_images_once_and_waits_for_nothing(
    kind: str, generators: dict[str, int], tmp_path: Path
) -> None:
    found = train(kind, tmp_path)
    calls = {name: count / found.steps for name, count in found.calls.items()}
    assert found.steps == 2
    assert {name: n for name, n in calls.items() if "generator" in name} == generators
    assert found.waits.places == {}
    # in a fine-tuning the teacher's compares both images; in a search nobody asks it
    assert calls.get("teacher discriminator", 0) == (2 if kind.startswith("finetune") else 0)


@pytest.mark.parametrize("kind", ["teacher", "finetune"])
def test_networks_and_batches_lie_as_the_trainer_has_them(kind: str, tmp_path: Path) -> None:
    for last in (False, True):
        found = train(kind, tmp_path, channels_last=last)
        layout = torch.channels_last if last else torch.contiguous_format
        filters = [p for p in found.module.parameters() if p.ndim == 4]
        assert all(p.is_contiguous(memory_format=layout) for p in filters)
        assert found.last is last
        assert all(g["fused"] for o in found.module.trainer.optimizers for g in o.param_groups)


def test_what_waits_is_found() -> None:
    with Waits() as waits:
        found = float(torch.ones(2).sum())
    assert found == 2
    assert sum(waits.places.values()) == 1
