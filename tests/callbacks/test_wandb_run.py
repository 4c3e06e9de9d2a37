"""Runs whose loggers are W&B, TensorBoard and CSV, all offline."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import wandb_files
from PIL import Image

from lightning_gancompress.callbacks.wandb_run import folder_of_sweep_run
from lightning_gancompress.cli import main
from lightning_gancompress.trainer import Trainer, with_csv

LOGGERS = ["--config=log_wandb.yaml", "--trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        wandb_files.offline(patch)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, unet: Path, facades: list[str]) -> Path:
    """A compression whose small network and checkpoints are artifacts, and its test."""
    folder = tmp_path_factory.mktemp("wandb") / "run"
    board = ["--trainer.logger+=TensorBoardLogger", f"--trainer.logger.save_dir={folder / 'board'}"]
    args = [*tiny.compression(folder, unet, "UniformWidth"), *facades, *LOGGERS]
    main([*args, "--trainer.logger.log_model=true", *board])
    first = wandb_files.run_ids(folder)
    test = ["test", f"--ckpt_path={tiny.last(folder)}", *board, "--trainer.callbacks=Evaluation"]
    main([*test, "--trainer.callbacks.latency=false"])
    assert wandb_files.run_ids(folder) == first  # the test belongs to the run
    return folder


def test_a_run_has_its_files_in_its_folder(run: Path) -> None:
    assert (run / "wandb" / "run_id").read_text().split() == list(wandb_files.run_ids(run))
    assert len(list(run.glob("wandb/offline-run-*"))) == 2
    assert not Path("wandb").exists()


def test_curves_pictures_and_tables(run: Path) -> None:
    names = wandb_files.logged(run)
    assert {"val/teacher_l1", "train/generator_gan", "test/teacher_l1"} <= names
    assert {"val/images/filenames", "test/images/filenames", "test/table/path"} <= names
    assert {"channels/generator/path", "channels/discriminator/path"} <= names
    steps = [e["trainer/global_step"] for e in wandb_files.history(run) if "val/images/count" in e]
    assert steps == [4, 8]  # batches, as the curves have it


def tables(run: Path, name: str) -> list[dict[str, Any]]:
    found = sorted(run.glob(f"wandb/offline-run-*/files/media/table/{name}_*.json"))
    return [json.loads(path.read_text()) for path in found]


def test_the_architecture_is_told_once(run: Path) -> None:
    (table,) = tables(run, "channels/generator")
    assert table["columns"] == ["layer", "student", "teacher"]
    layers = json.loads((run / "generator.json").read_text())
    assert all(small <= whole for _, small, whole in table["data"])
    assert any(small < whole for _, small, whole in table["data"])
    assert table["data"][-1][1:] == [3, 3]
    assert layers


def test_the_table_of_the_test_is_that_of_the_results(run: Path) -> None:
    (table,) = tables(run, "test/table")
    results = json.loads((run / "test" / "results.json").read_text())
    assert [row[0] for row in table["data"]] == ["teacher", "student"]
    for row in table["data"]:
        measured = dict(zip(table["columns"], row, strict=True))
        assert measured["l1"] == pytest.approx(results["networks"][row[0]]["l1"])
        assert measured["macs_exact"] == results["networks"][row[0]]["macs_exact"]


def test_checkpoints_and_small_networks_are_artifacts_when_asked(run: Path) -> None:
    (number,) = wandb_files.run_ids(run)
    found = wandb_files.artifacts(run)
    assert found[f"small-model generator-{number}"] == {p.name for p in run.glob("generator.*")}
    assert found[f"model model-{number}"] == {"model.ckpt"}


def test_the_report_has_its_curves(run: Path) -> None:
    assert (run / "logs" / "version_0" / "metrics.csv").is_file()
    assert "val/teacher_l1" in (run / "report.html").read_text()


def events(folder: Path) -> Iterator[Any]:
    """Values in TensorBoard's files: records of a length, its checksum, the content and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for file in folder.rglob("events.out.tfevents.*"):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            yield from Event.FromString(data[place + 12 : place + 12 + length]).summary.value
            place += 16 + length


