import os
import signal
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import kills
import pytest
import tiny
import torch
from lightning.pytorch import Callback
from lightning.pytorch.demos.boring_classes import BoringModel
from PIL import Image

from lightning_gancompress import files
from lightning_gancompress.callbacks import LastCheckpoint
from lightning_gancompress.cli import main
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import draft_of
from lightning_gancompress.trainer import Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


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


class Terminate(Callback):
    """Send this process SIGTERM at the start of an evaluation."""

    def at(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)  # a handler runs between two instructions

    on_test_batch_start = on_validation_batch_start = on_predict_batch_start = at


@pytest.fixture(scope="module")
def whole(tmp_path_factory, facades):
    """The folder of a run that nobody stops."""
    folder = tmp_path_factory.mktemp("whole")
    main([*tiny.teacher(folder), *facades])
    return folder


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_an_evaluation_ends_at_once_by_sigterm(command, tmp_path, whole):
    before = signal.getsignal(signal.SIGTERM)
    args = [command, f"--ckpt_path={tiny.last(whole)}", f"--trainer.default_root_dir={tmp_path}"]
    args += [*tiny.QUICK, f"--trainer.callbacks={__name__}.Terminate"]
    if command == "predict":
        Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
        args.append(f"--data.predict_folder={tmp_path}")
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 143
    assert not list(tmp_path.glob("test/results.json"))
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"signum": signal.SIGINT, "epoch": 0, "batch": 1}, 130),
        ({"signum": signal.SIGTERM, "epoch": 1, "batch": 2}, 143),
        ({"signum": signal.SIGHUP, "epoch": 1, "batch": 0}, 129),
        ({"signum": signal.SIGUSR1, "epoch": 0, "batch": 3}, 138),  # the last batch: before the validation
        ({"signum": signal.SIGINT, "epoch": 0}, 130),  # in validation, which the resumed run repeats
    ],
)
def test_a_stopped_run_goes_on_exactly(options, code, whole, tmp_path, facades):
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(SystemExit) as stop:
        main([*tiny.teacher(tmp_path), *facades, *send(**options)])
    assert stop.value.code == code
    batches = tiny.read(tiny.last(tmp_path))["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"][
        "processed"
    ]
    assert batches == 4 * options["epoch"] + options.get("batch", 3) + 1
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    main([*tiny.teacher(tmp_path), *facades, "--ckpt_path", "last"])
    tiny.assert_same_end(whole, tmp_path)


def run(folder, model, **options):
    fixed = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "limit_val_batches": 0}
    trainer = Trainer(default_root_dir=folder, limit_train_batches=4, **{**fixed, "max_epochs": 2, **options})
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


class Epochs(LastCheckpoint):
    """Goes through epochs of four batches and a validation by a clock of its own, and writes nothing."""

    def __init__(self, step: float, validation: float) -> None:
        super().__init__()
        self.times, self.now, self.last = {"step": step, "validation": validation}, 0.0, 0.0
        self.saved: list[int] = []
        self.lost, self.batches = 0.0, 0

    def _pass(self, what: str) -> None:
        self.now += self.times[what]
        self.lost = max(self.lost, self.now - self.last)

    def _save(self, trainer, pl_module):
        self.saved.append(self.batches)
        self._saved_at = self.last = self.now

    def _stop_if_asked(self, trainer):
        pass

    def run(self, epochs: int, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(time, "monotonic", lambda: self.now)
        decide = SimpleNamespace(reduce_boolean_decision=lambda due, all: due)
        trainer = SimpleNamespace(callbacks=[self], strategy=decide, world_size=1, is_last_batch=False)
        self.on_train_start(trainer, None)
        for _ in range(epochs):
            for batch in range(4):
                trainer.is_last_batch = batch == 3
                self._pass("step")
                self.batches += 1
                self.on_train_batch_end(trainer, None, None, None, batch)
            self.before_validation(trainer, None)
            self._pass("validation")
            self.on_validation_end(trainer, None)
            self.on_train_epoch_end(trainer, None)
        self.teardown(trainer, None, "fit")


@pytest.mark.parametrize(
    ("seconds", "batches"),
    [(29, [4, 4, 8, 12]), (31, [4, 4, 8, 8, 12, 12])],  # how long the first one takes isn't known
)
def test_a_long_validation_is_preceded_by_a_save(seconds, batches, monkeypatch):
    callback = Epochs(step=1, validation=seconds)
    callback.run(3, monkeypatch)
    assert callback.saved == batches


@pytest.mark.parametrize(
    ("step", "validation", "lost"),
    [(60, 20, 260), (140, 29, 589), (149, 29, 596), (400, 20, 800), (60, 3000, 3000)],
)
def test_no_more_is_lost_than_ten_minutes_and_a_batch_or_a_validation(step, validation, lost, monkeypatch):
    callback = Epochs(step, validation)
    callback.run(8, monkeypatch)
    assert callback.lost == lost


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


# -- jobs of Slurm -------------------------------------------------------------------------------------------


def start(monkeypatch, job: str, restarts: int) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))


