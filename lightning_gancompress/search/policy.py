"""Base classes of pruning policies: callbacks that decide which channels to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from inspect import signature
from typing import Any, ClassVar, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gancompress.errors import UserError
from lightning_gancompress.search.phase import SearchPhase
from lightning_gancompress.tasks import Side
from lightning_gancompress.training.phase import SEARCH, Logs, Phased, Position

PLAIN = (bool, int, float, str)


@runtime_checkable
class Prunable(Protocol):
    """A LightningModule that is compressed with a policy."""

    policy: PruningPolicy | None


@runtime_checkable
class Searching(Protocol):
    """A LightningModule that searches."""

    def position(self, batch_idx: int) -> Position:
        """Position of a batch in the run."""

    def keep_passed(self, at: Position) -> None:
        """Save what the small networks of a larger budget start from, where the search has come to it."""

    def narrow(self, at: Position) -> None:
        """Cut for good, now and then, what the policy has no more in reach; before the masks of a step."""


class PruningPolicy(Callback, ABC):
    """Scores channels; those with the highest scores are kept, as many as the budget allows.

    A policy implements `scores` only. Budgets, rounding, slimming and fine-tuning are the same for all, so
    that compared runs differ in one line of YAML. Of several policies in `trainer.callbacks` the last one is
    used, so that `callbacks+:` in a second YAML overrides the policy of the first.
    """

    search_epochs = 0
    not_settled: ClassVar[tuple[str, ...]] = ("search_epochs",)  # options that `options` leaves out

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register as the module's policy.

        Raises:
            UserError: The module is no CompressionModule.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, Prunable):
            raise UserError(
                f"trainer.callbacks: {type(self).__name__} prunes a CompressionModule, not a "
                f"{type(pl_module).__name__}: leave it out."
            )
        pl_module.policy = self

    def options(self) -> dict[str, Any]:
        """Options of the constructor that are plain values and kept as attributes of the same name.

        They can't change once the small networks are cut; those in `not_settled` can.
        """
        names = [name for name in signature(type(self).__init__).parameters if name not in self.not_settled]
        values = {name: vars(self)[name] for name in names if name in vars(self)}
        return {n: value for n, value in values.items() if value is None or isinstance(value, PLAIN)}

    @abstractmethod
    def scores(self, search: SearchPhase, side: Side) -> Tensor:
        """Scores `(total,)` of the channels of a side that can be dropped; the lowest are dropped first."""

    def choose(self, search: SearchPhase) -> dict[Side, Tensor]:
        """The final mask `(total,)` of zeros and ones per side, within the budgets."""
        return {side: pruned.fit(self.scores(search, side)) for side, pruned in search.pruned()}

    def target(self, search: SearchPhase, at: Position) -> float:
        """MACs to which the search asks the generators to come down at a step; by default the budget."""
        return float(search.sides[Side.GENERATOR].budget)

    def in_reach(self, search: SearchPhase, at: Position) -> Mapping[Side, Tensor]:
        """The channels `(total,)` of zeros and ones that later masks may still keep, by side.

        The others are cut for good, which makes the rest of a search cheaper. By default none are; a policy
        that overrides this overrides `narrowed` as well.
        """
        return {}

    def narrowed(self, agent: nn.Module, keep: Mapping[Side, Tensor], side: Side) -> nn.Module:
        """A copy of the agent of a side for networks with fewer channels, `keep` of `(total,)` by side.

        It has the same parameters in the same order, each with the elements of the channels that are left.
        """
        raise NotImplementedError(f"{type(self).__name__} cuts no channels within a search")

    def agents(self, search: SearchPhase) -> Mapping[Side, nn.Module]:
        """Modules to train, by side: none, since this policy does not search."""
        return {}

    def optimizer(self, search: SearchPhase, side: Side) -> Optimizer:
        """Never called, since there are no agents."""
        raise NotImplementedError(f"{type(self).__name__} has no agents")

    def losses(
        self, search: SearchPhase, batch: dict[str, Any], at: Position
    ) -> Iterator[tuple[Side, Tensor, Logs]]:
        """Never called, since there is no search."""
        raise NotImplementedError(f"{type(self).__name__} does not search")


class SearchPolicy(PruningPolicy):
    """Learns which channels to keep, while masks are applied to the student.

    A policy provides the modules that learn (`agents`, `optimizer`), the masks of a step (`draw`), the losses
    of a step (`losses`), the mask it would choose now (`decide`), and the final scores (`scores`). The hooks
    here apply the masks to the student and log their cost.
    """

    search_epochs = 1

    @abstractmethod
    def agents(self, search: SearchPhase) -> Mapping[Side, nn.Module]:
        """Modules to train, by side; checkpoints hold them."""

    @abstractmethod
    def optimizer(self, search: SearchPhase, side: Side) -> Optimizer:
        """A new optimizer for a side's agent."""

    @abstractmethod
    def draw(self, search: SearchPhase, at: Position) -> dict[Side, Tensor]:
        """Masks `(total,)` of zeros and ones for one step; gradients flow through them to the agents."""

    @abstractmethod
    def decide(self, search: SearchPhase) -> dict[Side, Tensor]:
        """Masks `(total,)` that the policy would choose now, for validation and logs."""

    @abstractmethod
    def losses(
        self, search: SearchPhase, batch: dict[str, Any], at: Position
    ) -> Iterator[tuple[Side, Tensor, Logs]]:
        """Yield side, loss and scalars to log, one side after the other.

        Each loss is stepped before the generator is resumed for the next one.
        """

    # -- hooks, in the order of a step -----------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the masks of this step and apply them."""
        search = self.searching(pl_module)
        if search is not None:
            assert isinstance(pl_module, Searching)
            at = pl_module.position(batch_idx)
            pl_module.keep_passed(at)
            pl_module.narrow(at)
            search.set_masks(self.draw(search, at))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Detach the masks and log their MACs, relative to the whole networks."""
        search = self.searching(pl_module)
        if search is None:
            return
        search.detach_masks()
        for side, pruned in search.pruned():
            pl_module.log(f"cost/{side}_macs", pruned.cost(pruned.masks.mask).float() / pruned.cost.full)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the masks that the policy would choose now."""
        search = self.searching(pl_module)
        if search is not None:
            self._drawn = search.masks()
            search.set_masks(self.decide(search))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the masks of the last step, on which the next draw depends."""
        search = self.searching(pl_module)
        if search is not None:
            search.set_masks(self._drawn)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the MACs and the channels per group of the masks that the policy would choose now."""
        search = self.searching(pl_module)
        if search is None:
            return
        logs: dict[str, float] = {}
        decided = self.decide(search)
        for side, pruned in search.pruned():
            logs[f"{SEARCH}{side}_macs"] = float(pruned.cost(decided[side])) / pruned.cost.full
            logs |= {f"mask/{name}": float(n) for name, n in pruned.groups.kept(decided[side]).items()}
        pl_module.log_dict(logs, sync_dist=True)

    def searching(self, pl_module: LightningModule) -> SearchPhase | None:
        """The search phase, or None outside of it and where a later policy has replaced this one."""
        if not isinstance(pl_module, Phased) or not isinstance(pl_module.phase, SearchPhase):
            return None
        return pl_module.phase if pl_module.phase.policy is self else None
