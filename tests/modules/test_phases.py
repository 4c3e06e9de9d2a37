"""Search and fine-tuning in one fit: what stays frozen, who learns from which loss, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch import Callback, seed_everything
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_gancompress import load_generator
from lightning_gancompress.callbacks import CollaborativePruning, PruningPolicy, UniformWidth
from lightning_gancompress.checkpoints import load_networks
from lightning_gancompress.data import SyntheticFacades
from lightning_gancompress.density import Encoder
from lightning_gancompress.errors import UserError
from lightning_gancompress.finetune.distillation import Distillation
from lightning_gancompress.modules import CompressionModule, GANModule, TeacherModule
from lightning_gancompress.networks import PatchDiscriminator, UnetGenerator, channel_widths
from lightning_gancompress.trainer import Trainer


def facades_module(facades: list[str]) -> SyntheticFacades:
    return SyntheticFacades(
        root=facades[1].partition("=")[2],
        n_train=32,
        n_val=4,
        n_test=4,
        size=32,
        batch_size=8,
        search_batch_size=8,
        num_workers=0,
    )


def fit(
    folder: Path,
    facades: list[str],
    teacher: Path,
    *callbacks: Callback,
    epochs: int = -1,
    trainer: dict[str, Any] | None = None,
    **arguments: Any,
) -> CompressionModule:
    """Search and fine-tune in this process, which leaves the module to look at."""
    seed_everything(0, verbose=False)
    data = facades_module(facades)
    settings = {"budget": 0.3, "epochs": 1, "decay_epochs": 1}
    module = CompressionModule(str(teacher), **(settings | arguments))
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "accelerator": "cpu",
        "enable_checkpointing": False,
    }
    quiet |= trainer or {}
    Trainer(default_root_dir=folder, callbacks=list(callbacks), max_epochs=epochs, **quiet).fit(module, data)
    return module


def part(module: CompressionModule, name: str) -> Mapping[str, nn.Module]:
    """Sides or agents; there are none outside of a search."""
    return module.phase.saved_modules().get(name, {})


def searching(folder: Path, **arguments: Any) -> CollaborativePruning:
    """A policy whose masks have the same channels to the end."""
    settings: dict[str, Any] = {"search_epochs": 2, "lr": 0.05, "cache_dir": str(folder / "neighbours")}
    settings["slack"] = 1.0
    return CollaborativePruning(**(settings | arguments))


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.named_parameters()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def counted_macs(network: nn.Module) -> int:
    """Multiply-adds by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(tiny.sample(network))
    return counter.get_total_flops() // 2


