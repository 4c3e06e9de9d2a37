"""Whole runs that take about a second: 32-pixel facades, eight channels, a few steps."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import known_groups
import known_shapes
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lightning_gancompress.cli import main
from lightning_gancompress.data import SyntheticFacades
from lightning_gancompress.networks import blank_image

# processes to kill or to interrupt: forked from one that has imported everything and trained nothing
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["lightning_gancompress.cli.entry"])

SIZES = [
    "n_train=32",
    "n_val=4",
    "n_test=4",
    "size=32",
    "batch_size=8",
    "search_batch_size=8",
    "num_workers=0",
]
EVERY_STEP = ["--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.minutes=0"]
QUICK = ["--trainer.accelerator=cpu", "--trainer.logger=false"]
UNET = ["UnetGenerator", "ngf=8", "n_downs=5"]
RESNET = ["ResnetGenerator", "ngf=8", "n_blocks=2", "norm=batch", "dropout=true"]  # the dropout draws noise


def data(folder: Path) -> list[str]:
    """Options of the generated data set, which all runs share."""
    return ["--data=SyntheticFacades", f"--data.root={folder}", *(f"--data.{option}" for option in SIZES)]


def teacher(folder: Path, generator: list[str] = UNET, *options: str) -> list[str]:
    """Arguments of a teacher training of two epochs of four steps."""
    model = ["--model=TeacherModule", f"--model.generator={generator[0]}"]
    model += [f"--model.generator.{option}" for option in generator[1:]]
    model += ["--model.discriminator=PatchDiscriminator", "--model.discriminator.ndf=8"]
    model += ["--model.discriminator.n_layers=2", "--model.epochs=1", "--model.decay_epochs=1"]
    callback = "--trainer.callbacks=ImageGrid"  # any: a resumed run drops the recorded ones
    return ["fit", *model, f"--trainer.default_root_dir={folder}", *QUICK, callback, *options]


def compression(
    folder: Path, teacher: Path, policy: str = "CollaborativePruning", *options: str
) -> list[str]:
    """Arguments of two epochs of search, if the policy searches, and two of fine-tuning, four steps each."""
    model = ["--model=CompressionModule", f"--model.teacher={teacher}", "--model.budget=0.3"]
    model += ["--model.epochs=1", "--model.decay_epochs=1"]
    callback = [f"--trainer.callbacks={policy}"]
    if policy == "CollaborativePruning":
        # fast enough that the masks move within eight steps
        callback += ["search_epochs=2", "lr=0.05", f"cache_dir={folder.parent / 'neighbours'}"]
        callback[1:] = [f"--trainer.callbacks.{option}" for option in callback[1:]]
    return ["fit", *model, f"--trainer.default_root_dir={folder}", *QUICK, *callback, *options]


def domains(folder: Path) -> list[str]:
    """Options of the generated data set without pairs."""
    return ["--data=SyntheticUnpairedFacades", f"--data.root={folder}", *data(folder)[2:]]


def cyclegan(direction: str = "both") -> list[str]:
    """Options of a model that is no Pix2Pix; of 64 images a discriminator sees, most may be earlier ones."""
    return ["--model.task=CycleGAN", f"--model.task.direction={direction}", "--model.task.pool_size=12"]


def cyclegan_teacher(folder: Path, *options: str) -> list[str]:
    """Arguments of a teacher training in both directions."""
    return [*teacher(folder, RESNET), "--model.discriminator.in_channels=3", *cyclegan(), *options]


def pattern(channels: int) -> list[str]:
    """Options of a discriminator after which missing ones are made: by default they are wide."""
    options = ["=PatchDiscriminator", f".in_channels={channels}", ".ndf=8", ".n_layers=2"]
    return [f"--model.discriminator{option}" for option in options]


def last(folder: Path) -> Path:
    """The checkpoint of a run."""
    return folder / "checkpoints" / "last.ckpt"


def kill(epoch: int, batch: int) -> list[str]:
    """Options of a run that dies at the start of a batch."""
    return [
        "--trainer.callbacks+=tiny.Kill",
        f"--trainer.callbacks.epoch={epoch}",
        f"--trainer.callbacks.batch={batch}",
    ]


def read(path: Path) -> dict[str, Any]:
    """A checkpoint, which must hold tensors and plain types only."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def assert_same_end(one: Path, other: Path) -> None:
    """Networks, optimizers and progress of two runs are equal."""
    a, b = read(last(one)), read(last(other))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert [k for k, v in a["state_dict"].items() if not torch.equal(v, b["state_dict"][k])] == []
    assert a["epoch"] == b["epoch"]
    assert a["gancompress"] == b["gancompress"]
    assert_equal(a.get("image_pools", {}), b.get("image_pools", {}))
    for first, second in zip(a["optimizer_states"], b["optimizer_states"], strict=True):
        assert_equal(first["state"], second["state"])


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second)
    else:
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def fail_code(capsys: Any, args: list[str]) -> tuple[int, str]:
    """Exit code and words of a run that must fail."""
    try:
        main(args)
    except SystemExit as stop:
        return int(stop.code or 0), capsys.readouterr().err
    raise AssertionError("the run did not fail")


