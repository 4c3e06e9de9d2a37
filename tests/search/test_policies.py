"""The pruning policies: who decides, what each keeps, and the neighbourhoods that the search reads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch import Callback, LightningModule, seed_everything
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor, nn

from lightning_gancompress.callbacks import (
    BatchNormScale,
    CollaborativePruning,
    IsomorphicMagnitude,
    L1Magnitude,
    PruningPolicy,
    RandomChannels,
    UniformWidth,
)
from lightning_gancompress.cli import main
from lightning_gancompress.data import SyntheticFacades
from lightning_gancompress.density import CriticEncoder
from lightning_gancompress.errors import UserError
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.search.baselines import magnitudes, relative_magnitudes, standardized, structures
from lightning_gancompress.search.collaborative import _balance
from lightning_gancompress.search.phase import SearchPhase
from lightning_gancompress.search.teacher_images import TeacherImages
from lightning_gancompress.tasks import Pix2Pix, Role, Side
from lightning_gancompress.trainer import Trainer


def facades_module(facades: list[str], **arguments: Any) -> SyntheticFacades:
    sizes: dict[str, Any] = {"n_train": 32, "n_val": 4, "n_test": 4, "size": 32, "num_workers": 0}
    sizes |= {"root": facades[1].partition("=")[2], "batch_size": 8, "search_batch_size": 8}
    return SyntheticFacades(**(sizes | arguments))


def run(
    folder: Path,
    facades: list[str],
    teacher: Path,
    *callbacks: Callback,
    epochs: int = 1,
    seed: int = 0,
    **arguments: Any,
) -> CompressionModule:
    seed_everything(seed, verbose=False)
    module = CompressionModule(str(teacher), epochs=1, decay_epochs=1, **({"budget": 0.3} | arguments))
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "accelerator": "cpu",
        "enable_checkpointing": False,
    }
    trainer = Trainer(default_root_dir=folder, callbacks=list(callbacks), max_epochs=epochs, **quiet)
    trainer.fit(module, facades_module(facades))
    return module


class Spy(PruningPolicy):
    """Keeps what another policy chooses, and its masks for the test."""

    def __init__(self, policy: PruningPolicy) -> None:
        self.policy = policy
        self.masks: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}
        self.sizes: dict[str, list[int]] = {}
        self.costs: dict[str, float] = {}

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        return self.policy.scores(search, side)

    def choose(self, search: SearchPhase) -> dict[Side, Tensor]:
        self.masks = super().choose(search)
        for side, pruned in search.pruned():
            self.weights[side], self.sizes[side] = magnitudes(search, side), pruned.groups.sizes
            self.costs[side] = float(pruned.cost(self.masks[side])) / pruned.budget
        return self.masks

    def parts(self, role: str) -> list[tuple[Tensor, Tensor]]:
        """Mask and weights per group."""
        sizes = self.sizes[role]
        return list(zip(self.masks[role].split(sizes), self.weights[role].split(sizes), strict=True))


@pytest.mark.parametrize(
    "policy",
    [UniformWidth(), L1Magnitude(), IsomorphicMagnitude(), RandomChannels(3)],
    ids=lambda p: type(p).__name__,
)
def test_budgets_are_met_from_below(
    policy: PruningPolicy, tmp_path: Path, facades: list[str], unet: Path
) -> None:
    spy = Spy(policy)
    run(tmp_path, facades, unet, spy)
    assert all(0.97 < cost <= 1 for cost in spy.costs.values())


def test_uniform_width_keeps_the_same_fraction_of_the_largest(
    tmp_path: Path, facades: list[str], unet: Path
) -> None:
    spy = Spy(UniformWidth())
    run(tmp_path, facades, unet, spy)
    for role in spy.masks:
        parts = spy.parts(role)
        fractions = [float(mask.mean()) for mask, _ in parts]
        # within a channel, and the one that fills the budget up
        assert max(fractions) - min(fractions) <= 2 / min(len(mask) for mask, _ in parts)
        assert all(weights[mask > 0].min() > weights[mask == 0].max() for mask, weights in parts)


def test_l1_magnitude_drops_the_smallest_of_all_groups(
    tmp_path: Path, facades: list[str], unet: Path
) -> None:
    spy = Spy(L1Magnitude())
    run(tmp_path, facades, unet, spy)
    for role in spy.masks:
        scores = torch.cat([weights / weights.mean() for _, weights in spy.parts(role)])
        kept = spy.masks[role] > 0
        # what fills up the rest of the budget, or the last of its group, may be smaller
        assert scores[kept].median() > scores[~kept].quantile(0.95)


def test_the_balance_is_how_far_the_teachers_logits_are_above() -> None:
    one, other = Role("generator_AtoB"), Role("generator_BtoA")
    real = {one: torch.full((2, 1, 3, 3), 2.0), other: torch.tensor([[[[1.0, 3.0]]]])}
    fake = {one: torch.full((2, 1, 3, 3), 0.5), other: torch.tensor([[[[4.0, 1.0]]]], requires_grad=True)}
    balance = _balance(real, fake)  # 1.5 and -0.5
    assert (balance.item(), balance.requires_grad) == (0.5, False)
    assert _balance(fake, fake).item() == 0


class Kinds(IsomorphicMagnitude):
    """Keeps what kinds of groups there were, with their channels, magnitudes and scores."""

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        scores = super().scores(search, side)
        if side is Side.GENERATOR:
            sizes = search.sides[side].groups.sizes
            self.kinds, self.sizes = structures(search, side), sizes
            self.parts = [x.split(sizes) for x in (relative_magnitudes(search, side), scores)]
        return scores


def test_isomorphic_groups_are_ranked_together(tmp_path: Path, facades: list[str]) -> None:
    plain = ["ResnetGenerator", "ngf=4", "n_blocks=3", "norm=instance"]
    main([*tiny.teacher(tmp_path / "teacher", plain), *facades, "--trainer.max_epochs=1"])
    policy = Kinds()
    run(tmp_path, facades, tiny.last(tmp_path / "teacher"), policy)
    # into the two strided layers and within the blocks; the stream; out of it, by transposed convolutions
    assert (policy.kinds, policy.sizes) == ([0, 0, 1, 0, 0, 0, 2, 3], [4, 8, 16, 16, 16, 16, 8, 4])
    for kind in range(4):
        of_kind = [g for g, own in enumerate(policy.kinds) if own == kind]
        relative, scores = (torch.cat([parts[g] for g in of_kind]) for parts in policy.parts)
        # evenly spaced within a kind, in the order of the magnitudes
        torch.testing.assert_close(scores.sort().values, (torch.arange(len(scores)) + 0.5) / len(scores))
        assert bool((relative[scores.argsort()].diff() >= 0).all())


class ScaledNorms(BatchNormScale):
    """With norm scales that are known."""

    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        for layer in search.networks.group(side).modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.data = torch.randn(layer.num_features, generator=generator)
        scores = super().scores(search, side)
        pruned, group = search.sides[side], search.networks.group(side)
        for name, channels in pruned.groups.layers.items():
            layer = group.get_submodule(name)
            if isinstance(layer, torch.nn.BatchNorm2d):
                own = channels.outputs < pruned.groups.total
                assert torch.equal(scores[channels.outputs[own]], layer.weight.data.abs()[own])
        return scores


def test_batch_norm_scale_goes_by_the_scales(tmp_path: Path, facades: list[str], unet: Path) -> None:
    spy = Spy(ScaledNorms())
    run(tmp_path, facades, unet, spy)
    assert all(0.97 < cost <= 1 for cost in spy.costs.values())
    # the first group of a U-Net has no norm: by its weights, around the others' mean
    (mask, weights), *_ = spy.parts("generator")
    assert 0 < mask.sum() < len(mask)
    assert weights[mask > 0].min() > weights[mask == 0].max()


def test_instance_norms_have_no_scales(tmp_path: Path, facades: list[str]) -> None:
    plain = ["ResnetGenerator", "ngf=4", "n_blocks=1", "norm=instance"]
    main([*tiny.teacher(tmp_path / "teacher", plain), *facades, "--trainer.max_epochs=1"])
    with pytest.raises(UserError, match=r"BatchNormScale finds no norm in the generator .* use L1Magnitude"):
        run(tmp_path, facades, tiny.last(tmp_path / "teacher"), BatchNormScale())


class Weights(Callback):
    """Notes a weight of the student after every step of the search."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if pl_module.phase.name == "search":
            networks = (pl_module.student["generator"], pl_module.student["discriminator"])
            self.found.append(torch.cat([next(net.parameters()).flatten() for net in networks]).clone())


