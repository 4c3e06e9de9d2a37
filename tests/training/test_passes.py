"""How often each network runs in a step, and which weights get gradients: nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gancompress.finetune.distillation import Distillation
from lightning_gancompress.finetune.phase import FinetunePhase
from lightning_gancompress.networks import NetworkSpec, PatchDiscriminator
from lightning_gancompress.search import CollaborativePruning
from lightning_gancompress.search.phase import Pruning, SearchPhase
from lightning_gancompress.search.teacher_images import TeacherImages
from lightning_gancompress.tasks import CycleGAN, Pix2Pix, Side, Task
from lightning_gancompress.training.gan_update import trained_sides
from lightning_gancompress.training.image_pool import ImagePools
from lightning_gancompress.training.phase import Phase, Position, Schedule
from lightning_gancompress.training.teacher_phase import TeacherPhase
from lightning_gancompress.training.teacher_student import TeacherStudent

SCHEDULE = Schedule(1, 0, 1e-3, 0.5)
SHIPPED = {"output": 50.0, "critic": 10.0, "features": 1.0}
B, AT = 4, Position(0, 0, 1, 0)  # images of a batch
TASKS: dict[str, Callable[[], Task]] = {
    "pix2pix": Pix2Pix,
    "cyclegan": CycleGAN,
    "AtoB": lambda: CycleGAN("AtoB"),
}


class Counting:
    """Optimizers that note, of each step, which networks got gradients; and calls of networks."""

    def __init__(self, **owners: nn.ModuleDict) -> None:
        self.networks = {
            f"{owner} {role}": net for owner, nets in owners.items() for role, net in nets.items()
        }
        self.calls: dict[str, list[int]] = {}
        self.trained: list[tuple[str, list[str]]] = []
        for name, network in self.networks.items():
            first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
            first.register_forward_hook(self.counting(name))

    def counting(self, name: str) -> Callable[..., None]:
        def count(_: nn.Module, args: Any, output: Tensor) -> None:
            self.calls.setdefault(name, []).append(len(args[0]) if output.requires_grad else -len(args[0]))

        return count

    def step(self, name: str, loss: Tensor) -> None:
        for network in self.networks.values():
            network.zero_grad()
        loss.backward()
        moved = [n for n, net in self.networks.items() if any(p.grad is not None for p in net.parameters())]
        self.trained.append((name, moved))

    @contextmanager
    def toggled(self, name: str) -> Iterator[None]:
        others = [p for n, net in self.networks.items() if f" {name}" not in n for p in net.parameters()]
        others = [p for p in others if p.requires_grad]
        for parameter in others:
            parameter.requires_grad_(False)
        yield
        for parameter in others:
            parameter.requires_grad_(True)


def point(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 1)


def networks(task: Task) -> nn.ModuleDict:
    torch.manual_seed(0)
    channels = task.discriminated_channels(3, 3)
    made: dict[str, nn.Module] = {
        role: nn.Sequential(*map(point, (3, 4, 4), (4, 4, 3))) for role in task.generators
    }
    discriminators = {role: PatchDiscriminator(channels, ndf=2, n_layers=1) for role in task.discriminators}
    return nn.ModuleDict(made | discriminators)


def both(task: Task) -> TeacherStudent:
    pair = TeacherStudent(task, "frozen")
    pair.inputs.recorded = {"in_channels": 3, "crop_size": 16}
    for role, network in networks(task).items():
        pair.adopt_teacher(role, network, NetworkSpec.of(network, None))
    return pair


def batch(task: Task, targets: bool = True) -> dict[str, Any]:
    names = ("A", "B") if isinstance(task, CycleGAN) else ("source", "target")[: 1 + targets]
    images: dict[str, Any] = {name: torch.rand(B, 3, 16, 16) * 2 - 1 for name in names}
    numbers = {f"index{end}": torch.arange(B) for end in ("", "_A", "_B")}
    return images | numbers | {f"path{end}": list("abcd") for end in ("", "_A", "_B")}


def run(phase: Phase, counting: Counting, batch: dict[str, Any], at: Position) -> dict[str, list[int]]:
    """Passes of a step: the images of each, negative without a graph."""
    counting.calls, counting.trained = {}, []
    phase.step(batch, at, counting)
    return counting.calls


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_passes_of_a_teachers_step(name: str) -> None:
    task = TASKS[name]()
    phase = TeacherPhase(task, networks(task), SCHEDULE, ImagePools(0))
    counting = Counting(own=phase.networks)
    calls = run(phase, counting, batch(task), AT)
    # images, cycle and identity; the discriminator's step comes first in Pix2Pix and last in CycleGAN
    translated = [B] if name == "pix2pix" else [B, B, B]
    judged = [2 * B, B] if name == "pix2pix" else [B, 2 * B]
    assert calls == {f"own {r}": translated for r in task.generators} | {
        f"own {r}": judged for r in task.discriminators
    }
    sides = {"generator": task.generators, "discriminator": task.discriminators}
    for side, moved in counting.trained:
        assert moved == [f"own {role}" for role in sides[side]]


@pytest.mark.parametrize("targets", [True, False])
def test_passes_of_a_finetune_step(targets: bool) -> None:
    task = Pix2Pix()
    pair = both(task)
    phase = FinetunePhase(pair, SCHEDULE, ImagePools(0), Distillation(**SHIPPED), 0)
    counting = Counting(teacher=pair.teacher, student=pair.student)
    assert run(phase, counting, batch(task, targets), AT) == {
        "teacher generator": [-B],
        "teacher discriminator": [B, -B],  # gradients reach the student's images alone
        "student generator": [B],
        "student discriminator": [2 * B, B],
    }
    moved = [("discriminator", ["student discriminator"]), ("generator", ["student generator"])]
    assert counting.trained == moved


@pytest.mark.parametrize("name", ["cyclegan", "AtoB"])
def test_passes_of_a_finetune_step_of_cyclegan(name: str) -> None:
    task = TASKS[name]()
    pair = both(task)
    phase = FinetunePhase(pair, SCHEDULE, ImagePools(0), Distillation(**SHIPPED), 0)
    counting = Counting(teacher=pair.teacher, student=pair.student)
    calls = run(phase, counting, batch(task), AT)
    expected = {}
    for role in task.compressed:
        expected |= {f"teacher {role}": [-B], f"teacher {role.discriminator}": [B, -B]}
    for role in task.generators:
        expected[f"student {role}"] = [B, B, B] if role in task.compressed else [-B, B]  # a frozen partner
        expected[f"student {role.discriminator}"] = [B, 2 * B] if role in task.compressed else [2 * B]
    assert calls == expected
    (_, generators), (_, discriminators) = counting.trained
    assert generators == [f"student {role}" for role in task.compressed]
    assert discriminators == [f"student {role}" for role in task.discriminators]


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_passes_of_a_search_step(name: str) -> None:
    task = TASKS[name]()
    pair = both(task)
    policy = CollaborativePruning(members=B)
    budgets: dict[Side, float | str] = {Side.GENERATOR: 0.5, Side.DISCRIMINATOR: 0.5}
    search = SearchPhase(pair, Pruning(budgets, "exact", 1, 1, "inherited", []), policy)
    policy._images = TeacherImages(1.0)
    counting = Counting(teacher=pair.teacher, student=pair.student)
    own = {side: [f"student {role}" for role in search.roles()[side]] for side in Side}
    for policy.search_weights in ("trained", "frozen"):
        search.begin()
        search.set_modes()
        search.set_masks(policy.draw(search, AT))
        calls = run(search, counting, batch(task), AT)
        cached = policy.search_weights == "frozen"  # by the step before
        translated = {n: calls.pop(n) for n in list(calls) if n.startswith("teacher")}
        one_by_one = {f"teacher {role}": [-1] * B for role in task.compressed}
        assert translated == ({} if cached else one_by_one)
        # the teacher's images are judged again once the discriminators' weights have changed
        judged = [2 * B, B] if cached else [2 * B, B, B]
        assert {n: list(map(abs, sizes)) for n, sizes in calls.items()} == {
            n: [B] if side is Side.GENERATOR else judged for side in Side for n in own[side]
        }
        moved = [(side.value, [] if cached else own[side]) for side in (Side.DISCRIMINATOR, Side.GENERATOR)]
        assert counting.trained == moved


@pytest.mark.parametrize(("every", "stepped"), [(1, 12), (2, 6), (3, 4), (5, 3), (20, 1)])
def test_discriminators_step_in_every_nth_update_whatever_an_epoch_has(every: int, stepped: int) -> None:
    task = CycleGAN("AtoB", pool_size=0)
    pair = both(task)
    phase = FinetunePhase(pair, SCHEDULE, ImagePools(0), None, began=2, discriminator_every=every)
    counting, sides = Counting(student=pair.student), []
    for epoch in range(2, 6):
        for n in range(3):
            run(phase, counting, batch(task), Position(epoch, n, 3, 0))
            sides += [name for name, _ in counting.trained]
    assert (sides.count("generator"), sides.count("discriminator")) == (12, stepped)


def test_discriminators_step_in_every_second_window_and_pools_fill_in_all() -> None:
    task = CycleGAN("AtoB", pool_size=100)
    pair = both(task)
    pools = ImagePools(task.pool_size)
    phase = FinetunePhase(pair, SCHEDULE, pools, None, 0, discriminator_every=2)
    counting = Counting(student=pair.student)
    stepped = []
    for n in range(7):
        run(phase, counting, batch(task), Position(3, n, 7, 0, window=2))
        stepped.append([name for name, _ in counting.trained])
    with_discriminator, without = ["generator", "discriminator"], ["generator"]
    assert stepped == [with_discriminator] * 2 + [without] * 2 + [with_discriminator] * 2 + [without]
    assert {len(images) for images in pools.images.values()} == {7 * B}
    assert set(trained_sides(task, pair.student)) == set(with_discriminator)
