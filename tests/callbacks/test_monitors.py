"""Monitors see the figures of their phase only."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_gancompress.cli import main

FOUR_EPOCHS = ["--model.decay_epochs=3"]  # of fine-tuning, after two of search


def add(name: str, **options: Any) -> list[str]:
    """Options that add a callback."""
    return [f"--trainer.callbacks+={name}", *(f"--trainer.callbacks.{k}={v}" for k, v in options.items())]


TOP = add("ModelCheckpoint", monitor="val/l1", save_top_k=3, save_last="true")
STOP = add("EarlyStopping", monitor="val/l1", patience=2, min_delta=1)


def phases(folder: Path) -> dict[str, tuple[int, str]]:
    """Epoch and phase of all checkpoints of a run but the last, by name."""
    found = {p.name: tiny.read(p) for p in (folder / "checkpoints").glob("*.ckpt") if p.stem != "last"}
    return {name: (c["epoch"], c["gancompress"]["phase"]) for name, c in found.items()}


def states(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [s for key, s in tiny.read(tiny.last(folder))["callbacks"].items() if key.startswith(kind)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, unet, facades):
    """The folder of a run that nothing interrupts: EarlyStopping ends it after its third fine-tuned epoch."""
    folder = tmp_path_factory.mktemp("whole")
    main([*tiny.compression(folder, unet), *facades, *FOUR_EPOCHS, *TOP, *STOP])
    return folder


def test_the_search_neither_stops_a_run_nor_leaves_a_best_checkpoint(whole):
    assert tiny.read(tiny.last(whole))["epoch"] == 4
    assert sorted(phases(whole).values()) == [(2, "finetune"), (3, "finetune"), (4, "finetune")]
    (stop,) = states(whole, "EarlyStopping")
    assert stop["wait_count"] == 2
    (top,) = states(whole, "ModelCheckpoint")
    assert len(top["best_k_models"]) == 3
    assert float(top["best_model_score"]) == min(map(float, top["best_k_models"].values()))


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_resumed_on_either_side_of_the_border(epochs, whole, tmp_path, unet, facades):
    args = [*tiny.compression(tmp_path, unet), *facades, *FOUR_EPOCHS, *TOP, *STOP]
    main([*args, f"--trainer.max_epochs={epochs}"])
    main([*args, "--ckpt_path=last"])
    assert phases(tmp_path) == phases(whole)
    tiny.assert_same_end(tmp_path, whole)
    for kind in ("EarlyStopping", "ModelCheckpoint"):
        (one,), (other,) = states(whole, kind), states(tmp_path, kind)
        for key in ("wait_count", "best_score", "best_model_score", "kth_value"):
            assert one.get(key) == other.get(key)


def test_a_figure_of_the_search_is_monitored_in_the_search(tmp_path, unet, facades):
    late = add("ModelCheckpoint", monitor="search/generator_macs", save_on_train_epoch_end="true", mode="max")
    early = add("ModelCheckpoint", monitor="search/val/teacher_l1", save_top_k=-1)
    main([*tiny.compression(tmp_path, unet), *facades, *late, *early])
    found = phases(tmp_path)
    best = found.pop("best.ckpt")
    assert best[1] == "finetune"
    assert {phase for _, phase in found.values()} == {"search"}
    assert {epoch for epoch, _ in found.values()} <= {0, 1}


class Names(Callback):
    """Notes which validation figures callbacks see at the end of each epoch."""

    seen: list[tuple[int, set[str]]]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        Names.seen = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        names = {name for name in trainer.callback_metrics if name.endswith("/l1")}
        Names.seen.append((trainer.current_epoch, names))


def test_each_phase_has_its_own_names(tmp_path, unet, facades):
    main([*tiny.compression(tmp_path, unet), *facades, *add(f"{__name__}.Names")])
    assert [sorted(names) for _, names in Names.seen] == [["search/val/l1"]] * 2 + [["val/l1"]] * 2


@pytest.mark.parametrize(
    ("kind", "monitor"), [("ModelCheckpoint", "val/l2"), ("EarlyStopping", "val/teacher_l1")]
)
def test_a_figure_that_the_validation_does_not_log(kind, monitor, tmp_path, unet, facades, capsys):
    args = [*tiny.teacher(tmp_path), *facades, *add(kind, monitor=monitor)]
    code, words = tiny.fail_code(capsys, args)
    assert code == 2
    assert f"{kind} monitors {monitor}, which the validation does not log" in words
    assert "choose one of val/l1, val/psnr, val/ssim." in words


def test_a_wrong_name_is_told_in_the_first_epoch_of_a_search(tmp_path, unet, facades, capsys):
    args = [*tiny.compression(tmp_path, unet), *facades, *add("EarlyStopping", monitor="val/l2")]
    code, words = tiny.fail_code(capsys, args)
    assert code == 2
    assert "choose one of val/l1, val/psnr, val/ssim, val/teacher_l1." in words
    assert tiny.read(tiny.last(tmp_path))["epoch"] == 0  # saved before the first validation


def test_a_monitor_without_a_validation_is_told_before_the_search(tmp_path, unet, facades, capsys):
    args = [*tiny.compression(tmp_path, unet), *facades, *add("EarlyStopping", monitor="val/l1")]
    code, words = tiny.fail_code(capsys, [*args, "--trainer.limit_val_batches=0"])
    assert code == 2
    assert "EarlyStopping monitors val/l1" in words


class Fails(Callback):
    trainer: Any

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        Fails.trainer = trainer
        raise RuntimeError("as it happens")


def test_after_an_exception_all_callbacks_are_there(tmp_path, unet, facades):
    monitors = add("EarlyStopping", monitor="val/l1")
    monitors += add("ModelCheckpoint", monitor="val/l1", save_on_exception=True)
    with pytest.raises(RuntimeError, match="as it happens"):
        main([*tiny.compression(tmp_path, unet), *facades, *monitors, *add(f"{__name__}.Fails")])
    for kind in (EarlyStopping, ModelCheckpoint):
        assert any(type(callback) is kind for callback in Fails.trainer.callbacks)
    assert [phase for _, phase in phases(tmp_path).values()] == ["search"]


def test_a_search_is_not_resumed_behind_its_end(tmp_path, unet, facades, capsys):
    """A checkpoint of the last batch is saved before the border, which a resumed run would miss."""
    every = add("ModelCheckpoint", every_n_train_steps=4, save_top_k=-1, filename="{epoch}")
    args = [*tiny.compression(tmp_path, unet), *facades]
    main([*args, *every, "--trainer.max_epochs=2"])
    path = max((tmp_path / "checkpoints").glob("epoch=1*"), key=lambda p: tiny.read(p)["global_step"])
    code, words = tiny.fail_code(capsys, [*args, f"--ckpt_path={path}"])
    assert code == 2
    assert f"{path} was saved between the last batch of the search and its end" in words
    assert "resume from last.ckpt" in words


def test_ranks_agree_on_the_best_and_on_the_average(tmp_path, unet, facades):
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp_fork", *add("tiny.RankHashes")]
    args = [*tiny.compression(tmp_path / "run", unet), *facades, *TOP, *STOP, *add("GeneratorEMA", decay=0.5)]
    run = tiny.Fork([*args, *add("BestCheckpoint"), *ranks], tmp_path / "log")
    assert run.wait(120) == 0, run.log.read_text()
    found = phases(tmp_path / "run")
    assert len(found) == 3
    assert {phase for _, phase in found.values()} == {"finetune"}
    content = tiny.read(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert content["averages"]["steps"] in (2, 4)
    (chosen,) = [s for key, s in content["callbacks"].items() if key.startswith("BestCheckpoint")]
    assert chosen["epoch"] == content["epoch"] + 1