@pytest.mark.parametrize("choice", ["frozen", "trained"])
def test_weights_follow_the_masks_if_they_may(
    choice: Any, tmp_path: Path, facades: list[str], unet: Path
) -> None:
    notes, policy = Weights(), CollaborativePruning(2, search_weights=choice, weights_lr=1e-3)
    module = run(tmp_path, facades, unet, policy, notes)
    teacher = torch.cat(
        [next(module.teacher[role].parameters()).flatten() for role in ("generator", "discriminator")]
    )
    moved = [float((weights - teacher).abs().max()) for weights in notes.found]
    assert len(moved) == 4
    if choice == "frozen":
        assert moved == [0.0] * 4
    else:
        assert 0 < moved[0] < 2e-3  # Adam's first step is as long as its rate
        assert moved[-1] > moved[0]
        # each side by its own loss, at its own rate: the agents' is much larger
        assert all((weights[:n] != teacher[:n]).any() for weights in notes.found for n in (50, -50))


@pytest.mark.parametrize("weights", ["inherited", "fresh"])
def test_students_inherit_or_start_from_scratch(
    weights: Any, tmp_path: Path, facades: list[str], unet: Path
) -> None:
    found = []
    for number in range(2):
        spy = Spy(UniformWidth())
        arguments = {"student_weights": weights, "lr": 1e-30}
        module = run(tmp_path / str(number), facades, unet, spy, **arguments)
        small, whole = (
            nets["generator"].get_submodule("model.model.0") for nets in (module.student, module.teacher)
        )
        (mask, _), *_ = spy.parts("generator")
        assert torch.equal(small.weight, whole.weight[mask > 0]) == (weights == "inherited")
        assert float(small.weight.std()) == pytest.approx(0.02, rel=0.3) or weights == "inherited"
        found.append(small.weight)
    assert torch.equal(*found)


