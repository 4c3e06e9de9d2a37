"""Channels that are out of reach are cut within a search; all else goes on as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import NetworkSpec, PatchDiscriminator, ResnetGenerator, UnetGenerator
from lightning_gancompress.pruning import slim
from lightning_gancompress.search import CollaborativePruning, SearchPhase
from lightning_gancompress.search.phase import Pruning
from lightning_gancompress.tasks import CycleGAN, Pix2Pix, Role, Side, Task
from lightning_gancompress.training.narrowing import carry_over
from lightning_gancompress.training.phase import Position
from lightning_gancompress.training.teacher_student import TeacherStudent

NETWORKS: dict[str, tuple[Any, int]] = {
    "unet": (lambda: UnetGenerator(ngf=4, n_downs=5, norm="batch"), 6),
    "resnet": (lambda: ResnetGenerator(ngf=4, n_blocks=2, norm="batch"), 6),
    "cyclegan": (lambda: ResnetGenerator(ngf=4, n_blocks=1, norm="instance"), 3),
}


class Steps:
    """Optimizers of a search without a trainer."""

    def __init__(self, search: SearchPhase) -> None:
        self.optimizers = {name: search.optimizer(name) for name in search.trained()}
        self.losses: list[Tensor] = []

    def step(self, name: str, loss: Tensor) -> None:
        self.losses.append(loss.detach())
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()


def search_of(kind: str) -> tuple[SearchPhase, dict[str, Any]]:
    """A search with trained weights, and a batch of it."""
    torch.manual_seed(0)
    generator, channels = NETWORKS[kind]
    task: Task = CycleGAN() if kind == "cyclegan" else Pix2Pix()
    networks = TeacherStudent(task, "trained")
    for role in (*task.generators, *task.discriminators):
        one = generator() if role.side is Side.GENERATOR else PatchDiscriminator(channels, ndf=4, n_layers=1)
        networks.adopt_teacher(role, one, NetworkSpec.of(one))
    budgets = {Side.GENERATOR: 0.2, Side.DISCRIMINATOR: 0.5}
    policy = CollaborativePruning(2)
    search = SearchPhase(networks, Pruning(budgets, "exact", 1, 1, "inherited", []), policy)
    search.begin()
    search.set_modes()
    images = torch.rand(2, 4, 3, 32, 32) * 2 - 1
    names = ("A", "B") if kind == "cyclegan" else ("source", "target")
    batch: dict[str, Any] = dict(zip(names, images, strict=True))
    for name in names:
        batch |= {f"path_{name}": list("abcd"), f"index_{name}": torch.arange(4)}
    return search, batch | {"path": list("abcd"), "index": torch.arange(4)}


def begun(kind: str) -> tuple[SearchPhase, Steps, dict[str, Any]]:
    """A search after two steps, always the same one."""
    search, batch = search_of(kind)
    steps = Steps(search)
    for number in range(2):
        at = Position(0, number, 4, number)
        search.set_masks(search.policy.draw(search, at))
        search.step(batch, at, steps)
    return search, steps, batch


def step(
    search: SearchPhase, steps: Steps, batch: dict[str, Any], masks: dict[Side, Tensor]
) -> dict[Role, Tensor]:
    """Step with given masks, through which gradients reach the logits of what may stay; return images."""
    search.set_masks({side: mask.clamp_min(0) for side, mask in masks.items()})
    logits = {side: search.policy._logits(search, side) for side in masks}
    straight = {side: (mask >= 0) * (logits[side] - logits[side].detach()) for side, mask in masks.items()}
    search.set_masks({side: mask.clamp_min(0) + straight[side] for side, mask in masks.items()})
    with torch.no_grad():
        images = search.networks.task.generate(search.networks.student, batch)
    search.step(batch, Position(1, 0, 4, 5), steps)
    return images


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_next_step_is_that_of_the_whole_search(kind: str) -> None:
    (search, steps, batch), (narrow, following, _) = begun(kind), begun(kind)
    generator = torch.Generator().manual_seed(0)
    keep, masks = {}, {}
    for side, pruned in search.pruned():
        scores = torch.rand(pruned.groups.total, generator=generator)
        keep[side] = pruned.in_reach(scores, pruned.fit(scores), 1, 0.4)
        masks[side] = torch.where(keep[side] > 0, pruned.fit(scores), -1)  # -1: out of reach
    left, optimizers = narrow.narrow(keep), following.optimizers
    following.optimizers = Steps(narrow).optimizers
    for name, optimizer in optimizers.items():
        carry_over(optimizer, following.optimizers[name], left)
    sizes = [sum(p.numel() for p in one.networks.student.parameters()) for one in (search, narrow)]
    assert sizes[1] < 0.7 * sizes[0]

    before = step(search, steps, batch, masks)
    after = step(narrow, following, batch, {side: mask[mask >= 0] for side, mask in masks.items()})
    for role, image in before.items():
        torch.testing.assert_close(after[role], image, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.stack(following.losses), torch.stack(steps.losses), rtol=1e-4, atol=1e-5)
    for side, pruned in search.pruned():
        assert narrow.sides[side].kept_macs() == pytest.approx(pruned.kept_macs())
        pruned.masks.detach()
        pairs = [(slim(search.networks.group(side), pruned.groups, keep[side]), narrow.networks.group(side))]
        pairs += [(search.policy.narrowed(search.agents[side], keep, side), narrow.agents[side])]
        for expected, found in pairs:
            for name, parameter in expected.named_parameters():
                # Adam makes steps of noise where a gradient is one, as that of a bias before a norm
                difference = (found.get_parameter(name) - parameter).abs()
                assert name.endswith("bias") or difference.median() < 1e-6, name
                assert difference.max() < 1e-3, name


def test_a_search_has_the_channels_of_its_checkpoint() -> None:
    search, _ = search_of("resnet")
    whole = {side: pruned.groups.total for side, pruned in search.pruned()}
    search.narrow_as(state := {})
    assert {name: len(left) for name, left in state.items()} == {
        f"sides.{s}.left": n for s, n in whole.items()
    }
    damaged = [torch.zeros(whole[Side.GENERATOR]), torch.ones(3, dtype=torch.bool)]
    for left in damaged:
        with pytest.raises(
            UserError, match=r"sides\.generator\.left does not fit the generator: copy it again"
        ):
            search.narrow_as({"sides.generator.left": left})
    left = torch.ones(whole[Side.GENERATOR], dtype=torch.bool)
    left[0] = False
    search.narrow_as({"sides.generator.left": left})
    assert torch.equal(search.sides["generator"].left, left)
    assert {s: pruned.groups.total for s, pruned in search.pruned()} == {
        **whole,
        Side.GENERATOR: whole[Side.GENERATOR] - 1,
    }
    assert len(search.policy.scores(search, Side.GENERATOR)) == whole[Side.GENERATOR] - 1
