import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest
import safetensors.torch
import tiny
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_gancompress import run_folder
from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.cli import main
from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import NetworkSpec
from lightning_gancompress.run_folder import INDEX, LOCK, Owner, earlier_results, set_aside, training_in
from lightning_gancompress.trainer import Trainer

HOLD = """
import sys, time
from pathlib import Path
from lightning_gancompress.run_folder import training_in
with training_in(Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that trains in the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def boring(folder, **options):
    fixed = {"accelerator": "cpu", "logger": False, "limit_train_batches": 1, "limit_val_batches": 0}
    fixed |= {"max_epochs": 1, "enable_progress_bar": False}
    trainer = Trainer(default_root_dir=folder, **fixed, **options)
    trainer.fit(BoringModel())
    return trainer


def left_by(folder, **changes):
    """A lock that a run has left which did not end by itself."""
    owner = replace(Owner.of_this_process(), **changes)
    (folder / LOCK).write_text(json.dumps(asdict(owner)))


# -- one run at a time -----------------------------------------------------------------------------------


def test_a_second_run_in_a_folder_is_refused_before_it_writes(tmp_path, other, facades, capsys):
    code, words = tiny.fail_code(capsys, [*tiny.teacher(tmp_path), *facades])
    assert code == 2
    assert f"Another run trains in {tmp_path} (process {other.pid} on " in words
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_a_killed_run_leaves_no_obstacle(tmp_path, other):
    other.kill()
    other.wait()
    assert (tmp_path / LOCK).exists()
    boring(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", INDEX}


def test_runs_without_checkpoints_may_share_a_folder(tmp_path, other):
    with pytest.warns(
        UserWarning, match=r"Another run trains.*goes on beside it, since it saves no checkpoints"
    ):
        boring(tmp_path, enable_checkpointing=False)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_a_trial_run_takes_no_folder(tmp_path, other, facades):
    main([*tiny.teacher(tmp_path), *facades, "--trainer.fast_dev_run=true"])


def test_tests_of_a_run_go_on_beside_it(unet, facades, tmp_path, other):
    main(["test", "--ckpt_path", str(unet), "--trainer.default_root_dir", str(tmp_path)])
    assert (tmp_path / "test" / "results.json").is_file()


def test_one_process_is_kept_apart_as_well(tmp_path):
    with training_in(tmp_path):
        with pytest.raises(UserError, match="Another run trains"), training_in(tmp_path):
            pass
        with pytest.raises(UserError, match="Another run trains"):
            boring(tmp_path)
    assert not list(tmp_path.iterdir())
    with training_in(tmp_path):
        pass


def test_a_silent_run_on_another_host_is_gone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_folder, "PATIENCE", 0.1)
    left_by(tmp_path, host="node17", place="elsewhere")
    with training_in(tmp_path):
        assert Owner.of((tmp_path / LOCK).read_text()).pid == os.getpid()
    assert "a sign of life of another run" in capsys.readouterr().out


def test_a_run_on_another_host_that_gives_signs_of_life_is_not(tmp_path, monkeypatch):
    """Where hosts don't see each other's locks."""
    monkeypatch.setattr(run_folder, "PATIENCE", 30)
    monkeypatch.setattr(run_folder, "BEAT", 0.1)
    left_by(tmp_path, host="node17", place="elsewhere", pid=4711)
    ended = threading.Event()
    beats = threading.Thread(target=run_folder._beat, args=(tmp_path / LOCK, ended))
    beats.start()
    with pytest.raises(UserError, match="process 4711 on node17"), training_in(tmp_path):
        pass
    ended.set()
    beats.join()


@pytest.mark.parametrize(
    "changes",
    [
        {},  # this host, where the system gives locks free
        {"place": "of a container of the same name"},
        {"host": "node17", "place": "elsewhere", "job": ("31", "0")},  # the same job, requeued
    ],
)
def test_the_dead_are_not_waited_for(changes, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "31")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waits"))
    left_by(tmp_path, **changes)
    with training_in(tmp_path):
        pass


def test_file_systems_without_locks_go_by_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_locked", lambda _: None)
    left_by(tmp_path, pid=os.getppid())
    with pytest.raises(UserError, match="Another run trains"), training_in(tmp_path):
        pass
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left_by(tmp_path, pid=process.pid)
    with training_in(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{}", "null", '{"pid": [], "host": 1}', "half"])
def test_a_damaged_lock_is_no_obstacle(text, tmp_path):
    (tmp_path / LOCK).write_text(text)
    with training_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


# -- results of an earlier run ---------------------------------------------------------------------------


def files(folder):
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != INDEX
    }


def test_a_new_run_stopped_early_has_no_results_of_another(tmp_path, unet, facades, capsys):
    args = [*tiny.compression(tmp_path / "run", unet, "UniformWidth"), *facades, "--trainer.logger=true"]
    main(args)
    folder = tmp_path / "run"
    main(["test", "--ckpt_path", str(tiny.last(folder))])
    (folder / "notes.txt").touch()
    (folder / "test" / "own.txt").touch()
    first = files(folder)
    assert {
        "generator.pth",
        "generator.safetensors",
        "report.html",
        "test/results.json",
        "images/epoch_0001.png",
    } <= first
    main(["fit", "--ckpt_path", str(tiny.last(folder))])  # goes on, with nothing to do
    assert first <= files(folder)
    with pytest.warns(UserWarning, match=r"an earlier run .* were moved to .*previous-1"):
        tiny.fail_code(capsys, [*args, "--trainer.callbacks+=tiny.Stumble"])
    kept = {name for name in first if name in ("notes.txt", "test/own.txt")}
    now = files(folder)
    assert {name for name in now if not name.startswith("previous-1/")} & first == kept | {"config.yaml"}
    assert {f"previous-1/{name}" for name in first - kept} <= now


def test_a_refused_run_moves_nothing(tmp_path, unet, facades, capsys):
    args = [*tiny.compression(tmp_path / "run", unet, "UniformWidth"), *facades, "--trainer.max_epochs=1"]
    main(args)
    before = files(tmp_path / "run")
    tiny.fail_code(capsys, [*args, "--model.budget=0.0001"])
    assert files(tmp_path / "run") == before


def test_a_run_does_not_move_its_own_teacher(tmp_path, facades, capsys):
    main([*tiny.teacher(tmp_path), *facades, "--trainer.max_epochs=1"])
    before = files(tmp_path)
    code, words = tiny.fail_code(
        capsys, [*tiny.compression(tmp_path, tiny.last(tmp_path), "UniformWidth"), *facades]
    )
    assert code == 2
    assert "choose another trainer.default_root_dir" in words
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["generator.pth", "generator.safetensors"])
def test_a_network_of_the_users_is_not_replaced(tmp_path, unet, facades, capsys, name):
    (tmp_path / name).write_text("mine")
    code, words = tiny.fail_code(capsys, [*tiny.compression(tmp_path, unet, "UniformWidth"), *facades])
    assert code == 2
    assert "would be replaced: choose another trainer.default_root_dir" in words
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_resumed_elsewhere_sets_aside_what_is_there(tmp_path):
    boring(tmp_path / "a")
    boring(tmp_path / "b")
    trainer = Trainer(
        default_root_dir=tmp_path / "b",
        accelerator="cpu",
        logger=False,
        limit_train_batches=1,
        limit_val_batches=0,
        max_epochs=2,
    )
    with pytest.warns(UserWarning, match="an earlier run"):
        trainer.fit(BoringModel(), ckpt_path=tmp_path / "a" / "checkpoints" / "last.ckpt")
    assert files(tmp_path / "b") == {"checkpoints/last.ckpt", "previous-1/checkpoints/last.ckpt"}


def test_a_trainer_that_fits_again_goes_on_with_its_own_run(tmp_path):
    trainer = boring(tmp_path)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(BoringModel())
    assert files(tmp_path) == {"checkpoints/last.ckpt"}


def test_the_files_of_others_stay(tmp_path):
    theirs = [
        "config.yaml",
        "generator.pth",
        "images/epoch_1.png",
        "test/a.png",
        "checkpoints/facades/net.pth",
    ]
    for name in theirs:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert earlier_results(tmp_path) == []
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    found = earlier_results(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in found} == {
        "checkpoints/last.ckpt",
        "images/epoch_1.png",
    }
    assert set_aside(tmp_path, found) == tmp_path / "previous-1"
    assert files(tmp_path) >= set(theirs) - {"images/epoch_1.png"}
    assert earlier_results(tmp_path) == []


def test_a_small_model_in_one_file_is_a_runs_by_its_own_description(tmp_path):
    own, other = tmp_path / "generator.safetensors", tmp_path / "generator_AtoB.safetensors"
    spec = NetworkSpec("lightning_gancompress.networks.ResnetGenerator", {"ngf": 2, "n_blocks": 1})
    save_small(spec.build(), spec, own, preprocessing={}, provenance={})
    safetensors.torch.save_file({"a": torch.zeros(1)}, other)
    other.with_suffix(".json").write_text("{}")  # of somebody else
    assert earlier_results(tmp_path) == [own]
