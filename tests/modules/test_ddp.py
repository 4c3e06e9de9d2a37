"""Two and three processes hold the same after every step, through the border and on resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.utils.data import TensorDataset

from lightning_gancompress import compress
from lightning_gancompress.checkpoints import load_network
from lightning_gancompress.pruning import count_macs
from lightning_gancompress.search import UniformWidth

# forked, which saves importing everything twice for every test; the command itself starts processes anew
FORKED = ["--trainer.devices=2", "--trainer.strategy=ddp_fork", "--trainer.callbacks+=tiny.RankHashes"]
SEARCH = ["search epoch", "search step", "search step"]
FINETUNE = ["finetune epoch", "finetune step", "finetune step"]


def assert_ranks_agree(folder: Path, expected: list[str]) -> None:
    """All ranks held the same after every step, and something else than the step before."""
    found = json.loads((folder / "hashes.json").read_text())
    assert [when for when, _ in found] == expected
    for when, (one, *others) in found:
        for other in others:
            assert [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)] == [], (
                when
            )
        assert ("table" in one) == when.startswith("search") or when == "end"
    steps = [str(one) for when, (one, *_) in found if when.endswith("step")]
    assert len(set(steps)) == len(steps)


def assert_within_budget(folder: Path, teacher: Path) -> None:
    for role, budget in (("generator", 0.3), ("discriminator", 0.5)):
        whole, small = (load_network(path, role)[0] for path in (teacher, tiny.last(folder)))
        sample = tiny.sample(whole)
        assert 0.97 * budget < count_macs(small, [sample]) / count_macs(whole, [sample]) <= budget


def fork(args: list[str], log: Path) -> int:
    code = tiny.Fork(args, log).wait()
    print(log.read_text())
    return code


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_through_the_border(precision: str, tmp_path: Path, unet: Path, facades: list[str]) -> None:
    args = [
        *tiny.compression(tmp_path / "whole", unet),
        *facades,
        *FORKED,
        f"--trainer.precision={precision}",
    ]
    assert fork(args, tmp_path / "log") == 0
    assert_ranks_agree(tmp_path / "whole", [*SEARCH, *SEARCH, *FINETUNE, *FINETUNE, "end"])
    assert_within_budget(tmp_path / "whole", unet)


def test_weights_of_search_and_distillation(tmp_path: Path, unet: Path, facades: list[str]) -> None:
    args = [
        *tiny.compression(tmp_path / "whole", unet),
        "--model.distillation=Distillation",
        "--model.distillation.features=1",
        "--model.distillation.critic=1",
        "--model.discriminator_every=2",
    ]
    assert fork([*args, *facades, *FORKED], tmp_path / "log") == 0
    assert_ranks_agree(tmp_path / "whole", [*SEARCH, *SEARCH, *FINETUNE, *FINETUNE, "end"])


@pytest.mark.parametrize("fresh", ["agents", "UniformWidth"])
def test_students_from_scratch_are_equal(fresh: str, tmp_path: Path, unet: Path, facades: list[str]) -> None:
    policy = "CollaborativePruning" if fresh == "agents" else fresh
    args = [*tiny.compression(tmp_path / "run", unet, policy), "--model.student_weights=fresh"]
    assert fork([*args, *facades, *FORKED], tmp_path / "log") == 0
    found = json.loads((tmp_path / "run" / "hashes.json").read_text())
    assert all(one == other for _, (one, other) in found)


@pytest.mark.parametrize("task", ["pix2pix", "cyclegan"])
def test_teacher(task: str, tmp_path: Path, facades: list[str], domains: list[str]) -> None:
    args = [*tiny.teacher(tmp_path / "run", tiny.RESNET), *facades]
    if task == "cyclegan":
        args = [*tiny.cyclegan_teacher(tmp_path / "run"), *domains]
    assert fork([*args, *FORKED], tmp_path / "log") == 0
    found = json.loads((tmp_path / "run" / "hashes.json").read_text())
    assert len(found) == 7
    assert all(one == other for _, (one, other) in found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, facades: list[str], unet: Path) -> Path:
    """A run of two ranks that nobody stopped."""
    folder = tmp_path_factory.mktemp("ddp") / "whole"
    assert fork([*tiny.compression(folder, unet), *facades, *FORKED], folder.parent / "log") == 0
    return folder


@pytest.mark.parametrize(
    ("epoch", "batch", "left"),
    [
        (1, 1, ["search step", *FINETUNE, *FINETUNE]),
        (2, 0, [*FINETUNE, *FINETUNE]),
        (3, 1, ["finetune step"]),
    ],
)
def test_resume(
    epoch: int, batch: int, left: list[str], tmp_path: Path, unet: Path, facades: list[str], whole: Path
) -> None:
    args = [*tiny.compression(tmp_path / "run", unet), *facades, *FORKED, *tiny.EVERY_STEP]
    assert fork([*args, *tiny.kill(epoch, batch)], tmp_path / "killed") != 0
    resumed = [*args, f"--ckpt_path={tiny.last(tmp_path / 'run')}"]
    assert fork(resumed, tmp_path / "log") == 0
    assert_ranks_agree(tmp_path / "run", [*left, "end"])
    tiny.assert_same_end(tmp_path / "run", whole)


# -- both directions: image pools, and neighbourhoods of each ------------------------------------------------


def cyclegan_arguments(folder: Path, teacher: Path, domains: list[str]) -> list[str]:
    """With averages, and windows of an epoch's two batches, within which a run is killed."""
    more = ["--model.accumulate_grad_batches=3", "--trainer.callbacks+=GeneratorEMA"]
    return [*tiny.compression(folder, teacher), *tiny.cyclegan(), *domains, *FORKED, *more]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, domains: list[str], cyclegan: Path) -> Path:
    """A run of two ranks that nobody stopped."""
    folder = tmp_path_factory.mktemp("ddp") / "both"
    assert fork(cyclegan_arguments(folder, cyclegan, domains), folder.parent / "log") == 0
    return folder


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_all_launchers_do_the_same(
    launcher: str, tmp_path: Path, unet: Path, facades: list[str], whole: Path
) -> None:
    args = [*tiny.compression(tmp_path / "run", unet), *facades, FORKED[2]]
    assert [fork.wait() for fork in tiny.ranks(launcher, 2, args, tmp_path)] == [0, 0]
    tiny.assert_same_end(tmp_path / "run", whole)


