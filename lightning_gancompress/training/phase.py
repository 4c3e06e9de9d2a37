"""The base class of training phases: trained networks, optimizers, one step. Imports no Lightning."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Adam, Optimizer

PhaseName = Literal["teacher", "search", "finetune"]
Logs = dict[str, Tensor]

SEARCH = "search/"  # prefix of the figures of a search that are none of the fine-tuning


@dataclass(frozen=True)
class Position:
    """The position of a step in a run; all random numbers of the step follow from it.

    Attributes:
        epoch: Epoch of the whole run, from 0.
        batch: Batch of the epoch, from 0.
        batches: Batches per epoch.
        seed: Seed of this step, the same on all ranks.
        window: Batches for which the optimizers step once.
    """

    epoch: int
    batch: int
    batches: int
    seed: int
    window: int = 1

    @property
    def update(self) -> int:
        """Step of the optimizers in the epoch, from 0, to which the batch belongs."""
        return self.batch // self.window

    @property
    def updates(self) -> int:
        """Steps of the optimizers in an epoch."""
        return math.ceil(self.batches / self.window)

    @property
    def epochs(self) -> float:
        """Finished epochs plus the finished fraction of the current one."""
        return self.epoch + self.batch / self.batches


@dataclass(frozen=True)
class Schedule:
    """Upstream's learning rates: constant, then falling linearly to zero.

    Attributes:
        epochs: Epochs at the full learning rate.
        decay_epochs: Further epochs in which it falls.
        lr: Adam's learning rate.
        beta1: Adam's decay rate of the first moment.
    """

    epochs: int
    decay_epochs: int
    lr: float
    beta1: float

    @property
    def length(self) -> int:
        """Epochs at the full rate plus epochs of decay."""
        return self.epochs + self.decay_epochs

    def factor(self, epoch: int) -> float:
        """Learning rate in `epoch` relative to `lr`: 1, then falling by 1/(decay_epochs + 1) each epoch."""
        return 1.0 - max(0, epoch + 1 - self.epochs) / (self.decay_epochs + 1)

    def adam(self, network: nn.Module) -> Adam:
        """Adam over all parameters of `network`, with beta2 0.999 as upstream."""
        return Adam(network.parameters(), lr=self.lr, betas=(self.beta1, 0.999))


class Optimizers(Protocol):
    """Named optimizers, which the module passes to every step of its phase."""

    def step(self, name: str, loss: Tensor) -> None:
        """Run the backward pass of `loss` and step the optimizer `name`."""

    def toggled(self, name: str) -> AbstractContextManager[None]:
        """Context in which only the parameters of the optimizer `name` require gradients."""


class Phase(ABC):
    """A part of a run. It defines how networks train; the module owns the networks and the run.

    Attributes:
        name: Name in checkpoints and results.
        began: Epoch of the run in which the phase begins.
    """

    name: PhaseName
    began: int = 0

    @abstractmethod
    def trained(self) -> dict[str, nn.Module]:
        """Trained modules by the name of their optimizer, in the order of the optimizers."""

    @abstractmethod
    def optimizer(self, name: str) -> Optimizer:
        """A new optimizer for the entry `name` of `trained`."""

    @abstractmethod
    def step(self, batch: dict[str, Any], at: Position, optimizers: Optimizers) -> Logs:
        """Train on one batch.

        Returns:
            Scalars to log; the module adds the prefix `train/`.
        """

    def lr_factor(self, epoch: int) -> float:
        """Learning rate in an epoch of the run, relative to that of the optimizers."""
        return 1.0

    def averaged(self) -> list[nn.Module]:
        """Networks whose batch norm statistics are averaged over the ranks."""
        return list(self.trained().values())

    def set_modes(self) -> None:
        """Put the networks into training or eval mode; by default all trained ones into training mode."""
        for network in self.trained().values():
            network.train()

    def saved_modules(self) -> dict[str, nn.Module]:
        """Modules of the phase to register on the LightningModule, by attribute name, and to save."""
        return {}


@runtime_checkable
class Phased(Protocol):
    """A LightningModule that is in a phase."""

    phase: Phase


@runtime_checkable
class Bordered(Phased, Protocol):
    """A LightningModule whose run is a search and a fine-tuning."""

    @property
    def border(self) -> int:
        """Epoch of the run in which the fine-tuning begins."""
