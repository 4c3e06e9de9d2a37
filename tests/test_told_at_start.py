"""What a later stage would fail of is told before a search begins."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from lightning_gancompress.search.teacher_images import TeacherImages

POLICY = "--trainer.callbacks"
EVALUATION = "--trainer.callbacks+=Evaluation"
SEGMENTATION = [
    "--trainer.callbacks+=SegmentationScore",
    "--trainer.callbacks.network=SmallUnet",
    "--trainer.callbacks.network.classes=19",
]
CASES = {
    "fine-tuning": (["--data.batch_size=33"], "33 on each of 1 process(es): lower batch_size or add images"),
    "search": (["--data.search_batch_size=36"], "lower search_batch_size or add images"),
    "members": ([f"{POLICY}.members=3"], "search_batch_size is 8, not a multiple of the 3 members"),
    "neighbours": ([f"{POLICY}.neighbours=32"], "k=32 needs more than 32 images, there are 32"),
    "cache": ([f"{POLICY}.cache_dir=FILE"], "FILE can't be written to (File exists): mend that, or choose"),
    "budget": (["--model.budget=2000"], "generator budget: 2e-06 GMACs can't be reached"),
    "other budget": (["--model.discriminator_budget=2000"], "discriminator budget: 2e-06 GMACs can't be"),
    "kept whole": (
        ["--model.budget=0.05", "--model.ignored_layers=[model.model.1.model.3*]"],
        "GMACs can't be reached; the smallest network with min_channels=1",
    ),
    "teacher": (["--model.teacher=gone.ckpt"], "model.teacher: There is no file gone.ckpt"),
    "fid": ([EVALUATION, f"{POLICY}.fid_feature=768", f"{POLICY}.fid_weights=gone.pth"], "no file gone.pth"),
    "lpips": ([EVALUATION, f"{POLICY}.lpips_weights=FILE"], "FILE is truncated or was not written by"),
    "segmentation": ([*SEGMENTATION, f"{POLICY}.weights=gone.pth"], "There is no file gone.pth"),
    "backbone": (
        ["--model.distillation.style=1", "--model.distillation.backbone=gone.pth"],
        "There is no file gone.pth",
    ),
    "encoder": (
        [
            f"{POLICY}.encoder=BackboneEncoder",
            f"{POLICY}.encoder.name=resnet18",
            f"{POLICY}.encoder.weights=x",
        ],
        "There is no file x",
    ),
    "device": ([EVALUATION, f"{POLICY}.latency_device=gpu"], "latency_device of Evaluation is 'gpu': give"),
}


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher translates no image, which is what takes long."""

    def fail(*args: Any) -> None:
        raise AssertionError("the search has begun")

    monkeypatch.setattr(TeacherImages, "of", fail)


@pytest.mark.parametrize("name", CASES)
def test_what_a_later_stage_needs_is_checked_first(
    name: str,
    tmp_path: Path,
    unet: Path,
    facades: list[str],
    capsys: pytest.CaptureFixture[str],
    untouched: None,
) -> None:
    options, words = CASES[name]
    file = tmp_path / "file"
    file.write_text("not a folder")
    given = [option.replace("FILE", str(file)) for option in options]
    ours = [arg for arg in tiny.compression(tmp_path / "run", unet) if "cache_dir" not in arg]
    code, said = tiny.fail_code(capsys, [*ours, *facades, *given])
    assert (code, words.replace("FILE", str(file)) in said) == (2, True), said
    assert said.count("\n") == 1
    assert list(tmp_path.glob("run/checkpoints/*")) == []


def test_a_package_that_a_test_needs_is_missed_before_the_search(
    tmp_path: Path,
    unet: Path,
    facades: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    untouched: None,
) -> None:
    find = importlib.util.find_spec
    missing = "onnxruntime"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    args = [*tiny.compression(tmp_path, unet), *facades, EVALUATION, f"{POLICY}.latency_runtimes=[onnx]"]
    code, said = tiny.fail_code(capsys, args)
    assert (code, "latency_runtimes: onnx needs onnxruntime: run `pip install onnxruntime`" in said) == (
        2,
        True,
    ), said


def test_a_disk_without_space_for_a_checkpoint_is_told(
    tmp_path: Path,
    unet: Path,
    facades: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10**5))
    code, said = tiny.fail_code(capsys, [*tiny.compression(tmp_path, unet, "UniformWidth"), *facades])
    assert code == 2
    assert "MB or more, and the disk of" in said
    assert "has 0.1 MB left: free some space, or choose another trainer.default_root_dir." in said


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["export", "--output=FILE/small.onnx"], "FILE can't be written to (File exists): mend that, or"),
        (["profile", "--json=FILE/costs.json"], "FILE can't be written to"),
        (["predict", "--data.predict_folder=FOLDER"], "predictions can't be written to"),
    ],
)
def test_what_is_written_is_checked_before_it_is_made(
    command: list[str],
    words: str,
    tmp_path: Path,
    unet: Path,
    facades: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for file in (tmp_path / "file", tmp_path / "predictions"):
        file.write_text("not a folder")
    monkeypatch.setattr(torch.nn.Module, "__call__", lambda *args: pytest.fail("a network was run"))
    pictures = f"{facades[1].removeprefix('--data.root=')}/test"
    given = [c.replace("FILE", str(tmp_path / "file")).replace("FOLDER", pictures) for c in command]
    given += [f"--ckpt_path={unet}"]
    if command[0] == "predict":
        given += [*facades, f"--trainer.default_root_dir={tmp_path}", *tiny.QUICK]
    code, said = tiny.fail_code(capsys, given)
    assert (code, words.replace("FILE", str(tmp_path / "file")) in said) == (2, True), said