class Witness(Callback):
    """Notes the state after every step."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.moved: list[bool] = []
        self.masks: list[Tensor] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.teacher = {name: tensor.clone() for name, tensor in pl_module.teacher.state_dict().items()}
        self.student = parameters(pl_module.student)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.phases.append(pl_module.phase.name)
        self.moved.append(not equal(self.student, parameters(pl_module.student)))
        assert equal(self.teacher, pl_module.teacher.state_dict())
        assert not any(module.training for module in pl_module.teacher.modules())
        assert not any(parameter.requires_grad for parameter in pl_module.teacher.parameters())
        frozen = [not parameter.requires_grad for parameter in pl_module.student.parameters()]
        assert all(frozen) if pl_module.phase.name == "search" else not any(frozen)
        dropouts = [m for m in pl_module.student.modules() if isinstance(m, nn.Dropout)]
        assert all(m.training == (pl_module.phase.name == "finetune") for m in dropouts)
        self.masks.append(
            torch.cat(
                [side.masks.mask.clone() for _, side in getattr(pl_module, "sides", {}).items()]
                or [torch.ones(1)]
            )
        )


@pytest.mark.parametrize("kind", ["unet", "resnet"])
def test_search_and_finetune_in_one_fit(
    kind: str, tmp_path: Path, facades: list[str], request: pytest.FixtureRequest
) -> None:
    teacher: Path = request.getfixturevalue(kind)
    witness = Witness()
    policy = searching(tmp_path, search_weights="frozen")
    module = fit(tmp_path, facades, teacher, policy, witness)
    assert witness.phases == ["search"] * 8 + ["finetune"] * 8
    assert witness.moved == [False] * 8 + [True] * 8
    assert len({tuple(mask.tolist()) for mask in witness.masks[:8]}) == 8
    assert equal(witness.teacher, load_state(teacher))
    for role, budget in (("generator", 0.3), ("discriminator", 0.5)):
        whole, small = module.teacher[role], module.student[role]
        assert 0.97 * budget < counted_macs(small) / counted_macs(whole) <= budget


def load_state(teacher: Path) -> dict[str, Tensor]:
    state = tiny.read(teacher)["state_dict"]
    return {name.removeprefix("networks."): tensor for name, tensor in state.items()}


@pytest.mark.parametrize("weights", ["frozen", "trained"])
def test_each_loss_reaches_its_own_network_only(
    weights: str, tmp_path: Path, facades: list[str], resnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def step(module: CompressionModule, name: str, loss: Tensor) -> None:
        module.zero_grad()
        module.optimizer(name).zero_grad()
        module.manual_backward(loss)
        searching = module.phase.name == "search"
        students = set(reached(module.student))
        if searching:
            assert students == ({name} if weights == "trained" else set())
        frozen = [
            *module.teacher.parameters(),
            *(module.student.parameters() if searching and weights == "frozen" else ()),
        ]
        assert all(parameter.grad is None for parameter in frozen)
        steps.append((module.phase.name, name, set(reached(module.agents)) if searching else students))
        module.optimizer(name).step()

    monkeypatch.setattr(GANModule, "step", step)
    policy = searching(tmp_path, kernel_weight=1.0, task_weight=1.0, search_weights=weights)
    fit(tmp_path, facades, resnet, policy)
    expected = [
        (phase, name, {name})
        for phase in ("search", "finetune")
        for name in ("discriminator", "generator") * 8
    ]
    assert steps == expected


def reached(networks: Mapping[str, nn.Module]) -> Iterator[str]:
    """Names of networks that a gradient has come to."""
    for name, network in networks.items():
        if any(p.grad is not None and p.grad.any() for p in network.parameters()):
            yield name


def test_feedback_changes_the_outcome(tmp_path: Path, facades: list[str], unet: Path) -> None:
    masks = {}
    for feedback in (True, True, False):
        witness = Witness()
        policy = searching(tmp_path, feedback=feedback, search_weights="frozen")
        fit(tmp_path, facades, unet, policy, witness, epochs=2)
        masks.setdefault(feedback, []).append(torch.stack(witness.masks))
    assert torch.equal(*masks[True])
    assert not torch.equal(masks[True][0], masks[False][0])


@pytest.mark.parametrize("policy", ["CollaborativePruning", "UniformWidth"])
def test_a_whole_discriminator(policy: str, tmp_path: Path, facades: list[str], unet: Path) -> None:
    chosen: PruningPolicy = searching(tmp_path) if policy == "CollaborativePruning" else UniformWidth()
    logged: set[str] = set()

    class Terms(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            logged.update(trainer.callback_metrics if pl_module.phase.name == "search" else ())

    module = fit(tmp_path, facades, unet, chosen, Terms(), discriminator_budget=1.0)
    for name in ("train/discriminator_density", "train/balance"):
        assert (name in logged) == (policy == "CollaborativePruning")
    assert module.networks.specs["student.discriminator"] == module.networks.specs["teacher.discriminator"]
    assert counted_macs(module.student["discriminator"]) == counted_macs(module.teacher["discriminator"])
    assert counted_macs(module.student["generator"]) < counted_macs(module.teacher["generator"])


@pytest.mark.parametrize(("missing", "kernel"), [("train", None), ("leave_out", None), ("leave_out", 0.0)])
def test_without_a_discriminator_the_generators_agent_is_alone(
    missing: str, kernel: float | None, tmp_path: Path, facades: list[str], unet: Path
) -> None:
    teacher = tmp_path / "latest_net_G.pth"
    torch.save(load_networks(unet)["networks.generator"][0].state_dict(), teacher)
    seen: dict[str, set[str]] = {"search": set(), "finetune": set()}

    class Terms(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            seen[pl_module.phase.name] |= {k for k in trainer.callback_metrics if k.startswith("train/")}
            assert len(trainer.optimizers) == (
                2 if missing == "train" and pl_module.phase.name != "search" else 1
            )
            assert set(part(pl_module, "sides")) == set(part(pl_module, "agents")) <= {"generator"}

    policy = searching(tmp_path, kernel_weight=kernel)
    module = fit(tmp_path, facades, teacher, policy, Terms(), missing=missing)
    terms = {"teacher_l1", "generator_budget", *(["generator_kernel"] if kernel is None else [])}
    assert seen["search"] - {"train/lr"} == {f"train/{term}" for term in terms}
    terms = {"generator", "generator_l1"}
    if missing == "train":
        terms |= {"generator_gan", "discriminator", "discriminator_real", "discriminator_fake"}
    assert {f"train/{term}" for term in terms} <= seen["finetune"]
    assert ("train/generator_gan" in seen["finetune"]) == ("discriminator" in module.student)
    whole, small = module.teacher["generator"], module.student["generator"]
    assert 0.97 * 0.3 < counted_macs(small) / counted_macs(whole) <= 0.3


def test_an_agent_without_anything_to_learn_from(tmp_path: Path, facades: list[str], unet: Path) -> None:
    teacher = tmp_path / "latest_net_G.pth"
    torch.save(load_networks(unet)["networks.generator"][0].state_dict(), teacher)
    policy = searching(tmp_path, kernel_weight=0.0, teacher_weight=0.0)
    with pytest.raises(UserError, match="acts through a discriminator, and the teacher has none"):
        fit(tmp_path, facades, teacher, policy)


def test_a_distillation_without_its_critic_is_refused_before_the_search(
    tmp_path: Path, facades: list[str], unet: Path
) -> None:
    teacher = tmp_path / "latest_net_G.pth"
    torch.save(load_networks(unet)["networks.generator"][0].state_dict(), teacher)
    witness = Steps()
    with pytest.raises(UserError, match=r"distillation\.critic looks through .* set it to 0"):
        fit(tmp_path, facades, teacher, searching(tmp_path), witness, distillation=Distillation(critic=1.0))
    assert witness.count == 0


class Steps(Callback):
    """Counts them."""

    count = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.count += 1


def test_nothing_to_search(tmp_path: Path, facades: list[str], unet: Path) -> None:
    with pytest.raises(UserError, match=r"both 1\.0"):
        fit(tmp_path, facades, unet, searching(tmp_path), budget=1.0, discriminator_budget=1.0)


def test_no_policy(tmp_path: Path, facades: list[str], unet: Path) -> None:
    with pytest.raises(UserError, match="needs a pruning policy"):
        fit(tmp_path, facades, unet)


def test_whole_networks_only_train_on(tmp_path: Path, facades: list[str], unet: Path) -> None:
    module = fit(tmp_path, facades, unet, UniformWidth(), budget=1.0, discriminator_budget=1.0)
    assert counted_macs(module.student["generator"]) == counted_macs(module.teacher["generator"])
    assert not equal(parameters(module.student), parameters(module.teacher))


def test_ignored_layers_stay_whole(tmp_path: Path, facades: list[str], unet: Path) -> None:
    kept = "model.model.1.model.1"
    module = fit(tmp_path, facades, unet, searching(tmp_path), ignored_layers=[kept])
    small, whole = (nets["generator"].get_submodule(kept) for nets in (module.student, module.teacher))
    assert (small.in_channels, small.out_channels) == (whole.in_channels, whole.out_channels)


def test_ignored_layers_may_be_patterns_and_of_discriminators(
    tmp_path: Path, facades: list[str], unet: Path
) -> None:
    patterns = ["model.model.1.model.1", "discriminator.model.[2]"]
    module = fit(tmp_path, facades, unet, UniformWidth(), ignored_layers=patterns)
    small, whole = (channel_widths(nets["discriminator"]) for nets in (module.student, module.teacher))
    assert (small["model.0"], small["model.2"]) == (whole["model.0"], whole["model.2"])
    assert small["model.5"] != whole["model.5"]
    with pytest.raises(UserError, match="generator and discriminator have no layer named"):
        fit(tmp_path, facades, unet, UniformWidth(), ignored_layers=["discriminator.neck"])


def test_slim_student_of_a_search_with_ignored_layers(tmp_path: Path, facades: list[str], unet: Path) -> None:
    path = tmp_path / "search.ckpt"
    kept = "model.model.1.model.1"
    module = fit(tmp_path, facades, unet, searching(tmp_path), ignored_layers=[kept], epochs=1)
    module.trainer.save_checkpoint(path)
    small = load_generator(path)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    module.student.eval()
    torch.testing.assert_close(small(image), module(image), atol=1e-5, rtol=0)
    assert (
        small.get_submodule(kept).in_channels == module.teacher["generator"].get_submodule(kept).in_channels
    )
    assert counted_macs(small) < counted_macs(module.teacher["generator"])


def test_distillation_pulls_towards_the_teacher(tmp_path: Path, facades: list[str], unet: Path) -> None:
    distances = []
    for weight in (0.0, 1000.0):
        module = fit(tmp_path, facades, unet, UniformWidth(), distill_weight=weight, epochs=2, lr=2e-3)
        image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            pictures = [net.eval()(image) for net in module.generators("generator").values()]
        distances.append(float((pictures[0] - pictures[1]).abs().mean()))
    assert distances[1] < 0.9 * distances[0]


def test_load_from_checkpoint(tmp_path: Path, facades: list[str], unet: Path) -> None:
    path = tmp_path / "last.ckpt"
    module = fit(tmp_path, facades, unet, UniformWidth(), epochs=1)
    module.trainer.save_checkpoint(path)
    loaded = CompressionModule.load_from_checkpoint(path, teacher=None)
    assert loaded.phase.name == "finetune"
    assert equal(loaded.state_dict(), module.state_dict())
    assert loaded.networks.specs == module.networks.specs


def test_load_a_teacher_from_its_checkpoint(unet: Path) -> None:
    networks = UnetGenerator(ngf=8, n_downs=5), PatchDiscriminator(ndf=8, n_layers=2)
    loaded = TeacherModule.load_from_checkpoint(unet, generator=networks[0], discriminator=networks[1])
    assert equal(loaded.state_dict(), tiny.read(unet)["state_dict"])


def test_masks_move_with_the_module(tmp_path: Path, facades: list[str], unet: Path) -> None:
    module = fit(tmp_path, facades, unet, searching(tmp_path), epochs=1)
    module.to("meta")
    for _, side in module.sides.items():
        assert {side.masks.live.device.type, *(s.device.type for s in side.masks._slices.values())} == {
            "meta"
        }


def test_checkpoint_of_another_architecture(tmp_path: Path, facades: list[str], unet: Path) -> None:
    module = fit(tmp_path, facades, unet, UniformWidth(), epochs=1)
    checkpoint = {"gancompress": {}, "state_dict": {}}
    module.on_save_checkpoint(checkpoint)
    checkpoint["state_dict"] = module.state_dict() | {"stray": torch.ones(1)}
    with pytest.raises(UserError, match=r"another architecture.*unexpected keys: stray"):
        CompressionModule().on_load_checkpoint(checkpoint)


def test_checkpoint_of_another_kind(unet: Path) -> None:
    teacher = tiny.read(unet)
    with pytest.raises(
        UserError, match="checkpoint of teacher, not of compression; a teacher goes into model"
    ):
        CompressionModule().on_load_checkpoint(teacher)
    teacher["gancompress"]["kind"] = "compression"
    with pytest.raises(UserError, match="checkpoint of compression, not of teacher"):
        TeacherModule(UnetGenerator(ngf=4, n_downs=5), PatchDiscriminator(ndf=4)).on_load_checkpoint(teacher)
    with pytest.raises(UserError, match="checkpoint of some other project"):
        CompressionModule().on_load_checkpoint({"state_dict": {}})


def test_networks_of_a_checkpoint_are_described(unet: Path) -> None:
    networks = load_networks(unet)
    assert networks.keys() == {"networks.generator", "networks.discriminator"}
    assert isinstance(networks["networks.generator"][0], UnetGenerator)


class Brightness(Encoder):
    """Neighbours are images of like brightness."""

    def features(self, source: Tensor, image: Tensor) -> Tensor:
        return torch.stack([image.flatten(1).mean(1), torch.ones(len(image))], 1)


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, facades: list[str], unet: Path
) -> Callable[..., dict[str, Tensor]]:
    """The generator's agent after a search with some options."""
    folder = tmp_path_factory.mktemp("searched")

    def agent(**options: Any) -> dict[str, Tensor]:
        policy = searching(folder, **({"budget_ramp": 0.0} | options))
        return parameters(fit(folder, facades, unet, policy, epochs=1).agents["generator"])

    return agent


