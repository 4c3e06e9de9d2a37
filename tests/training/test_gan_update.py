"""A few steps of training, against upstream's `optimize_parameters` written out."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader

from lightning_gancompress.modules import TeacherModule
from lightning_gancompress.networks import PatchDiscriminator, ResnetGenerator
from lightning_gancompress.tasks import CycleGAN, Pix2Pix
from lightning_gancompress.trainer import Trainer

STEPS = 3


class Numbered(torch.utils.data.Dataset):
    """Always the same images: `A` and `B`, or `source` and `target`."""

    def __init__(self, *names: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = {name: torch.rand(2 * STEPS, 3, 16, 16, generator=generator) * 2 - 1 for name in names}

    def __len__(self) -> int:
        return 2 * STEPS

    def __getitem__(self, n: int) -> dict[str, object]:
        image = {name: images[n] for name, images in self.images.items()}
        extra = {f"{key}_{name}": n for name in self.images for key in ("index", "path")}
        return image | extra | {"index": n, "path": n}


def train(task, data, discriminator_channels: int) -> tuple[nn.ModuleDict, nn.ModuleDict]:
    """The networks of a teacher training of three steps, before and after."""
    torch.manual_seed(0)
    module = TeacherModule(
        ResnetGenerator(ngf=4, n_blocks=1, norm="instance", init_gain=0.3),
        PatchDiscriminator(discriminator_channels, ndf=4, n_layers=1, norm="instance", init_gain=0.3),
        task,
        epochs=1,
        decay_epochs=0,
        lr=1e-3,
    )
    before = copy.deepcopy(module.networks)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    Trainer(accelerator="cpu", **quiet).fit(module, DataLoader(data, batch_size=2))
    return before, module.networks


def assert_equal(found: nn.ModuleDict, expected: dict[str, nn.Module]) -> None:
    assert found.keys() == expected.keys()
    for role, network in expected.items():
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(found[role].state_dict()[name], tensor, atol=1e-6, rtol=1e-4)


def adam(*networks: nn.Module) -> Adam:
    return Adam(itertools.chain(*(n.parameters() for n in networks)), lr=1e-3, betas=(0.5, 0.999))


def freeze(frozen: bool, *networks: nn.Module) -> None:
    for network in networks:
        network.requires_grad_(not frozen)


def least_squares(logits: Tensor, real: bool) -> Tensor:
    return F.mse_loss(logits, torch.full_like(logits, float(real)))


def cross_entropy(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


@pytest.mark.usefixtures("unfused")
@pytest.mark.parametrize("pool_size", [50, 0])  # three batches never fill the larger pool
def test_cyclegan_trains_as_upstreams(pool_size, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Numbered("A", "B")
    before, after = train(CycleGAN(pool_size=pool_size), data, 3)
    g_a, g_b = before["generator_AtoB"], before["generator_BtoA"]
    d_a, d_b = before["discriminator_AtoB"], before["discriminator_BtoA"]
    optimizer_g, optimizer_d = adam(g_a, g_b), adam(d_a, d_b)
    for step in range(STEPS):
        real_a, real_b = (data.images[name][2 * step : 2 * step + 2] for name in "AB")
        fake_b, fake_a = g_a(real_a), g_b(real_b)
        rec_a, rec_b = g_b(fake_b), g_a(fake_a)
        freeze(True, d_a, d_b)
        optimizer_g.zero_grad()
        loss = 10 * 0.5 * (F.l1_loss(g_a(real_b), real_b) + F.l1_loss(g_b(real_a), real_a))
        loss = loss + least_squares(d_a(fake_b), True) + least_squares(d_b(fake_a), True)
        loss = loss + 10 * F.l1_loss(rec_a, real_a) + 10 * F.l1_loss(rec_b, real_b)
        loss.backward()
        optimizer_g.step()
        freeze(False, d_a, d_b)
        optimizer_d.zero_grad()
        for judge, real, fake in ((d_a, real_b, fake_b), (d_b, real_a, fake_a)):
            losses = least_squares(judge(real), True) + least_squares(judge(fake.detach()), False)
            (0.5 * losses).backward()
        optimizer_d.step()
    assert_equal(after, before)


@pytest.mark.usefixtures("unfused")
def test_pix2pix_trains_as_upstreams(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Numbered("source", "target")
    before, after = train(Pix2Pix(), data, 6)
    generator, judge = before["generator"], before["discriminator"]
    optimizer_g, optimizer_d = adam(generator), adam(judge)
    for step in range(STEPS):
        real_a, real_b = (data.images[name][2 * step : 2 * step + 2] for name in ("source", "target"))
        fake_b = generator(real_a)
        optimizer_d.zero_grad()
        fake = cross_entropy(judge(torch.cat([real_a, fake_b.detach()], 1)), False)
        real = cross_entropy(judge(torch.cat([real_a, real_b], 1)), True)
        (0.5 * (fake + real)).backward()
        optimizer_d.step()
        freeze(True, judge)
        optimizer_g.zero_grad()
        loss = cross_entropy(judge(torch.cat([real_a, fake_b], 1)), True) + 100 * F.l1_loss(fake_b, real_b)
        loss.backward()
        optimizer_g.step()
        freeze(False, judge)
    assert_equal(after, before)