def test_three_ranks(tmp_path: Path, cyclegan: Path, domains: list[str]) -> None:
    args = [*cyclegan_arguments(tmp_path / "run", cyclegan, domains), "--data.batch_size=4"]
    args = [arg for arg in args if arg not in FORKED[:2]] + ["--data.search_batch_size=4"]
    assert [fork.wait() for fork in tiny.ranks("torchrun", 3, args, tmp_path)] == [0, 0, 0]
    assert_ranks_agree(tmp_path / "run", [*SEARCH, *SEARCH, *FINETUNE, *FINETUNE, "end"])


def test_both_directions(both: Path, cyclegan: Path) -> None:
    assert_ranks_agree(both, [*SEARCH, *SEARCH, *FINETUNE, *FINETUNE, "end"])
    checkpoint = tiny.read(tiny.last(both))
    for kind, budget in (("generator", 0.3), ("discriminator", 0.5)):
        roles = [f"{kind}_AtoB", f"{kind}_BtoA"]
        whole, small = (
            sum(count_macs(net, [tiny.sample(net)]) for net in (load_network(path, r)[0] for r in roles))
            for path in (cyclegan, tiny.last(both))
        )
        assert 0.97 * budget < small / whole <= budget
    for pools in checkpoint["image_pools"].values():
        one, two = map(torch.stack, pools)  # each rank has seen its own
        assert one.shape == two.shape == (12, 3, 32, 32)
        assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("epoch", "batch", "left"),
    [(1, 1, ["search step", *FINETUNE, *FINETUNE]), (3, 1, ["finetune step"])],
)
def test_resume_of_both_directions(
    epoch: int, batch: int, left: list[str], tmp_path: Path, cyclegan: Path, domains: list[str], both: Path
) -> None:
    args = [*cyclegan_arguments(tmp_path / "run", cyclegan, domains), *tiny.EVERY_STEP]
    assert fork([*args, *tiny.kill(epoch, batch)], tmp_path / "killed") != 0
    assert fork([*args, f"--ckpt_path={tiny.last(tmp_path / 'run')}"], tmp_path / "log") == 0
    assert_ranks_agree(tmp_path / "run", [*left, "end"])
    tiny.assert_same_end(tmp_path / "run", both)