@pytest.fixture(scope="module")
def plain(searched: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
    """That of a search without further options, which comes out the same each time."""
    one = searched()
    assert equal(one, searched())
    return one


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": 0.8},
        {"budget_weight": 2.0},
        {"budget_ramp": 0.5},
        {"comparison": "global"},
        {"comparison": "standard"},
        {"neighbours": 9},
        {"members": 2},
        {"adversarial_weight": 1.0},
        {"search_weights": "frozen"},
        {"kernel_weight": 1.0},
        {"teacher_weight": 1.0},
        {"task_weight": 1.0},
        {"encoder": Brightness()},
    ],
    ids=lambda option: "-".join(
        f"{k}={type(v).__name__ if k == 'encoder' else v}" for k, v in option.items()
    ),
)
def test_every_option_of_the_search_changes_it(
    option: dict[str, Any], searched: Callable[..., dict[str, Tensor]], plain: dict[str, Tensor]
) -> None:
    assert not equal(plain, searched(**option))


def test_options_of_the_budget_change_the_widths(tmp_path: Path, facades: list[str], unet: Path) -> None:
    def widths(**arguments: Any) -> list[int]:
        module = fit(tmp_path, facades, unet, UniformWidth(), epochs=1, **arguments)
        found = module.networks.specs["student.generator"].widths
        assert found is not None
        return [width[-1] for width in found.values()][:-1]  # the last layer writes the image

    plain = widths()
    assert widths(macs="literature") != plain
    assert min(widths(min_channels=6)) >= 6 > min(plain)
    multiples = widths(channel_multiple=4)
    assert all(width % 4 == 0 for width in multiples)
    assert any(width % 4 for width in plain)


