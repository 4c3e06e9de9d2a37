"""Clipping and accumulation of gradients, which are options of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from lightning_gancompress.cli import main
from lightning_gancompress.data import DatasetDataModule
from lightning_gancompress.errors import UserError
from lightning_gancompress.modules import TeacherModule
from lightning_gancompress.networks import PatchDiscriminator
from lightning_gancompress.search import CollaborativePruning
from lightning_gancompress.tasks import Pix2Pix
from lightning_gancompress.trainer import Trainer as OwnTrainer


class Norms(Callback):
    """Notes the norm of the gradients after clipping in each step of an optimizer, and the steps."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        for optimizer in trainer.optimizers:
            grads = [
                p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
            ]
            self.norms.append(float(torch.stack([g.float().norm() for g in grads]).norm()))


class Pairs(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        source, target = (torch.rand(3, 16, 16, generator=generator) * 2 - 1 for _ in range(2))
        return source, target


class Plain(nn.Module):
    """A generator whose losses of two images are those of each."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.head(x).relu()).tanh()


def module(**options: Any) -> TeacherModule:
    torch.manual_seed(0)
    judge = PatchDiscriminator(in_channels=6, ndf=4, n_layers=1, norm="none")
    return TeacherModule(Plain(), judge, Pix2Pix(), epochs=2, decay_epochs=0, **options)


def fit(folder: Path, net: TeacherModule, *callbacks: Callback, batch_size: int = 1, **options: Any) -> None:
    data = DatasetDataModule(Pairs(), val=Pairs(), batch_size=batch_size, num_workers=0)
    settings = {"accelerator": "cpu", "logger": False, "limit_val_batches": 0, "enable_progress_bar": False}
    settings["channels_last"] = False  # with and without a scaler, for sums in the same order
    ckpt_path = options.pop("ckpt_path", None)
    trainer = OwnTrainer(default_root_dir=folder, callbacks=list(callbacks), **settings | options)
    trainer.fit(net, data, ckpt_path=ckpt_path)


def flat(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class Scaled(MixedPrecision):
    """fp16's scaling of losses on a CPU in float32, with a scale that grows in every step."""

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", 2.0, growth_interval=1))

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", enabled=False)


class Frozen(Callback):
    """Keeps the discriminator's learning rate at 0, so that only the generator's steps differ."""

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        for group in trainer.optimizers[1].param_groups:
            group["lr"] = 0.0


@pytest.mark.parametrize("plugins", [[], [Scaled]])
def test_two_accumulated_batches_are_one_of_twice_the_size(plugins: list[Any], tmp_path: Path) -> None:
    one, two = module(accumulate_grad_batches=2), module()
    for net, size in ((one, 1), (two, 2)):
        options = {"plugins": [plugin() for plugin in plugins]}
        fit(tmp_path / str(size), net, Frozen(), batch_size=size, **options)
    assert not torch.allclose(flat(one), flat(module()), atol=1e-4)
    torch.testing.assert_close(flat(one), flat(two), atol=2e-6, rtol=1e-4)


def test_a_short_last_window_weighs_its_own_batches(tmp_path: Path) -> None:
    whole, short = module(), module(accumulate_grad_batches=4)
    norms = [Norms(), Norms()]
    for net, note in zip((whole, short), norms, strict=True):
        fit(tmp_path / str(net._window.batches), net, note, limit_train_batches=1, max_epochs=1)
    assert norms[0].norms == norms[1].norms


@pytest.mark.parametrize("plugins", [[], [Scaled]])
def test_a_run_goes_on_within_a_window(plugins: list[Any], tmp_path: Path) -> None:
    whole, first, second = (module(accumulate_grad_batches=4) for _ in range(3))

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, net: LightningModule, *args: Any) -> None:
            if trainer.current_epoch == 1 and args[2] == 5:  # the second batch of the second window
                trainer.save_checkpoint(tmp_path / "within.ckpt")

    uninterrupted, resumed = ([plugin() for plugin in plugins] for _ in range(2))
    fit(tmp_path / "whole", whole, plugins=uninterrupted)
    fit(tmp_path / "first", first, Stop(), plugins=[plugin() for plugin in plugins])
    fit(tmp_path / "second", second, plugins=resumed, ckpt_path=tmp_path / "within.ckpt")
    assert torch.equal(flat(whole), flat(second))
    # powers of two change no weight: the scale itself must go on
    assert [p.state_dict() for p in resumed] == [p.state_dict() for p in uninterrupted]


@pytest.mark.parametrize("plugins", [[], [Scaled]])
def test_gradients_are_clipped_before_they_are_used(plugins: list[Any], tmp_path: Path) -> None:
    note = Norms()
    fit(tmp_path, module(gradient_clip_val=1e-3), note, plugins=[plugin() for plugin in plugins])
    assert max(note.norms) == pytest.approx(1e-3, rel=1e-2)
    note = Norms()
    by_value = module(gradient_clip_val=1e-9, gradient_clip_algorithm="value")
    fit(tmp_path, by_value, note, plugins=[plugin() for plugin in plugins])
    assert 1e-9 < max(note.norms) < 1e-6