def test_networks_that_are_made_afresh(tmp_path: Path, cyclegan: Path, domains: list[str]) -> None:
    path = tmp_path / "latest_net_G_B.pth"
    torch.save(load_network(cyclegan, "generator_BtoA")[0].state_dict(), path)
    args = [*tiny.compression(tmp_path / "run", path), *tiny.cyclegan("BtoA"), *domains, *FORKED]
    args += tiny.pattern(3)
    assert fork(args, tmp_path / "log") == 0
    assert_ranks_agree(tmp_path / "run", [*SEARCH, *SEARCH, *FINETUNE, *FINETUNE, "end"])
    assert "student.discriminator_AtoB" in tiny.read(tiny.last(tmp_path / "run"))["gancompress"]["networks"]


def test_test_counts_every_image_once(tmp_path: Path, both: Path) -> None:
    callbacks = ["--trainer.callbacks=Evaluation", "--trainer.callbacks.latency=false"]
    results = []
    for name, ranks in (("one", []), ("two", FORKED[:2])):
        args = ["test", f"--ckpt_path={tiny.last(both)}", f"--trainer.default_root_dir={tmp_path / name}"]
        args += [*callbacks, "--trainer.accelerator=cpu", "--data.n_test=5", *ranks]
        args += [f"--data.root={tmp_path / 'five'}"]
        assert fork(args, tmp_path / "log") == 0
        files = [tmp_path / name / "test" / f"results_{d}.json" for d in ("AtoB", "BtoA")]
        results.append([json.loads(file.read_text()) for file in files])
    for one, two in zip(*results, strict=True):
        assert one["images"] == two["images"] == 5
        assert two["teacher_l1"] == pytest.approx(one["teacher_l1"], rel=1e-5)


def command(args: list[str]) -> subprocess.CompletedProcess[str]:
    """The command itself, which starts the second rank with its own words."""
    ddp = ["--trainer.devices=2", "--trainer.strategy=ddp_find_unused_parameters_true"]
    env = os.environ | {"PYTHONPATH": str(Path(tiny.__file__).parent)}
    line = [sys.executable, "-m", "lightning_gancompress", *args, *ddp]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_command(tmp_path: Path, facades: list[str]) -> None:
    args = [*tiny.teacher(tmp_path / "run"), *facades, "--trainer.callbacks+=tiny.RankHashes"]
    result = command(args)
    assert result.returncode == 0, result.stderr
    epoch = ["teacher epoch", "teacher step", "teacher step"]
    assert_ranks_agree(tmp_path / "run", [*epoch, *epoch, "end"])


@pytest.mark.slow
def test_an_error_on_one_rank_ends_all(tmp_path: Path, facades: list[str]) -> None:
    args = [*tiny.teacher(tmp_path / "run"), *facades, "--trainer.callbacks+=tiny.Stumble"]
    result = command(args)
    assert result.returncode != 0
    assert "[rank 1] error: This rank can't go on: mend it." in result.stderr
    assert "Traceback" not in result.stderr


def test_a_notebook_gets_the_small_network_of_its_processes(tmp_path: Path) -> None:
    process = tiny.FORKS.Process(target=in_a_notebook, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert (tmp_path / "returned").read_text() == "4"


def in_a_notebook(folder: Path) -> None:
    from lightning.pytorch.trainer.connectors import accelerator_connector

    accelerator_connector._IS_INTERACTIVE = True
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(24, 3, 16, 16, generator=generator) * 2 - 1
    options: dict[str, Any] = {"epochs": 1, "decay_epochs": 0, "logger": False, "accelerator": "cpu"}
    policy = UniformWidth()
    small = compress(
        tiny.Own(8),
        data=TensorDataset(images),
        budget=0.5,
        policy=policy,
        folder=folder,
        devices=2,
        batch_size=2,
        distill_weight=1.0,
        **options,
    )
    assert isinstance(small, tiny.Own)
    assert small(images).isfinite().all()
    (folder / "returned").write_text(str(small.head.out_channels))