def test_random_channels_follow_their_seed(tmp_path: Path, facades: list[str], unet: Path) -> None:
    masks = []
    for own, of_run in ((1, 0), (1, 2), (2, 0), (None, 1), (None, 2)):
        spy = Spy(RandomChannels(own))
        run(tmp_path, facades, unet, spy, seed=of_run)
        masks.append(spy.masks["generator"])
    first, again, other, first_of_run, other_of_run = masks
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, first_of_run)
    assert torch.equal(other, other_of_run)


@pytest.mark.parametrize("order", [0, 1])
def test_the_last_policy_decides(order: int, tmp_path: Path, facades: list[str], unet: Path) -> None:
    spies = [Spy(UniformWidth()), Spy(L1Magnitude())][:: 1 if order else -1]
    module = run(tmp_path, facades, unet, *spies)
    assert module.policy is spies[1]
    assert not spies[0].masks


def test_only_one_of_two_searches_acts(tmp_path: Path, facades: list[str], unet: Path) -> None:
    first, last = (CollaborativePruning(1, cache_dir=str(tmp_path / name)) for name in ("first", "last"))
    run(tmp_path, facades, unet, first, last)
    assert not (tmp_path / "first").exists()
    assert (tmp_path / "last").exists()


def test_a_policy_prunes_a_compression_only(tmp_path: Path) -> None:
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[UniformWidth()], logger=False, accelerator="cpu")
    with pytest.raises(UserError, match="UniformWidth prunes a CompressionModule, not a BoringModel"):
        trainer.fit(BoringModel())