class Fork:
    """A run in a process of its own, with further variables in its environment."""

    def __init__(self, args: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        self.process = FORKS.Process(target=_run, args=(args, str(log), env or {}))
        self.process.start()

    def wait(self, seconds: float = 300) -> int:
        """The exit code; negative for a signal."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.log.read_text()}")
        return self.process.exitcode


def _run(args: list[str], log: str, env: dict[str, str]) -> None:
    os.environ.update(env)
    torch.set_num_threads(1)
    known_groups.install()
    known_shapes.install()
    with open(log, "w") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        main(args)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def ranks(launcher: str, count: int, args: list[str], folder: Path) -> list[Fork]:
    """Processes of one run that `torchrun` has started, one on each of `count` machines, or SLURM on one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    alone = launcher == "torchrun"
    args = [
        *args,
        f"--trainer.devices={1 if alone else count}",
        f"--trainer.num_nodes={count if alone else 1}",
    ]
    forks = []
    for rank in range(count):
        if alone:
            env = {
                "RANK": rank,
                "GROUP_RANK": rank,
                "LOCAL_RANK": 0,
                "WORLD_SIZE": count,
                "LOCAL_WORLD_SIZE": 1,
            }
            env |= {"TORCHELASTIC_RUN_ID": 7}
        else:
            env = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": 0, "SLURM_NTASKS": count}
            env |= {"SLURM_NTASKS_PER_NODE": count, "SLURM_JOB_ID": 7, "SLURM_JOB_NAME": "train"}
        env = address | {name: str(value) for name, value in env.items()}
        forks.append(Fork(args, folder / f"log.{rank}", env))
    return forks


def digests(module: Any) -> dict[str, str]:
    """Hashes of all that a rank holds: parameters, buffers, also those that no checkpoint keeps, gradients,
    states of optimizers, moving averages."""
    tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    tensors |= {f"gradient of {n}": p.grad for n, p in module.named_parameters() if p.grad is not None}
    for number, optimizer in enumerate(module.trainer.optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer {number}, {index}, {k}": torch.as_tensor(v) for k, v in state.items()}
    if module.averages is not None:
        tensors |= {f"average of {name}": tensor for name, tensor in module.averages.tensors.items()}
    arrays = {name: tensor.detach().cpu().double().numpy() for name, tensor in tensors.items()}
    return {name: hashlib.sha256(array.tobytes()).hexdigest()[:8] for name, array in arrays.items()}


class Own(nn.Module):
    """A generator that this project knows nothing of."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, source: Tensor) -> Tensor:
        return self.tail(self.norm(self.head(source)).relu()).tanh()


class OwnJudge(nn.Module):
    """A discriminator that this project knows nothing of."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(6, width, 4, 2, 1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.logits = nn.Conv2d(width, 1, 1)

    def forward(self, pair: Tensor) -> Tensor:
        return self.logits(self.middle(self.head(pair).relu()).relu())


class Kill(Callback):
    """Die at the start of a batch, as by `kill -9`."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            trainer.strategy.barrier()  # all ranks die
            os.kill(os.getpid(), 9)


class Bug(Callback):
    """Raises what no user can mend."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        raise ValueError("bug")


class NoLogger(CSVLogger):
    """A logger whose package is not installed."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("Requirement 'banana' not met. HINT: Try running `pip install -U 'banana'`")


class KillOnce(Kill):
    """Die likewise, but let the run that goes on pass."""

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.ckpt_path is None:
            super().on_train_batch_start(trainer, *args)


class RankHashes(Callback):
    """Write to `hashes.json` what each rank holds after every step, epoch and at the end."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.found: list[tuple[str, list[dict[str, Any]]]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self._note(trainer, pl_module, f"{pl_module.phase.name} step")

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._note(trainer, pl_module, f"{pl_module.phase.name} epoch")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._note(trainer, pl_module, "end")
        if trainer.is_global_zero:
            Path(trainer.default_root_dir, "hashes.json").write_text(json.dumps(self.found))

    def _note(self, trainer: Any, pl_module: Any, when: str) -> None:
        tables = trainer.datamodule.neighbourhoods
        own = digests(pl_module)
        if tables is not None:
            own |= {"table": {role: table.tolist() for role, table in tables.items()}}
        everyone: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(everyone, own)
        self.found.append((when, everyone))


class Tables(Callback):
    """Write to `tables.json` the neighbourhoods of a search and the images of its batches."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.tables: dict[str, Any] = {}
        self.batches: dict[str, list[Any]] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, _: int) -> None:
        if pl_module.phase.name == "search":
            self.tables = {k: v.tolist() for k, v in trainer.datamodule.neighbourhoods.items()}
            for key in batch:
                if key.startswith("index"):
                    self.batches.setdefault(key, []).append(batch[key].tolist())

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        text = json.dumps({"tables": self.tables, "batches": self.batches})
        Path(trainer.default_root_dir, "tables.json").write_text(text)


class Stumble(Callback):
    """Fail on one rank only: by an error of the user, a bug, a full disk or a signal."""

    def __init__(self, rank: int = -1, how: str = "user", hook: str = "on_train_batch_start") -> None:
        self.rank, self.how = rank, how
        setattr(self, hook, self.stumble)

    def stumble(self, trainer: Any, *_: Any) -> None:
        from lightning_gancompress.errors import UserError

        if trainer.global_rank != self.rank % trainer.world_size:
            return
        if self.how == "kill":
            os.kill(os.getpid(), 9)
        errors: dict[str, Exception] = {
            "user": UserError("This rank can't go on: mend it."),
            "bug": KeyError("a bug"),
            "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.ckpt"),
        }
        raise errors[self.how]


class BrokenFacades(SyntheticFacades):
    """Facades of which one turns out to hold NaN, in the second epoch."""

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        if self.trainer is not None and self.trainer.training and self.trainer.current_epoch == 1:
            batch["source"][0] = torch.nan
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


def sample(network: nn.Module) -> Tensor:
    """A blank input."""
    return blank_image(network, 32)