def test_tensorboard_gets_the_same(run: Path) -> None:
    found = {value.tag: value for value in events(run / "board")}
    assert {"val/teacher_l1", "train/generator_gan", "test/teacher_l1"} <= found.keys()
    width, height = Image.open(run / "test" / "grid.png").size
    assert (found["test/images"].image.width, found["test/images"].image.height) == (width, height)
    table = found["channels/generator/text_summary"].tensor.string_val[0].decode()
    assert table.startswith("| layer | student | teacher |\n| --- | --- | --- |\n| model")
    assert "| student |" in found["test/table/text_summary"].tensor.string_val[0].decode()


def test_a_resumed_run_is_the_same_and_a_new_one_another(
    tmp_path: Path, unet: Path, facades: list[str]
) -> None:
    args = [*tiny.compression(tmp_path, unet, "UniformWidth"), *facades, *LOGGERS]
    main([*args, "--trainer.max_epochs=1", "--ckpt_path=last"])  # there is none yet
    (first,) = wandb_files.run_ids(tmp_path)
    main([*args, "--ckpt_path=last"])
    assert wandb_files.run_ids(tmp_path) == {first}
    main([*args, "--trainer.max_epochs=1"])
    assert len(wandb_files.run_ids(tmp_path)) == 2
    assert (tmp_path / "previous-1" / "generator.pth").is_file()
    assert (tmp_path / "wandb" / "run_id").read_text().strip() != first
    assert wandb_files.artifacts(tmp_path).keys() == {
        n for n in wandb_files.artifacts(tmp_path) if n.startswith("run_table")
    }


def test_an_agent_gives_each_run_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_of_sweep_run(tmp_path) == tmp_path
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    assert folder_of_sweep_run(tmp_path) == tmp_path  # a run that was resumed by hand
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert folder_of_sweep_run(tmp_path) == tmp_path / "abc"
    assert folder_of_sweep_run(tmp_path / "abc") == tmp_path / "abc"
    trainer = Trainer(default_root_dir=tmp_path, logger=False)  # in a program that the agent calls
    assert Path(trainer.default_root_dir) == tmp_path / "abc"


def test_a_folder_that_the_logger_names_is_kept(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import WandbLogger

    own = WandbLogger(save_dir=str(tmp_path / "own"))
    Trainer(default_root_dir=tmp_path / "run", logger=own)
    assert own.save_dir == str(tmp_path / "own")
    other = WandbLogger()
    Trainer(default_root_dir=tmp_path / "run", logger=[other])
    assert other.save_dir == str(tmp_path / "run")
    assert not (tmp_path / "run").exists()  # until it begins


def test_csv_is_kept_beside_other_loggers(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    other, csv = TensorBoardLogger(tmp_path), CSVLogger(tmp_path)
    assert [type(one) for one in with_csv(other, tmp_path)] == [TensorBoardLogger, CSVLogger]
    assert with_csv([csv, other], tmp_path) == [csv, other]
    assert [type(one) for one in with_csv(None, tmp_path)] == [CSVLogger]
    assert with_csv(False, tmp_path) == []


def test_without_the_package_there_is_one_sentence(
    tmp_path: Path,
    unet: Path,
    facades: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lightning_utilities.core.imports import RequirementCache

    missing = RequirementCache("wandb>=999")
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", missing)
    args = [*tiny.compression(tmp_path / "run", unet, "UniformWidth"), *facades]
    code, words = tiny.fail_code(capsys, [*args, "--trainer.logger=WandbLogger"])
    assert code == 2
    assert words.count("\n") == 1
    assert "wandb" in words
    assert "pip install" in words
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, unet: Path, facades: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    args = [*tiny.compression(tmp_path / "file" / "run", unet, "UniformWidth"), *facades]
    code, words = tiny.fail_code(capsys, [*args, "--trainer.logger=WandbLogger"])
    assert code == 2
    assert words.count("\n") == 1
    assert "trainer.default_root_dir" in words
