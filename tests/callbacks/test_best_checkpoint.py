"""`best.ckpt`: which epoch it is of, and what is made of it."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_gancompress import load_generator
from lightning_gancompress.callbacks import BestCheckpoint, LastCheckpoint
from lightning_gancompress.cli import main
from lightning_gancompress.trainer import Trainer

LOGGED = ["--trainer.logger=true"]
SOURCE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def best(folder: Path) -> Path:
    return folder / "checkpoints" / "best.ckpt"


def chosen(path: Path) -> dict[str, Any]:
    """What a checkpoint says of the best epoch."""
    states = tiny.read(path)["callbacks"]
    return next(state for key, state in states.items() if key.startswith("BestCheckpoint"))


def curve(folder: Path, name: str) -> list[float]:
    """The values of a logged figure."""
    with (folder / "logs" / "version_0" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def rising(figures: list[float]) -> list[str]:
    """Options of a run whose validations log `val/made`, one after the other."""
    return [f"--trainer.callbacks+={__name__}.Made", f"--trainer.callbacks.figures={figures}"]


class Made(Callback):
    """Logs figures that are given, by epoch."""

    def __init__(self, figures: list[float]) -> None:
        self.figures = figures

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("val/made", self.figures[trainer.current_epoch], sync_dist=True)


BY_MADE = ["--trainer.callbacks+=BestCheckpoint", "--trainer.callbacks.monitor=val/made"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, unet, facades):
    """The folder of a compression of which the third epoch, the first of two fine-tuned ones, is the best."""
    folder = tmp_path_factory.mktemp("run")
    made = rising([0.0, 0.0, 1.0, 2.0])
    main([*tiny.compression(folder, unet), *facades, *LOGGED, *made, *BY_MADE])
    return folder


def test_the_best_epoch_of_the_fine_tuning_is_kept(run):
    checkpoint = tiny.read(best(run))
    assert (checkpoint["epoch"], checkpoint["gancompress"]["phase"]) == (2, "finetune")
    assert chosen(best(run)) == {"name": "val/made", "figure": 1.0, "epoch": 3}
    assert chosen(tiny.last(run)) == chosen(best(run))


@pytest.mark.parametrize(("mode", "best_epoch"), [("min", 0), ("max", 1)])
def test_the_mode_says_which_end_is_the_best(mode, best_epoch, tmp_path, facades):
    chosen_by = [*BY_MADE, f"--trainer.callbacks.mode={mode}"]
    main([*tiny.teacher(tmp_path), *facades, *rising([1.0, 2.0]), *chosen_by])
    assert tiny.read(best(tmp_path))["epoch"] == best_epoch


def test_it_is_chosen_by_the_distance_to_the_targets(tmp_path, unet, facades, capsys):
    main([*tiny.compression(tmp_path, unet, "UniformWidth"), *facades, *LOGGED])
    figures = curve(tmp_path, "val/l1")
    assert chosen(best(tmp_path))["name"] == "val/l1"
    assert chosen(best(tmp_path))["figure"] == pytest.approx(min(figures))
    assert tiny.read(best(tmp_path))["epoch"] == figures.index(min(figures))


def test_without_pairs_by_the_distance_to_the_teacher(tmp_path, cyclegan, domains):
    args = [*tiny.compression(tmp_path, cyclegan, "UniformWidth"), *domains, *tiny.cyclegan(), *LOGGED]
    main(args)
    figures = [
        sum(pair) / 2
        for pair in zip(*(curve(tmp_path, f"val/{way}/teacher_l1") for way in ("AtoB", "BtoA")), strict=True)
    ]
    assert chosen(best(tmp_path))["figure"] == pytest.approx(min(figures))
    assert chosen(best(tmp_path))["name"] == "mean of val/AtoB/teacher_l1 and val/BtoA/teacher_l1"


@pytest.mark.parametrize("options", [["--trainer.limit_val_batches=0"], ["--trainer.fast_dev_run=true"]])
def test_without_a_validation_there_is_none(options, tmp_path, facades, capsys):
    main([*tiny.teacher(tmp_path), *facades, *options])
    assert not best(tmp_path).exists()
    assert "best" not in capsys.readouterr().out.lower()


def test_an_unpaired_teacher_has_none(cyclegan):
    assert [path.name for path in cyclegan.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_resumed_run_goes_on_with_the_best(epochs, run, tmp_path, unet, facades):
    args = [*tiny.compression(tmp_path, unet), *facades, *rising([0.0, 0.0, 1.0, 2.0]), *BY_MADE]
    main([*args, f"--trainer.max_epochs={epochs}"])
    main([*args, "--ckpt_path=last"])
    tiny.assert_equal(tiny.read(best(tmp_path))["state_dict"], tiny.read(best(run))["state_dict"])
    assert chosen(tiny.last(tmp_path)) == chosen(tiny.last(run))
    tiny.assert_same_end(tmp_path, run)


def test_a_run_goes_on_from_its_best_epoch(run, tmp_path, unet, facades):
    args = [*tiny.compression(tmp_path, unet), *facades, *rising([0.0, 0.0, 1.0, 2.0]), *BY_MADE]
    main([*args, f"--ckpt_path={best(run)}"])
    tiny.assert_same_end(tmp_path, run)


def test_a_file_of_an_epoch_that_is_trained_again_is_not_the_best(tmp_path, facades):
    args = [*tiny.teacher(tmp_path), *facades, *BY_MADE]
    main([*args, "--trainer.max_epochs=1", *rising([1.0])])
    first = tiny.last(tmp_path).read_bytes()
    main([*args, *rising([1.0, 0.0]), "--ckpt_path=last"])
    tiny.last(tmp_path).write_bytes(first)
    with pytest.warns(UserWarning, match=r"best.ckpt is not of epoch 1"):
        main([*args, *rising([1.0, 3.0]), f"--ckpt_path={tiny.last(tmp_path)}"])
    assert chosen(best(tmp_path))["figure"] == 3.0


def test_validations_within_an_epoch(tmp_path, facades):
    class_ = f"{__name__}.Falling"
    args = [*tiny.teacher(tmp_path / "a"), *facades, "--trainer.val_check_interval=2", *BY_MADE]
    main([*args, f"--trainer.callbacks+={class_}"])
    batches = tiny.read(best(tmp_path / "a"))["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert batches["completed"] == 2  # the first of four validations


class Falling(Callback):
    """Logs a figure that gets worse with every validation."""

    def __init__(self) -> None:
        self.count = 0

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("val/made", float(self.count))
        self.count += not trainer.sanity_checking


# -- what is made of it ----------------------------------------------------------------------------------


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_results_say_which_checkpoint_they_are_of_and_do_not_mix(run, facades):
    args = ["test", *tiny.compression(run, Path("none"))[1:], *facades]
    for name in ("best", "last", str(best(run))):
        main([*args, f"--ckpt_path={name}"])
    assert results(run / "test_best")["checkpoint"] == {"file": "best.ckpt", "epochs": 3}
    assert results(run / "test")["checkpoint"] == {"file": "last.ckpt", "epochs": 4}
    assert "Weights: best.ckpt, after 3 epochs." in (run / "test_best" / "table.md").read_text()
    assert (run / "test_best" / "grid.png").is_file()
    assert "last.ckpt, after 4 epochs" in (run / "report.html").read_text()
    assert "best.ckpt, after" not in (run / "report.html").read_text()


def test_pictures_of_the_best_have_a_folder_of_their_own(run, facades):
    args = [*tiny.compression(run, Path("none"))[1:], *facades, "--ckpt_path=best"]
    sources = Path(facades[1].partition("=")[2])
    picture = next(sources.rglob("*.jpg"), None) or next(sources.rglob("*.png"))
    main(["predict", *args, f"--data.predict_folder={picture.parent}"])
    main(["validate", *args])
    assert list((run / "predictions_best").rglob("*.png"))
    assert (run / "validate_best" / "grid.png").is_file()
    assert not (run / "predictions").exists()


@pytest.mark.parametrize("val_split", ["val", "train"])
def test_images_of_the_test_choose_no_epoch(val_split, tmp_path, unet, facades):  # whose data are drawn
    data = tmp_path / "data"
    shutil.copytree(facades[1].partition("=")[2], data)
    shutil.rmtree(data / "val")
    sizes = ["load_size=32", "crop_size=32", "batch_size=8", "num_workers=0"]
    options = [f"--data.{option}" for option in [f"root={data}", f"val_split={val_split}", *sizes]]
    args = [*tiny.teacher(tmp_path / "run"), "--data=PairedDataModule", *options]
    if val_split == "train":
        main(args)
    else:
        with pytest.warns(UserWarning, match=r"reads the images of the test: set data\.val_split"):
            main(args)
    assert best(tmp_path / "run").is_file() == (val_split == "train")


def test_the_small_model_is_the_last_and_the_best_can_be_exported(run):
    small, last = load_generator(run / "generator.pth"), load_generator(tiny.last(run))
    assert torch.equal(small(SOURCE), last(SOURCE))
    main(["export", f"--ckpt_path={best(run)}", "--format=torch"])
    program = torch.export.load(best(run).with_suffix(".pt2")).module()
    torch.testing.assert_close(program(SOURCE), load_generator(best(run))(SOURCE), atol=1e-5, rtol=0)
    assert not torch.allclose(program(SOURCE), last(SOURCE), atol=1e-4)


def test_best_is_one_sentence_where_there_is_none(tmp_path, unet, facades, capsys):
    args = ["test", *tiny.compression(tmp_path, unet)[1:], *facades, "--ckpt_path=best"]
    code, words = tiny.fail_code(capsys, args)
    assert code == 2
    assert f"There is no {best(tmp_path)}: give the file to --ckpt_path" in words


@pytest.mark.parametrize(
    "others", [[], [ModelCheckpoint(monitor="search/x")], [ModelCheckpoint(), LastCheckpoint()]]
)
def test_lightnings_word(others, run):
    trainer = Trainer(default_root_dir=run, callbacks=others, logger=False, enable_progress_bar=False)
    assert trainer.checkpoint_callback.best_model_path == str(best(run))


def test_who_chooses_epochs_owns_the_word(tmp_path):
    own = ModelCheckpoint(monitor="val/ssim", mode="max")
    trainer = Trainer(
        default_root_dir=tmp_path, callbacks=[ModelCheckpoint(), LastCheckpoint(), own], logger=False
    )
    assert trainer.checkpoint_callback is own
    assert not any(isinstance(callback, BestCheckpoint) for callback in trainer.callbacks)
    assert isinstance(trainer.callbacks[-1], LastCheckpoint)
