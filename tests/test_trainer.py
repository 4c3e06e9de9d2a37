import gc
import pickle
from pathlib import Path

import lightning.pytorch
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger

from lightning_gancompress import trainer as trainer_file
from lightning_gancompress.callbacks import (
    Evaluation,
    ImageGrid,
    LastCheckpoint,
    PredictionWriter,
    SmallModel,
)
from lightning_gancompress.checkpoint_io import AtomicCheckpointIO
from lightning_gancompress.errors import UserError
from lightning_gancompress.modules.supported import memory_format
from lightning_gancompress.networks import PatchDiscriminator, ResnetGenerator, UnetGenerator
from lightning_gancompress.trainer import Trainer


def having(trainer, kind):
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]


def test_a_run_keeps_everything_in_one_folder(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path)
    for kind in (ImageGrid, Evaluation, PredictionWriter, SmallModel, LastCheckpoint):
        assert len(having(trainer, kind)) == 1
    assert trainer.checkpoint_callback.dirpath == str(tmp_path / "checkpoints")
    assert isinstance(trainer.logger, CSVLogger)
    assert trainer.logger.root_dir == str(tmp_path / "logs")
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)


def test_the_users_callbacks_come_first(tmp_path):
    grid, bar = ImageGrid(n_images=2), TQDMProgressBar()
    best = ModelCheckpoint(monitor="val/l1")
    last = ModelCheckpoint(save_last=True, dirpath=tmp_path / "elsewhere")
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[grid, bar, best, last], logger=False)
    assert having(trainer, ImageGrid) == [grid]
    assert trainer.progress_bar_callback is bar
    assert having(trainer, LastCheckpoint) == []
    assert best.dirpath == str(tmp_path / "checkpoints")
    assert last.dirpath == str(tmp_path / "elsewhere")
    assert trainer.loggers == []


def test_best_and_last_go_together(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path, callbacks=ModelCheckpoint(monitor="val/l1"))
    assert len(having(trainer, ModelCheckpoint)) == 2


def test_what_is_switched_off_stays_off(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path, enable_checkpointing=False, enable_progress_bar=False)
    assert trainer.checkpoint_callbacks == []
    assert trainer.progress_bar_callback is None
    assert having(Trainer(barebones=True), ImageGrid) == []


def test_the_folder_of_a_development_run_is_removed(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path / "run", fast_dev_run=2)
    folder = Path(trainer.default_root_dir)
    assert folder.is_dir()
    assert trainer.checkpoint_callback.dirpath == str(
        tmp_path / "run" / "checkpoints"
    )  # for ckpt_path="last"
    del trainer
    gc.collect()
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_spawn"])
def test_ddp_looks_for_unused_parameters(strategy, tmp_path):
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", devices=2, strategy=strategy)
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"] is True


def test_the_users_word_on_unused_parameters_stands(tmp_path):
    strategy = "ddp_find_unused_parameters_false"
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", devices=2, strategy=strategy)
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"] is False


def test_an_unwritable_folder_stops_before_training(tmp_path):
    (tmp_path / "file").touch()
    trainer = Trainer(default_root_dir=tmp_path / "file" / "run", accelerator="cpu")
    with pytest.raises(UserError, match="file/run"):
        trainer.fit(BoringModel())


class Asked(BoringModel):
    def setup(self, stage):
        self.asked = self.trainer.ckpt_path


def test_setup_knows_whether_a_run_is_resumed(tmp_path):
    options = {"default_root_dir": tmp_path, "accelerator": "cpu", "logger": False, "limit_train_batches": 2}
    options |= {"limit_val_batches": 0, "enable_progress_bar": False}
    first, second = Asked(), Asked()
    Trainer(**options, max_epochs=1).fit(first)
    Trainer(**options, max_epochs=2).fit(second, ckpt_path="last")
    assert first.asked is None
    assert second.asked == str(tmp_path / "checkpoints" / "last.ckpt")


def test_it_is_lightnings_trainer_with_all_its_arguments(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path, limit_val_batches=3, check_val_every_n_epoch=2)
    assert isinstance(trainer, lightning.pytorch.Trainer)
    assert (trainer.limit_val_batches, trainer.check_val_every_n_epoch) == (3, 2)
    with pytest.raises(TypeError, match="max_epoch"):
        Trainer(default_root_dir=tmp_path, max_epoch=3)


def test_the_trainer_can_be_sent_to_spawned_processes(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False)
    for loop in (trainer.validate_loop, trainer.test_loop):
        pickle.loads(pickle.dumps(loop._print_results))


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_the_precision_is_what_the_device_computes_in(native, precision, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(trainer_file, "computes_bfloat16", lambda device: native)
    with caplog.at_level("INFO"):
        trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", precision="auto")
    assert trainer.precision == precision
    assert f"trainer.precision: auto is {precision} on this cpu." in caplog.text
    assert Trainer(default_root_dir=tmp_path, accelerator="cpu").precision == "32-true"
    assert (
        Trainer(default_root_dir=tmp_path, accelerator="cpu", precision="bf16-true").precision == "bf16-true"
    )


UNETS = [UnetGenerator(ngf=1, n_downs=5), PatchDiscriminator(ndf=1)]


@pytest.mark.parametrize(
    ("networks", "option", "precision", "native", "last"),
    [
        (UNETS, "auto", "bf16-mixed", True, True),
        (UNETS, "auto", "bf16-mixed", False, False),  # what is emulated gains nothing
        (UNETS, "auto", "32-true", True, False),
        (UNETS, True, "32-true", False, True),
        (UNETS, False, "bf16-mixed", True, False),
        ([ResnetGenerator(ngf=1), PatchDiscriminator(ndf=1)], "auto", "bf16-mixed", True, False),
    ],
)
def test_channels_are_last_where_that_is_fast(networks, option, precision, native, last, monkeypatch):
    monkeypatch.setattr("lightning_gancompress.modules.supported.computes_bfloat16", lambda device: native)
    trainer = Trainer(accelerator="cpu", precision=precision, channels_last=option, logger=False)
    found = memory_format(trainer, torch.nn.ModuleList(networks))
    assert found == (torch.channels_last if last else torch.contiguous_format)
    assert memory_format(None, torch.nn.ModuleList(networks)) == torch.contiguous_format
