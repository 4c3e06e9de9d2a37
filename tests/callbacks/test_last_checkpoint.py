import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
import tiny
import torch
from lightning.pytorch import Callback
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_gancompress import files
from lightning_gancompress.callbacks import LastCheckpoint
from lightning_gancompress.cli import main
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import draft_of
from lightning_gancompress.trainer import Trainer


class Send(Callback):
    """Send this process a signal at the start of a batch, or of the validation after it."""

    def __init__(self, signum: int, epoch: int, batch: int | None = None) -> None:
        self.signum, self.epoch, self.batch = signum, epoch, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            os.kill(os.getpid(), self.signum)

    def on_validation_start(self, trainer, pl_module):
        if not trainer.sanity_checking and self.batch is None and trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), self.signum)


def send(**options: int) -> list[str]:
    arguments = [f"--trainer.callbacks.{name}={value}" for name, value in options.items()]
    return [f"--trainer.callbacks={__name__}.Send", *arguments]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, facades):
    """The folder of a run that nobody stops."""
    folder = tmp_path_factory.mktemp("whole")
    main([*tiny.teacher(folder), *facades])
    return folder


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"signum": signal.SIGINT, "epoch": 0, "batch": 1}, 130),
        ({"signum": signal.SIGTERM, "epoch": 1, "batch": 2}, 143),
        ({"signum": signal.SIGINT, "epoch": 0, "batch": 3}, 130),  # the last batch: after the epoch's end
        ({"signum": signal.SIGINT, "epoch": 0}, 130),  # in validation: likewise
    ],
)
def test_a_stopped_run_goes_on_exactly(options, code, whole, tmp_path, facades):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as stop:
        main([*tiny.teacher(tmp_path), *facades, *send(**options)])
    assert stop.value.code == code
    batches = tiny.read(tiny.last(tmp_path))["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"][
        "processed"
    ]
    assert batches == 4 * options["epoch"] + options.get("batch", 3) + 1
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
        signal.signal(number, handler)  # Lightning puts back those of the training
    main([*tiny.teacher(tmp_path), *facades, "--ckpt_path", "last"])
    tiny.assert_same_end(whole, tmp_path)


def run(folder, model, **options):
    fixed = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "limit_val_batches": 0}
    trainer = Trainer(default_root_dir=folder, limit_train_batches=4, **fixed, **{"max_epochs": 2, **options})
    trainer.fit(model)
    return trainer


class Watched(LastCheckpoint):
    def _save(self, trainer, pl_module):
        super()._save(trainer, pl_module)
        self.saved = [*getattr(self, "saved", []), trainer.fit_loop.total_batch_idx + 1]


@pytest.mark.parametrize(("minutes", "batches"), [(0, [1, 2, 3, 4, 5, 6, 7, 8]), (10, [4, 8])])
def test_it_saves_in_time_and_after_each_epoch(minutes, batches, tmp_path):
    callback = Watched(minutes=minutes)
    run(tmp_path, BoringModel(), callbacks=callback)
    assert callback.saved == batches
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_time_counts_from_the_last_save(tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 25))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    callback = Watched(minutes=1)
    run(tmp_path, BoringModel(), callbacks=callback, max_epochs=1)
    assert callback.saved == [3, 4]  # 75 seconds after the start, and the end


class Explodes(BoringModel):
    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            torch.nn.init.constant_(self.layer.bias, float("inf"))

    def training_step(self, batch, batch_idx):
        return 0 * self.layer.weight.sum()


def test_weights_that_are_not_finite_never_replace_good_ones(tmp_path):
    with pytest.raises(UserError, match=r"epoch 1.*last\.ckpt was left"):
        run(tmp_path, Explodes())
    state = tiny.read(tiny.last(tmp_path))
    assert state["epoch"] == 0
    assert all(tensor.isfinite().all() for tensor in state["state_dict"].values())


def test_an_earlier_run_is_set_aside_and_elsewhere_not_replaced_in_silence(tmp_path):
    run(tmp_path, BoringModel(), max_epochs=1)
    with pytest.warns(UserWarning, match=r"an earlier run .* were moved to .*previous-1"):
        run(tmp_path, BoringModel(), max_epochs=1)
    for folder in ("a", "b"):
        callback = LastCheckpoint(dirpath=str(tmp_path / "shared"))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            run(tmp_path / folder, BoringModel(), max_epochs=1, callbacks=callback)
        words = [str(warning.message) for warning in told]
        assert any("last.ckpt of an earlier run will be replaced" in text for text in words) == (
            folder == "b"
        )


def test_leftovers_of_a_killed_writer_are_removed(tmp_path, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    draft = draft_of(tmp_path / "checkpoints" / "last.ckpt")
    monkeypatch.setattr(files, "_swept", set())
    draft.parent.mkdir()
    (draft.parent / draft.name.replace(f"-{os.getpid()}-", f"-{process.pid}-")).touch()
    run(tmp_path, BoringModel(), max_epochs=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