def test_a_second_yaml_replaces_the_policy(tmp_path: Path, facades: list[str], unet: Path) -> None:
    base, other = tmp_path / "base.yaml", tmp_path / "l1.yaml"
    base.write_text(
        "trainer:\n  callbacks:\n    - {class_path: CollaborativePruning, init_args: {search_epochs: 1}}\n"
    )
    other.write_text("trainer:\n  callbacks+:\n    - class_path: L1Magnitude\n")
    args = tiny.compression(tmp_path / "run", unet, "UniformWidth")
    args = [arg for arg in args if not arg.startswith("--trainer.callbacks")]
    main([*args, "--config", str(base), "--config", str(other), *facades, "--trainer.max_epochs=1"])
    checkpoint = tiny.read(tiny.last(tmp_path / "run"))
    assert checkpoint["gancompress"]["phase"] == "finetune"
    assert not (tmp_path / "run" / "cache").exists()


# -- neighbourhoods ------------------------------------------------------------------------------------------


class Tables(Callback):
    """Notes what the search reads."""

    def __init__(self) -> None:
        self.tables: list[Tensor | None] = []
        self.batches: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        self.tables.append((trainer.datamodule.neighbourhoods or {}).get("generator"))
        self.batches.append(batch["index"])


def test_batches_hold_neighbourhoods(tmp_path: Path, facades: list[str], unet: Path) -> None:
    notes = Tables()
    run(tmp_path, facades, unet, CollaborativePruning(1, neighbours=5, members=4), notes, epochs=2)
    table = notes.tables[0]
    assert table is not None
    assert table.shape == (32, 6)
    rows = [set(row) for row in table.tolist()]
    for batch in notes.batches[:4]:
        for members in batch.view(-1, 4).tolist():
            assert len(set(members)) == 4
            assert any(set(members) <= row for row in rows)
    assert notes.tables[4:] == [None] * 4
    assert torch.cat(notes.batches[4:]).unique().numel() == 32


def test_the_table_is_kept_for_reruns(
    tmp_path: Path, facades: list[str], unet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    features = CriticEncoder.features
    monkeypatch.setattr(
        CriticEncoder, "features", lambda self, *args: found.append(len(args[0])) or features(self, *args)
    )
    for k in (5, 5, 6):
        notes = Tables()
        policy = CollaborativePruning(1, neighbours=k, cache_dir=str(tmp_path / "cache"))
        run(tmp_path, facades, unet, policy, notes)
        assert notes.tables[0] is not None
        assert notes.tables[0].shape == (32, k + 1)
    assert sum(found) == 64  # for the first and for the third
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search_epochs": 0}, "search_epochs of CollaborativePruning is 0: give a whole number from 1"),
        ({"adversarial_weight": 0.0, "teacher_weight": 0.0}, "are all 0, so the generator's agent"),
        ({"members": 7}, "members: 7 images can't be drawn from a neighbourhood of 6"),
    ],
)
def test_settings_that_can_not_work(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CollaborativePruning(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neighbours": 32}, "k=32 needs more than 32 images, there are 32"),
        ({"members": 3}, "search_batch_size is 8, not a multiple of the 3 members"),
    ],
)
def test_settings_that_do_not_fit_the_data(
    arguments: dict[str, int], message: str, tmp_path: Path, facades: list[str], unet: Path
) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, facades, unet, CollaborativePruning(1, **arguments))


def test_data_without_neighbourhoods(tmp_path: Path, facades: list[str], unet: Path) -> None:
    module = CompressionModule(str(unet))
    trainer = Trainer(
        default_root_dir=tmp_path, callbacks=[CollaborativePruning(1)], logger=False, accelerator="cpu"
    )
    data = facades_module(facades)
    data.prepare_data()
    with pytest.raises(UserError, match="can't be searched by neighbourhoods"):
        trainer.fit(module, data.train_dataloader())