@pytest.mark.parametrize(("job", "restarts", "goes_on"), [("7", 1, True), ("7", 0, False), ("8", 1, False)])
def test_a_job_that_was_started_again_goes_on_by_itself(job, restarts, goes_on, tmp_path, monkeypatch):
    start(monkeypatch, "7", 0)
    run(tmp_path, BoringModel(), max_epochs=1)
    start(monkeypatch, job, restarts)
    trainer = run(tmp_path, BoringModel())
    assert trainer.ckpt_path == (str(tiny.last(tmp_path)) if goes_on else None)
    assert (tmp_path / "previous-1").exists() != goes_on


def test_what_it_has_saved_comes_before_what_the_command_names(tmp_path, monkeypatch):
    run(tmp_path / "other", BoringModel(), max_epochs=1)
    quick = {"logger": False, "limit_train_batches": 2, "limit_val_batches": 0, "accelerator": "cpu"}
    start(monkeypatch, "7", 0)
    trainer = Trainer(default_root_dir=tmp_path / "run", max_epochs=2, **quick)
    trainer.fit(BoringModel(), ckpt_path=tiny.last(tmp_path / "other"))
    assert trainer.ckpt_path == str(tiny.last(tmp_path / "other"))
    start(monkeypatch, "7", 1)
    trainer = Trainer(default_root_dir=tmp_path / "run", max_epochs=3, **quick)
    trainer.fit(BoringModel(), ckpt_path=tiny.last(tmp_path / "other"))
    assert trainer.ckpt_path == str(tiny.last(tmp_path / "run"))


class Signalled(Callback):
    """Send this task the signal: the first rank in one batch, the second in the next, or before training."""

    def __init__(self, batch: int | None = None) -> None:
        self.batch = batch

    def setup(self, trainer, pl_module, stage):
        if self.batch is None and trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        first = trainer.current_epoch == 0 and trainer.ckpt_path is None
        if self.batch is not None and first and batch_idx == self.batch + trainer.global_rank:
            os.kill(os.getpid(), signal.SIGUSR1)


def job(folder, args, tasks, restarts=0):
    """Exit codes of the tasks of a job."""
    forks = []
    for number, env in enumerate(kills.slurm_tasks(tasks, folder, restarts)):
        forks.append(tiny.Fork(args, folder / f"log{number}", env))
    return [fork.wait() for fork in forks]


@pytest.mark.parametrize(("tasks", "batch"), [(1, 1), (2, 0), (1, None)])
def test_a_signal_of_slurm_requeues_the_job_which_ends_like_a_whole_one(tasks, batch, tmp_path, facades):
    args = [*facades, f"--trainer.devices={tasks}"]
    assert job(tmp_path, [*tiny.teacher(tmp_path / "whole"), *args], tasks) == [0] * tasks
    args = [*tiny.teacher(tmp_path / "run"), *args, f"--trainer.callbacks+={__name__}.Signalled"]
    asked = [*args, *([] if batch is None else [f"--trainer.callbacks.batch={batch}"])]
    assert job(tmp_path, asked, tasks) == [128 + signal.SIGUSR1] * tasks
    assert kills.requeues(tmp_path) == 1
    assert tiny.last(tmp_path / "run").exists() == (batch is not None)
    again = [*args, f"--trainer.callbacks.batch={9 if batch is None else batch}"]
    assert job(tmp_path, again, tasks, restarts=1) == [0] * tasks
    tiny.assert_same_end(tmp_path / "whole", tmp_path / "run")
    assert kills.requeues(tmp_path) == 1
