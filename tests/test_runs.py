"""Whole runs through the command line: what stops them, what goes on from their checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

import lightning_gancompress
from lightning_gancompress import load_generator
from lightning_gancompress.callbacks import ImageGrid, LastCheckpoint
from lightning_gancompress.checkpoints import load_networks
from lightning_gancompress.cli import main

SOURCE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, facades: list[str], unet: Path) -> dict[str, Path]:
    """A checkpoint of each phase; the teacher's file that they name is gone."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(unet.parent.parent, folder / "teacher")
    gone = folder / "gone.ckpt"
    shutil.copy(unet, gone)
    for phase, epochs in (("search", 1), ("finetune", 3)):
        args = tiny.compression(folder / phase, gone)
        main([*args, *facades, f"--trainer.max_epochs={epochs}"])
    gone.unlink()
    return {phase: tiny.last(folder / phase) for phase in ("teacher", "search", "finetune")}


PHASES = pytest.mark.parametrize("phase", ["teacher", "search", "finetune"])
NO_POLICY = ["--trainer.callbacks=Evaluation", "--trainer.callbacks.latency=false"]


# -- after the training --------------------------------------------------------------------------------------


@PHASES
def test_checkpoints_describe_themselves(phase: str, runs: dict[str, Path]) -> None:
    header = tiny.read(runs[phase])["gancompress"]
    assert (header["version"], header["phase"]) == (1, phase)
    assert header["preprocessing"]["crop_size"] == 32
    roles = {"networks"} if phase == "teacher" else {"teacher", "student"}
    assert header["networks"].keys() == {f"{r}.{n}" for r in roles for n in ("generator", "discriminator")}


@PHASES
def test_test(phase: str, runs: dict[str, Path], tmp_path: Path) -> None:
    main(["test", f"--ckpt_path={runs[phase]}", f"--trainer.default_root_dir={tmp_path}", *NO_POLICY])
    results = json.loads((tmp_path / "test" / "results.json").read_text())
    assert results["phase"] == phase
    assert results["images"] == 4
    networks = {"generator"} if phase == "teacher" else {"teacher", "student"}
    assert results["networks"].keys() == networks
    with Image.open(tmp_path / "test" / "grid.png") as grid:
        assert grid.width >= (2 + len(networks)) * 32


@PHASES
def test_predict(phase: str, runs: dict[str, Path], tmp_path: Path, facades: list[str]) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)).save(sources / "one.png")
    line = ["predict", f"--ckpt_path={runs[phase]}", f"--data.predict_folder={sources}"]
    main([*line, f"--trainer.default_root_dir={tmp_path}", *NO_POLICY])
    with Image.open(tmp_path / "predictions" / "one.png") as picture:
        found = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    with Image.open(sources / "one.png") as source:
        image = torch.from_numpy(np.array(source)).permute(2, 0, 1) / 127.5 - 1
    with torch.no_grad():
        expected = load_generator(runs[phase])(image.unsqueeze(0))[0]
    assert float((found / 127.5 - 1 - expected).abs().max()) < 1.01 / 127.5


@PHASES
def test_profile(phase: str, runs: dict[str, Path], tmp_path: Path) -> None:
    main(["profile", f"--ckpt_path={runs[phase]}", f"--json={tmp_path / 'costs.json'}"])
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert costs.keys() == ({"teacher"} if phase == "teacher" else {"teacher", "student"})
    assert costs["teacher"]["macs_exact"] == 1_605_632
    if phase == "finetune":
        assert costs["student"]["macs_exact"] <= 0.3 * costs["teacher"]["macs_exact"]


@PHASES
def test_export(phase: str, runs: dict[str, Path], tmp_path: Path) -> None:
    main(["export", f"--ckpt_path={runs[phase]}", "--format=torch", f"--output={tmp_path / 'net.pt2'}"])
    program = torch.export.load(tmp_path / "net.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(
            program(SOURCE[:1]), load_generator(runs[phase])(SOURCE[:1]), atol=1e-5, rtol=0
        )


@PHASES
def test_load_generator(phase: str, runs: dict[str, Path]) -> None:
    network = load_generator(runs[phase])
    assert not any(module.training for module in network.modules())
    pictures = network(SOURCE)
    assert pictures.shape == SOURCE.shape
    assert float(pictures.abs().max()) <= 1
    if phase != "teacher":
        teacher = load_generator(runs["teacher"])
        again = load_generator(runs[phase], network="teacher.generator")
        assert torch.equal(teacher(SOURCE), again(SOURCE))


