"""What all pruning policies share: callbacks that decide which channels stay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gancompress.errors import UserError
from lightning_gancompress.search.phase import SearchPhase
from lightning_gancompress.tasks import Side
from lightning_gancompress.training.phase import Logs, Phased, Position


@runtime_checkable
class Prunable(Protocol):
    """A module that takes a policy."""

    policy: PruningPolicy | None


@runtime_checkable
class Positioned(Protocol):
    """A module that knows where its run is."""

    def position(self, batch_idx: int) -> Position:
        """Where the run is at a batch."""


class PruningPolicy(Callback, ABC):
    """Decides which channels stay; everything else is shared.

    A policy only answers `scores`: a number per channel, the higher the longer it stays. Budgets, rounding,
    slimming and fine-tuning are the same for all, so that a comparison differs in one line of YAML. Where
    several policies are listed, the last one decides: `callbacks+:` in a second YAML replaces the first's.
    """

    search_epochs = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Become the module's policy."""
        if stage != "fit":
            return
        if not isinstance(pl_module, Prunable):
            raise UserError(
                f"trainer.callbacks: {type(self).__name__} prunes a CompressionModule, not a "
                f"{type(pl_module).__name__}: leave it out."
            )
        pl_module.policy = self

    @abstractmethod
    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """Score `(total,)` of every channel of a side that can be dropped; higher stays."""

    def choose(self, search: SearchPhase) -> dict[Side, Tensor]:
        """The final mask `(total,)` of zeros and ones per side, within the budgets."""
        return {side: pruned.fit(self.scores(search, side)) for side, pruned in search.pruned()}

    def agents(self, search: SearchPhase) -> Mapping[Side, nn.Module]:
        """No agents: there is nothing to learn."""
        return {}

    def optimizer(self, search: SearchPhase, side: Side) -> Optimizer:
        """No optimizer, for there are no agents."""
        raise NotImplementedError(f"{type(self).__name__} has no agents")

    def losses(
        self, search: SearchPhase, batch: dict[str, Any], at: Position
    ) -> Iterator[tuple[Side, Tensor, Logs]]:
        """No losses, for there is no search."""
        raise NotImplementedError(f"{type(self).__name__} does not search")


class SearchPolicy(PruningPolicy):
    """Learns which channels stay, while the student trains under masks.

    A policy says who learns (`agents`, `optimizer`), draws the masks of a step (`draw`), computes the losses
    of a step (`losses`), says which channels it means to keep (`decide`), and scores them at the end
    (`scores`). The hooks here put the masks on the student and log what they cost.
    """

    search_epochs = 1

    @abstractmethod
    def agents(self, search: SearchPhase) -> Mapping[Side, nn.Module]:
        """What learns, by side; checkpoints keep it."""

    @abstractmethod
    def optimizer(self, search: SearchPhase, side: Side) -> Optimizer:
        """A new optimizer of a side's agent."""

    @abstractmethod
    def draw(self, search: SearchPhase, at: Position) -> dict[Side, Tensor]:
        """Masks `(total,)` of zeros and ones for one step, with the graph of the agents."""

    @abstractmethod
    def decide(self, search: SearchPhase) -> dict[Side, Tensor]:
        """Masks `(total,)` of the channels that would stay now, for validation and logs."""

    @abstractmethod
    def losses(
        self, search: SearchPhase, batch: dict[str, Any], at: Position
    ) -> Iterator[tuple[Side, Tensor, Logs]]:
        """The loss of one side after the other, and what to log; each is stepped before the next is asked."""

    # -- hooks, in the order of a step -----------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the masks of this step."""
        search = self.searching(pl_module)
        if search is not None:
            assert isinstance(pl_module, Positioned)
            search.show(self.draw(search, pl_module.position(batch_idx)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the masks, without their graph, and log what they cost."""
        search = self.searching(pl_module)
        if search is None:
            return
        search.freeze()
        for side, pruned in search.pruned():
            pl_module.log(f"cost/{side}_macs", pruned.cost(pruned.masks.mask).float() / pruned.cost.full)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the policy means to keep."""
        search = self.searching(pl_module)
        if search is not None:
            self._drawn = search.shown()
            search.show(self.decide(search))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give back the masks of the last step, which the next draw depends on."""
        search = self.searching(pl_module)
        if search is not None:
            search.show(self._drawn)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the policy means to keep: MACs, and the channels per group."""
        search = self.searching(pl_module)
        if search is None:
            return
        logs: dict[str, float] = {}
        decided = self.decide(search)
        for side, pruned in search.pruned():
            logs[f"search/{side}_macs"] = float(pruned.cost(decided[side])) / pruned.cost.full
            logs |= {f"mask/{name}": float(n) for name, n in pruned.groups.kept(decided[side]).items()}
        pl_module.log_dict(logs, sync_dist=True)

    def searching(self, pl_module: LightningModule) -> SearchPhase | None:
        """The search, while it runs and this policy decides: another may have been listed later."""
        if not isinstance(pl_module, Phased) or not isinstance(pl_module.phase, SearchPhase):
            return None
        return pl_module.phase if pl_module.phase.policy is self else None