def test_the_budget_falls_over_the_ramp(tmp_path: Path, facades: list[str], unet: Path) -> None:
    penalties: dict[float, list[float]] = {}

    class Penalties(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            penalties.setdefault(ramp, []).append(float(trainer.callback_metrics["train/generator_budget"]))

    for ramp in (0.0, 1.0):
        agents = CollaborativePruning(1, budget_ramp=ramp, lr=1e-30, magnitude_prior=0)
        run(tmp_path, facades, unet, agents, Penalties())
    assert penalties[0.0][0] > 1.0  # log(1 / 0.3) on the whole network
    assert penalties[1.0][0] == 0.0
    assert penalties[1.0] == sorted(penalties[1.0])
    assert 0.3 < penalties[1.0][3] < penalties[0.0][3]


def test_standardized() -> None:
    values = torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 1, 1, 11])  # mean 2, standard deviation 3
    torch.testing.assert_close(standardized(values), torch.tensor([*[-1 / 3] * 9, 2.0]))
    assert standardized(torch.ones(5)).tolist() == [0] * 5
    assert standardized(torch.ones(1)).tolist() == [0]  # a network with one channel to drop


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_agents_start_from_the_order_of_the_weights(
    tmp_path: Path, facades: list[str], unet: Path, weight: float
) -> None:
    agreement: dict[Side, float] = {}

    class Untrained(CollaborativePruning):
        def scores(self, search: SearchPhase, side: Side) -> Tensor:
            scores = super().scores(search, side)
            both = torch.stack([scores, relative_magnitudes(search, side)])
            agreement[side] = float(both.corrcoef()[0, 1])
            return scores

    run(tmp_path, facades, unet, Untrained(1, lr=1e-30, search_weights="frozen", magnitude_prior=weight))
    assert len(agreement) == 2
    for value in agreement.values():
        assert value > 0.9 if weight else abs(value) < 0.5


def test_a_search_that_falls_short_says_so(tmp_path: Path, facades: list[str], unet: Path) -> None:
    with pytest.warns(UserWarning, match="generator: the search ended at .* search longer"):
        run(tmp_path, facades, unet, CollaborativePruning(1, lr=1e-30))


# -- the cache of the teacher's images -----------------------------------------------------------------------


ROLE = Role("generator")


def test_cache_keeps_images_up_to_its_limit() -> None:
    images = torch.rand(4, 3, 2, 2).half()
    cache = TeacherImages(2 * images[0].numel() * 2 / 1e9)
    cache.put(ROLE, ["a", "b", "c", "d"], images)
    assert torch.equal(cache.get(ROLE, ["b", "a", "b"]), images[[1, 0, 1]])
    assert cache.get(ROLE, ["a", "c"]) is None
    cache.put(ROLE, ["c"], images[2:3])
    assert cache.get(ROLE, ["c"]) is None


def test_cache_keeps_images_of_two_generators_apart() -> None:
    there, back = (Role(f"generator_{direction}") for direction in ("AtoB", "BtoA"))
    cache = TeacherImages(1)
    cache.put(there, ["a"], torch.zeros(1, 3, 2, 2).half())
    assert cache.get(back, ["a"]) is None
    cache.put(back, ["a"], torch.ones(1, 3, 2, 2).half())
    assert [float(cache.get(role, ["a"]).mean()) for role in (there, back)] == [0.0, 1.0]


def test_cache_of_no_size_keeps_nothing() -> None:
    cache = TeacherImages(0)
    cache.put(ROLE, ["a"], torch.rand(1, 3, 2, 2).half())
    assert cache.get(ROLE, ["a"]) is None


def test_an_image_of_the_teacher_is_the_same_in_every_batch() -> None:
    """As the last digits of matrix products are not: a resumed run sees the images in other batches."""

    class Batchwise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / (10 + len(x))

    networks = SimpleNamespace(teacher={ROLE: Batchwise()}, task=Pix2Pix())
    paths, sources = ["a", "b", "c"], torch.rand(3, 3, 2, 2)
    for limit in (0.0, 1.0):
        whole, alone = TeacherImages(limit), TeacherImages(limit)
        images = whole.of(networks, {"source": sources, "path": paths})[ROLE]
        for n in (2, 0, 1):
            own = alone.of(networks, {"source": sources[[n]], "path": [paths[n]]})[ROLE]
            assert torch.equal(own, images[[n]])
        assert torch.equal(images, (sources / 11).half().float())


def test_without_cache_the_search_is_the_same(tmp_path: Path, facades: list[str], unet: Path) -> None:
    ends = []
    for size in (4.0, 0.0):
        policy = CollaborativePruning(2, lr=0.05, teacher_cache_gb=size, cache_dir=str(tmp_path / "cache"))
        ends.append(run(tmp_path, facades, unet, policy, epochs=1).state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