# -- what can't change any more ------------------------------------------------------------------------------


def resume(folder: Path, facades: list[str], teacher: Path, policy: PruningPolicy, **options: Any) -> None:
    """Go on with a compression as `fit` began it, with other options."""
    module = CompressionModule(str(teacher), **({"budget": 0.3, "epochs": 1, "decay_epochs": 1} | options))
    trainer = Trainer(default_root_dir=folder, accelerator="cpu", logger=False, callbacks=[policy])
    trainer.fit(module, facades_module(facades), ckpt_path=str(tiny.last(folder)))


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory, facades: list[str], unet: Path) -> Path:
    """A run that is past its search."""
    folder = tmp_path_factory.mktemp("decided")
    fit(folder, facades, unet, searching(folder), epochs=3, trainer={"enable_checkpointing": True})
    return folder


@pytest.mark.parametrize(
    ("policy", "options", "words"),
    [
        ("CollaborativePruning", {"budget": 0.2}, "model.budget: 0.2 comes too late, .* began with 0.3"),
        ("CollaborativePruning", {"discriminator_budget": 1.0}, "model.discriminator_budget: 1.0 comes too"),
        ("CollaborativePruning", {"macs": "literature"}, "model.macs: literature comes too late"),
        ("CollaborativePruning", {"channel_multiple": 4}, "model.channel_multiple: 4 comes too late"),
        ("UniformWidth", {}, "trainer.callbacks: UniformWidth comes too late, .* CollaborativePruning"),
        ("search_epochs", {}, "search_epochs: 1 comes too late, .* began with 2"),
    ],
)
def test_what_the_search_has_decided_stays(
    policy: str, options: dict[str, Any], words: str, decided: Path, facades: list[str], unet: Path
) -> None:
    other: PruningPolicy = UniformWidth() if policy == "UniformWidth" else searching(decided)
    if policy == "search_epochs":
        other.search_epochs = 1
    with pytest.raises(UserError, match=words):
        resume(decided, facades, unet, other, **options)