def test_the_small_generator_is_the_student(runs: dict[str, Path]) -> None:
    folder = runs["finetune"].parent.parent
    small = load_generator(folder / "generator.pth")
    torch.testing.assert_close(small(SOURCE), load_generator(runs["finetune"])(SOURCE), atol=1e-6, rtol=0)
    description = json.loads((folder / "generator.json").read_text())
    assert description["provenance"]["policy"] == "CollaborativePruning"
    assert description["preprocessing"]["crop_size"] == 32
    assert not (runs["search"].parent.parent / "generator.pth").exists()


@pytest.mark.parametrize("batch_norm", ["running", "image"])
def test_an_upstream_teacher(batch_norm: str, tmp_path: Path, unet: Path, facades: list[str]) -> None:
    for role, name in (("generator", "latest_net_G.pth"), ("discriminator", "latest_net_D.pth")):
        torch.save(load_networks(unet)[f"networks.{role}"][0].state_dict(), tmp_path / name)
    upstream = tmp_path / "latest_net_G.pth"
    args = tiny.compression(tmp_path / "run", upstream, "UniformWidth", f"--model.batch_norm={batch_norm}")
    main([*args, *facades, "--trainer.max_epochs=1"])
    teacher = load_generator(tiny.last(tmp_path / "run"), network="teacher.generator")
    assert torch.equal(teacher(SOURCE), load_generator(upstream, batch_norm=batch_norm)(SOURCE))


def test_a_network_of_the_users_own(tmp_path: Path, facades: list[str]) -> None:
    main([*tiny.teacher(tmp_path / "teacher", ["tiny.Own", "width=8"]), *facades])
    main([*tiny.compression(tmp_path / "small", tiny.last(tmp_path / "teacher")), *facades])
    small = load_generator(tmp_path / "small" / "generator.pth")
    assert isinstance(small, tiny.Own)
    assert small.head.out_channels < 8
    torch.testing.assert_close(small(SOURCE), load_generator(tiny.last(tmp_path / "small"))(SOURCE))


# -- stopping and going on -----------------------------------------------------------------------------------


def test_a_shorter_run_goes_on_later(tmp_path: Path, unet: Path, facades: list[str]) -> None:
    whole = tiny.compression(tmp_path / "whole", unet)
    main([*whole, *facades])
    args = tiny.compression(tmp_path / "run", unet)
    main([*args, *facades, "--trainer.max_epochs=1"])
    assert tiny.read(tiny.last(tmp_path / "run"))["gancompress"]["phase"] == "search"
    for epochs in (3, -1):
        main(
            [*args, *facades, f"--trainer.max_epochs={epochs}", f"--ckpt_path={tiny.last(tmp_path / 'run')}"]
        )
        assert tiny.read(tiny.last(tmp_path / "run"))["epoch"] == epochs % 5 - 1
    tiny.assert_same_end(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("kind", "phase"), [("teacher", "teacher"), ("search", "search"), ("finetune", "finetune")]
)
@pytest.mark.parametrize("options", [[], tiny.EVERY_STEP], ids=["epochs", "steps"])
def test_a_nan_loss_keeps_the_last_good_checkpoint(
    kind: str,
    phase: str,
    options: list[str],
    tmp_path: Path,
    unet: Path,
    facades: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy = "UniformWidth" if kind == "finetune" else "CollaborativePruning"
    args = tiny.teacher(tmp_path) if kind == "teacher" else tiny.compression(tmp_path, unet, policy)
    broken = ["--data=tiny.BrokenFacades", *facades[1:]]
    code, words = tiny.fail_code(capsys, [*args, *options, *broken])
    assert code == 2
    assert words.rstrip().endswith("or precision 32-true.")
    assert "became NaN or infinite in epoch 1" in words
    checkpoint = tiny.read(tiny.last(tmp_path))
    assert (checkpoint["epoch"], checkpoint["gancompress"]["phase"]) == (0, phase)
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())
    main([*args, *facades, f"--ckpt_path={tiny.last(tmp_path)}"])
    assert tiny.read(tiny.last(tmp_path))["epoch"] == (1 if kind != "search" else 3)


def test_a_resumed_run_takes_another_learning_rate(
    tmp_path: Path, unet: Path, facades: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*tiny.compression(tmp_path, unet, "UniformWidth"), *facades]
    main([*args, "--trainer.max_epochs=1"])
    path = tiny.last(tmp_path)
    before = path.read_bytes()
    broken = [arg.replace("SyntheticFacades", "tiny.BrokenFacades") for arg in args]
    code, words = tiny.fail_code(capsys, [*broken, f"--ckpt_path={path}"])
    assert code == 2
    assert "NaN or infinite" in words
    assert path.read_bytes() == before
    first = tiny.read(path)["state_dict"]
    main([*args, "--model.lr=1e-30", f"--ckpt_path={path}"])
    last = tiny.read(path)
    assert last["epoch"] == 1
    weights = [key for key in first if key.endswith(("weight", "bias"))]
    assert all(torch.equal(first[key], last["state_dict"][key]) for key in weights)


