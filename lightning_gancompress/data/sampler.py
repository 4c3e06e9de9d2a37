"""Samplers: shuffled, sharded over ranks, and reproducible after a resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, SequentialSampler

from lightning_gancompress.errors import UserError
from lightning_gancompress.lightning_internals import fit_position, overfits

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class EpochSampler(DistributedSampler[Any]):
    """Shuffles by (seed, epoch), shards evenly over ranks, and continues a resumed epoch where it stopped.

    Yields codes ``epoch * N + index``, from which a data set seeds its augmentation: an augmented image
    depends on (seed, epoch, index) alone, not on the number of workers or restarts.

    With ``neighbourhoods`` the samples come in groups: ``members`` drawn without replacement from the row of
    each centre. An epoch still has N images, so it has ``N / members`` centres.

    Args:
        dataset: Data set of length N.
        batch_size: Images per step and rank.
        seed: Seed of order and draws.
        trainer: Provides rank, world size and position. None is one process and the epoch of ``set_epoch``.
        neighbourhoods: ``(N, k + 1)`` int64, row ``c`` holds ``c`` and its ``k`` nearest.
        members: Images per centre; only with ``neighbourhoods``.
        length: Images per epoch, on all ranks together; None is N. More than N takes several passes over the
            data set, each in another order.
    """

    # a DistributedSampler, since under DDP Lightning wraps any other sampler again

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        seed: int = 0,
        trainer: Trainer | None = None,
        neighbourhoods: Tensor | None = None,
        members: int = 4,
        length: int | None = None,
    ) -> None:
        rank, world = rank_and_world(trainer)
        super().__init__(dataset, num_replicas=world, rank=rank, seed=seed, drop_last=True)  # type: ignore[arg-type]
        self.size, self.batch_size, self.trainer = len(dataset), batch_size, trainer
        self.length = length or self.size
        # without neighbourhoods every row holds its own image alone
        self.members = 1 if neighbourhoods is None else members
        self.rows = np.arange(self.size)[:, None] if neighbourhoods is None else neighbourhoods.cpu().numpy()
        option = "batch_size" if neighbourhoods is None else "search_batch_size"
        require_batch(self.length, batch_size, world, option, self.members)
        if self.members > self.rows.shape[1]:
            raise UserError(
                f"{self.members} members can't be drawn from neighbourhoods of {self.rows.shape[1]} images: "
                f"set members to at most k + 1 = {self.rows.shape[1]}."
            )

    def __len__(self) -> int:
        return share_of(self.length, self.num_replicas, self.members)

    def __iter__(self) -> Iterator[int]:
        epoch, batches = (self.epoch, 0) if self.trainer is None else fit_position(self.trainer)
        if self.trainer is not None and overfits(self.trainer):
            epoch = 0  # the same batches again and again
        return iter(self.order(epoch)[batches * self.batch_size :].tolist())

    def order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Codes of this rank in an epoch, ``(len(self),)``."""
        random = np.random.default_rng((self.seed, epoch))
        passes = -(-self.length // (self.size * self.members))
        # drawn for all ranks before sharding, so that the ranks have different centres
        codes = []
        for i in range(epoch * passes, (epoch + 1) * passes):
            rows = random.permuted(self.rows[random.permutation(self.size)], axis=1)
            codes.append(i * self.size + rows)
        shard = np.concatenate(codes)[self.rank :: self.num_replicas, : self.members]
        return shard[: len(self) // self.members].reshape(-1)


class ZipSampler(DistributedSampler[Any], SequentialSampler):
    """Yields tuples of codes, one of each sampler; as long as the shortest sampler."""

    # a SequentialSampler, since Lightning replaces any other one under `overfit_batches`

    def __init__(self, samplers: Sequence[EpochSampler]) -> None:
        first = samplers[0]
        super().__init__(first.dataset, num_replicas=first.num_replicas, rank=first.rank)
        self.samplers = samplers

    def __len__(self) -> int:
        return min(map(len, self.samplers))

    def __iter__(self) -> Iterator[tuple[int, ...]]:  # type: ignore[override]
        return zip(*self.samplers, strict=False)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of all samplers."""
        for sampler in self.samplers:
            sampler.set_epoch(epoch)


class ShardSampler(DistributedSampler[Any]):
    """Every ``world``-th image in order, for evaluation; without padding, so no image is duplicated.

    Args:
        dataset: Data set of length N.
        trainer: Provides rank and world size. None is one process.
        block: Images in a row that stay together, at most: with that of a batch, each rank has every
            ``world``-th batch of those that one process would have, with the same rounding of its results.
    """

    def __init__(self, dataset: Sized, trainer: Trainer | None = None, block: int = 1) -> None:
        rank, world = rank_and_world(trainer)
        super().__init__(dataset, num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]
        block = max(1, min(block, len(dataset) // world))  # no rank is left without
        self.indices = [index for index in range(len(dataset)) if index // block % world == rank]
        if len(dataset) < world:
            # a rank without a batch would not join the collectives of the others, which then hang
            raise UserError(
                f"{len(dataset)} images can't be shared by {world} processes: use at most {len(dataset)} "
                "devices."
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


class ResumableLoader(DataLoader[Any]):
    """A loader that Lightning accepts as resumable within an epoch; `EpochSampler` restores the position."""

    def state_dict(self) -> dict[str, Any]:
        """Empty: the position is part of the trainer's progress."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""


def rank_and_world(trainer: Trainer | None) -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def share_of(images: int, world: int, members: int) -> int:
    """Images of an epoch on each of `world` processes, in groups of `members`."""
    return images // world // members * members


def require_batch(images: int, batch_size: int, world: int, option: str, members: int = 1) -> None:
    """Require that an epoch has a whole batch for every process.

    Args:
        images: Images per epoch, on all processes together.
        batch_size: Images per step and process.
        world: Number of processes.
        option: Name of the option that sets `batch_size`, for the message.
        members: Images of a neighbourhood, which come in the same batch.

    Raises:
        UserError: The epoch would have no batch, or a batch no whole neighbourhoods.
    """
    if batch_size % members:
        raise UserError(
            f"{option} is {batch_size}, not a multiple of the {members} members drawn per neighbourhood: set "
            f"it to {members * max(1, round(batch_size / members))}, or change members."
        )
    if share_of(images, world, members) < batch_size:
        raise UserError(
            f"The training split has {images} images, too few for one batch of {batch_size} on each of "
            f"{world} process(es): lower {option} or add images."
        )
