"""Several processes compute what one does with all their images; where one fails, all end with its error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch import Callback
from torch import Tensor

# nothing that hangs on how many images a rank has: no batch norm, no dropout, no pools
INSTANCE = ["ResnetGenerator", "ngf=8", "n_blocks=2", "norm=instance"]
JUDGE = ["--model.discriminator.norm=instance"]
BOTH = ["--model.discriminator.in_channels=3", *tiny.cyclegan()[:2], "--model.task.pool_size=0"]
# in double precision Adam does not turn the rounding of a gradient that is zero into a step
EXACT = [
    "--trainer.precision=64-true",
    "--trainer.callbacks+=test_ranks.Keep",
    "--trainer.limit_val_batches=0",
]


class Keep(Callback):
    """Write what is trained and chosen after every step to `kept.pt`."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.kept: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        tensors = {**dict(pl_module.named_parameters()), **dict(pl_module.named_buffers())}
        if pl_module.phase.name == "search":
            for side, _ in pl_module.phase.pruned():
                tensors[f"logits.{side}"] = pl_module.phase.policy.scores(pl_module.phase, side)
        self.kept.append({name: tensor.detach().clone() for name, tensor in tensors.items()})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            torch.save(self.kept, Path(trainer.default_root_dir, "kept.pt"))


def kept(
    ranks: int, args: list[str], folder: Path, data: list[str], batch: int = 8
) -> list[dict[str, Tensor]]:
    """What a run of so many ranks that share a batch has trained and chosen, after every step."""
    run = folder / str(ranks)
    args = [*args, f"--trainer.default_root_dir={run}", *data, *EXACT]
    args += [f"--data.batch_size={batch // ranks}", f"--data.search_batch_size={batch // ranks}"]
    assert [fork.wait() for fork in tiny.ranks("torchrun", ranks, args, folder)] == [0] * ranks
    found: list[dict[str, Tensor]] = torch.load(run / "kept.pt")
    return found


def farthest(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]], prefix: str) -> float:
    """The largest difference in tensors whose name begins with `prefix`, in all steps."""
    pairs = [
        (a[name].double(), b[name].double())
        for a, b in zip(one, other, strict=True)
        for name in a
        if name.startswith(prefix)
    ]
    return max(float((x - y).abs().max()) for x, y in pairs)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory, facades: list[str]) -> Path:
    """Folder of teachers that one rank and two have trained, in windows of two batches."""
    folder = tmp_path_factory.mktemp("teachers")
    args = [*tiny.teacher(folder, INSTANCE), *JUDGE, "--model.accumulate_grad_batches=3"]
    for ranks in (1, 2):
        kept(ranks, args, folder, facades)
    return folder


def test_ranks_train_a_teacher_as_one_process_does(teachers: Path) -> None:
    one, two = (torch.load(teachers / ranks / "kept.pt") for ranks in "12")
    assert farthest(one, two, "networks.") < 1e-9
    assert farthest([one[0]] * len(one), one, "networks.") > 1e-4


def test_three_ranks_train_both_directions_as_one_process_does(tmp_path: Path, domains: list[str]) -> None:
    args = [*tiny.teacher(tmp_path, INSTANCE), *JUDGE, *BOTH, "--trainer.limit_train_batches=2"]
    one, three = (kept(ranks, args, tmp_path, domains, 6) for ranks in (1, 3))
    assert farthest(one, three, "networks.") < 1e-9


def test_ranks_search_as_one_process_does(tmp_path: Path, teachers: Path, facades: list[str]) -> None:
    args = tiny.compression(tmp_path / "run", tiny.last(teachers / "1"))
    one, two = (kept(ranks, args, tmp_path, facades) for ranks in (1, 2))
    assert farthest(one, two, "sides.") == 0  # every mask
    assert farthest(one, two, "logits.") < 1e-2  # agents are in single precision
    assert farthest(one, two, "student.generator.") < 1e-3


# -- a rank that fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("launcher", "rank", "how", "hook", "codes", "said"),
    [
        ("torchrun", 1, "bug", "on_validation_batch_start", [2, 1, 2], "KeyError: 'a bug'"),
        ("slurm", 0, "disk", "on_save_checkpoint", [2, 2], "last.ckpt: No space left on device."),
        ("slurm", 1, "kill", "on_train_epoch_end", [2, -9], ""),
    ],
)
def test_all_ranks_end_with_the_error_of_the_one_that_fails(
    launcher: str,
    rank: int,
    how: str,
    hook: str,
    codes: list[int],
    said: str,
    tmp_path: Path,
    facades: list[str],
) -> None:
    args = [*tiny.teacher(tmp_path / "run"), *facades, "--trainer.num_sanity_val_steps=0"]
    args += ["--trainer.callbacks+=tiny.Stumble", f"--trainer.callbacks.rank={rank}"]
    args += [f"--trainer.callbacks.how={how}", f"--trainer.callbacks.hook={hook}"]
    forks = tiny.ranks(launcher, len(codes), args, tmp_path)
    assert [fork.wait() for fork in forks] == codes
    for number, fork in enumerate(forks):
        # torch's own threads may end their words with an empty line
        lines = [line.removeprefix(f"[rank {number}] ") for line in fork.log.read_text().splitlines()]
        last = [line for line in lines if line][-1]
        if number != rank:
            failed = f"Rank {rank} has failed: {said}" if said else "Another process of this run has ended"
            assert last.startswith(f"error: {failed}"), last
        else:
            assert how == "kill" or said in last