def test_a_compression_that_has_not_begun_is_not_tested(
    tmp_path: Path, facades: list[str], unet: Path
) -> None:
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False)
    for command in (trainer.test, trainer.validate):
        with pytest.raises(
            UserError, match=r"(test|validate)` needs a compression, and none has been fitted or loaded"
        ):
            command(CompressionModule(str(unet)), facades_module(facades))


def test_validation_leaves_the_search_alone(tmp_path: Path, facades: list[str], unet: Path) -> None:
    """The agents see the masks that were drawn last, not those that validation looked at."""
    ends = []
    for every in (1, 2):
        policy = searching(tmp_path)
        module = fit(tmp_path, facades, unet, policy, trainer={"check_val_every_n_epoch": every}, epochs=2)
        ends.append(module.state_dict())
    assert equal(*ends)


@pytest.mark.parametrize("seeds", [(1, 2), (1, 1)])
def test_the_seed_of_torch_counts(
    seeds: tuple[int, int], tmp_path: Path, facades: list[str], unet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = []
    for seed in seeds:
        witness = Witness()
        policy = searching(tmp_path, search_weights="frozen")
        monkeypatch.setattr(
            f"{__name__}.seed_everything", lambda *_, seed=seed, **__: torch.manual_seed(seed)
        )
        monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
        fit(tmp_path, facades, unet, policy, witness, epochs=1)
        masks.append(torch.stack(witness.masks))
    assert torch.equal(*masks) == (seeds[0] == seeds[1])