def test_ctrl_c_leaves_a_checkpoint_that_resumes(tmp_path: Path, unet: Path, facades: list[str]) -> None:
    args = [*tiny.compression(tmp_path / "run", unet), "--model.epochs=500", *facades]
    run = tiny.Fork(args, tmp_path / "log")
    path = tiny.last(tmp_path / "run")
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(run.process.pid, signal.SIGINT)
    assert run.wait() == 130, run.log.read_text()
    epoch = tiny.read(path)["epoch"]
    main([*args, f"--trainer.max_epochs={epoch + 2}", f"--ckpt_path={path}"])
    assert tiny.read(path)["epoch"] == epoch + 1


def test_a_teacher_is_no_checkpoint_of_a_compression(
    tmp_path: Path, unet: Path, facades: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = tiny.compression(tmp_path, unet)
    code, words = tiny.fail_code(capsys, [*args, *facades, f"--ckpt_path={unet}"])
    assert code == 2
    assert "is a checkpoint of lightning_gancompress.modules.TeacherModule" in words
    assert not tiny.last(tmp_path).exists()


def test_another_architecture_than_the_checkpoint(
    tmp_path: Path, unet: Path, facades: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = tiny.teacher(tmp_path, ["UnetGenerator", "ngf=4", "n_downs=5"])
    code, words = tiny.fail_code(capsys, [*args, *facades, f"--ckpt_path={unet}"])
    assert code == 2
    assert "networks.generator.model.model.0.weight is (8, 3, 4, 4) instead of (4, 3, 4, 4)" in words


def test_another_policy_than_the_search(
    tmp_path: Path, runs: dict[str, Path], facades: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = tiny.compression(tmp_path, runs["teacher"], "UniformWidth")
    code, words = tiny.fail_code(capsys, [*args, *facades, f"--ckpt_path={runs['search']}"])
    assert code == 2
    assert "resume with the policy that began it" in words


def test_without_the_teacher(tmp_path: Path, facades: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, words = tiny.fail_code(capsys, [*tiny.compression(tmp_path, tmp_path / "no.ckpt"), *facades])
    assert code == 2
    assert f"There is no file {tmp_path / 'no.ckpt'}" in words


@pytest.mark.parametrize("seed", [0, 4_294_967_295])
def test_any_seed_will_do(seed: int, tmp_path: Path, unet: Path, facades: list[str]) -> None:
    main([*tiny.compression(tmp_path, unet), *facades, f"--seed_everything={seed}", "--trainer.max_epochs=3"])
    assert tiny.read(tiny.last(tmp_path))["epoch"] == 2


# -- speed ---------------------------------------------------------------------------------------------------


class Reads(TorchDispatchMode):
    """Notes where this package reads a number off a tensor, which waits for the device, while `on`."""

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.on and func is torch.ops.aten._local_scalar_dense.default:
            frames = [
                f for f in traceback.extract_stack() if "/torch/" not in f.filename and f.filename != __file__
            ]
            if Path(frames[-1].filename).is_relative_to(Path(lightning_gancompress.__file__).parent):
                self.places.append(f"{frames[-1].filename}:{frames[-1].lineno}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["teacher", "compression", "cyclegan"])
def test_no_step_waits_for_the_device(
    kind: str,
    tmp_path: Path,
    unet: Path,
    facades: list[str],
    cyclegan: Path,
    domains: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = []
    with Reads() as reads:

        def start(self: Any, trainer: Any, *args: Any) -> None:
            steps.append(trainer.current_epoch)
            reads.on = True

        def stop(self: Any, *args: Any) -> None:
            assert reads.on or not steps
            reads.on = False

        # from the first step of an epoch to the save before the validation at its end
        monkeypatch.setattr(ImageGrid, "on_train_batch_start", start)
        monkeypatch.setattr(LastCheckpoint, "before_validation", stop)
        if kind == "cyclegan":
            main([*tiny.compression(tmp_path, cyclegan), *tiny.cyclegan(), *domains])
        else:
            args = tiny.teacher(tmp_path) if kind == "teacher" else tiny.compression(tmp_path, unet)
            main([*args, *facades])
    assert len(steps) == (8 if kind == "teacher" else 16)
    # the pools draw their numbers on the CPU
    assert [place for place in reads.places if "image_pool.py" not in place] == []
