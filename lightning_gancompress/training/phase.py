"""A phase of training: what trains, by which optimizers, and what one step does. No Lightning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Adam, Optimizer

PhaseName = Literal["teacher", "search", "finetune"]
Logs = dict[str, Tensor]


@dataclass(frozen=True)
class Position:
    """Where a run is, on which all its random numbers depend.

    Attributes:
        epoch: From 0, of the whole run.
        batch: From 0, within the epoch.
        batches: Of an epoch.
        seed: Of this step, the same on all ranks.
    """

    epoch: int
    batch: int
    batches: int
    seed: int

    @property
    def epochs(self) -> float:
        """Epochs that are done, with the fraction of the present one."""
        return self.epoch + self.batch / self.batches


@dataclass(frozen=True)
class Schedule:
    """Upstream's learning rates: constant, then falling linearly to zero.

    Attributes:
        epochs: Epochs at the full learning rate.
        decay_epochs: Further epochs in which it falls.
        lr: Adam's learning rate.
        beta1: Adam's first momentum.
    """

    epochs: int
    decay_epochs: int
    lr: float
    beta1: float

    @property
    def length(self) -> int:
        """Epochs of both parts."""
        return self.epochs + self.decay_epochs

    def factor(self, epoch: int) -> float:
        """1 for `epochs` epochs, then falling by 1/(decay_epochs + 1) each."""
        return 1.0 - max(0, epoch + 1 - self.epochs) / (self.decay_epochs + 1)

    def adam(self, network: nn.Module) -> Adam:
        """Adam with upstream's momenta."""
        return Adam(network.parameters(), lr=self.lr, betas=(self.beta1, 0.999))


class Optimizers(Protocol):
    """How the networks of a phase are updated; the module hands it to every step."""

    def step(self, name: str, loss: Tensor) -> None:
        """Backward and step of the optimizer `name`."""

    def toggled(self, name: str) -> AbstractContextManager[None]:
        """Meanwhile only the parameters of the optimizer `name` ask for gradients."""


class Phase(ABC):
    """A part of a run. It owns its networks' training; the module owns the networks and the run.

    Attributes:
        name: Recorded in checkpoints and results.
        began: The epoch of the run in which it begins.
    """

    name: PhaseName
    began: int = 0

    @abstractmethod
    def trained(self) -> dict[str, nn.Module]:
        """What is trained, by the name of its optimizer; the order is that of the optimizers."""

    @abstractmethod
    def optimizer(self, name: str) -> Optimizer:
        """A new optimizer for the entry `name` of `trained`."""

    @abstractmethod
    def step(self, batch: dict[str, Any], at: Position, optimizers: Optimizers) -> Logs:
        """Train on one batch.

        Returns:
            Values to log, without `train/`.
        """

    def lr_factor(self, epoch: int) -> float:
        """Learning rate in an epoch of the run, relative to that of the optimizers."""
        return 1.0

    def averaged(self) -> list[nn.Module]:
        """Networks whose running statistics are averaged over the ranks."""
        return list(self.trained().values())

    def set_modes(self) -> None:
        """Put every network into training or eval mode: those that it trains, unless it says otherwise."""
        for network in self.trained().values():
            network.train()

    def parts(self) -> dict[str, nn.Module]:
        """Modules of its own that checkpoints keep, by the names that they have in the LightningModule."""
        return {}


@runtime_checkable
class Phased(Protocol):
    """A module whose training has phases."""

    phase: Phase