def test_a_search_clips_and_accumulates(tmp_path: Path, unet: Path, facades: list[str]) -> None:
    options = ["--model.gradient_clip_val=1.0", "--model.accumulate_grad_batches=3"]
    main(tiny.compression(tmp_path / "a", unet, CollaborativePruning.__name__, *facades, *options))
    killed = [*facades, *options, *tiny.EVERY_STEP, "--trainer.max_epochs=1"]
    main(tiny.compression(tmp_path / "b", unet, CollaborativePruning.__name__, *killed))
    main(
        tiny.compression(
            tmp_path / "b", unet, CollaborativePruning.__name__, *facades, *options, "--ckpt_path=last"
        )
    )
    tiny.assert_same_end(tmp_path / "a", tmp_path / "b")


@pytest.mark.usefixtures("unfused")
def test_scaled_losses_change_nothing(tmp_path: Path, unet: Path, facades: list[str]) -> None:
    """In search and fine-tuning: powers of two are exact, so one gradient with another's scale would show."""
    options = ["--model.gradient_clip_val=1.0", "--model.accumulate_grad_batches=3", *facades]
    options += ["--trainer.channels_last=false"]
    for name, plugin in (("plain", []), ("scaled", [f"--trainer.plugins={__name__}.Scaled"])):
        main(tiny.compression(tmp_path / name, unet, CollaborativePruning.__name__, *options, *plugin))
    plain, scaled = (tiny.read(tiny.last(tmp_path / name)) for name in ("plain", "scaled"))
    tiny.assert_equal(plain["state_dict"], scaled["state_dict"])
    for one, other in zip(plain["optimizer_states"], scaled["optimizer_states"], strict=True):
        tiny.assert_equal(one["state"], other["state"])
    assert scaled["Scaled"]["scale"] > 2.0


class Steady(Scaled):
    """Scaling by a factor that only an overflow changes."""

    def __init__(self) -> None:
        super().__init__()
        self.scaler = torch.amp.GradScaler("cpu", 2.0**10, growth_interval=1000)


class Overflow(Callback):
    """Has the generator's gradients overflow in one batch: the scaler leaves the step out, as `drop` does."""

    def __init__(self, drop: bool) -> None:
        self.drop, self.now, self.left_out = drop, False, 0

    def on_fit_start(self, trainer: Trainer, net: Any) -> None:
        for parameter in net.networks["generator"].parameters():
            parameter.register_hook(lambda g: g * torch.inf if self.now and not self.drop else g)

    def on_train_batch_start(self, trainer: Trainer, net: Any, batch: Any, index: int) -> None:
        self.now = (trainer.current_epoch, index) == (0, 2)

    def on_before_optimizer_step(self, trainer: Trainer, net: Any, optimizer: Any) -> None:
        first_since = (trainer.current_epoch, trainer.fit_loop.batch_idx) >= (0, 2) and not self.left_out
        if self.drop and first_since and optimizer is trainer.optimizers[0]:
            self.left_out += 1
            optimizer.zero_grad()


@pytest.mark.usefixtures("unfused")
@pytest.mark.parametrize("batches", [1, 2])
def test_an_overflow_of_one_network_leaves_out_its_step_alone(batches: int, tmp_path: Path) -> None:
    scaled, plain = (module(accumulate_grad_batches=batches) for _ in range(2))
    plugin, dropped = Steady(), Overflow(drop=True)
    fit(tmp_path / "scaled", scaled, Overflow(drop=False), plugins=[plugin])
    fit(tmp_path / "plain", plain, dropped)
    assert dropped.left_out == 1
    assert torch.equal(flat(scaled), flat(plain))
    assert plugin.scaler is not None
    assert plugin.scaler.get_scale() == 2.0**9


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("gradient_clip_val=1.0", "model.gradient_clip_val"),
        ("gradient_clip_algorithm=value", "model.gradient_clip_algorithm"),
        ("accumulate_grad_batches=2", "model.accumulate_grad_batches"),
    ],
)
def test_the_trainers_options_name_those_of_the_model(
    option: str, words: str, tmp_path: Path, facades: list[str], capsys: Any
) -> None:
    code, said = tiny.fail_code(capsys, [*tiny.teacher(tmp_path), *facades, f"--trainer.{option}"])
    assert code == 2
    assert words in said
    assert "automatic" not in said
    main([*tiny.teacher(tmp_path), *facades, f"--{words.partition('=')[0]}={option.partition('=')[2]}"])


def test_the_seed_is_the_one_that_was_set_last(tmp_path: Path) -> None:
    net = module()
    seed_everything(5)
    fit(tmp_path, net, max_epochs=1)
    assert net.seed == 5
    fit(tmp_path, net, ckpt_path="last")
    assert net.seed == 5
    torch.manual_seed(7)
    fit(tmp_path, net, max_epochs=1)
    assert net.seed == 7


def test_a_stop_is_forgotten_when_training_begins_again(tmp_path: Path) -> None:
    net = module()

    class Spoil(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            net.require_finite(torch.tensor(torch.nan))

    with pytest.raises(UserError, match="NaN"):
        fit(tmp_path, net, Spoil())
    fit(tmp_path, net)
