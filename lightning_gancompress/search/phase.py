"""The search phase: the student is a masked copy of the teacher, and a policy chooses its channels."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gancompress.checkpoints.header import Search
from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import renew
from lightning_gancompress.pruning import (
    Convention,
    NetworkGroup,
    PrunedSide,
    count_macs,
    parse_budget,
    slim,
)
from lightning_gancompress.tasks import Role, Side
from lightning_gancompress.training.narrowing import Elements, elements_left
from lightning_gancompress.training.phase import Logs, Optimizers, Phase, PhaseName, Position
from lightning_gancompress.training.teacher_student import TeacherStudent

WHOLE = (1, "1", "1.0")  # budgets that leave a side as it is
WORTH = 0.85  # share of its MACs below which a side is cut: each cut costs new wrappers and optimizers


@dataclass(frozen=True)
class Pruning:
    """Options of the pruning.

    Attributes:
        budgets: MACs per side: a fraction of the teacher's or a number such as `2.4G`.
        convention: How MACs are counted.
        min_channels: Least number of channels in every group.
        channel_multiple: Numbers of channels are rounded to multiples of this.
        student_weights: Whether the small networks start with the weights of the kept channels
            (`inherited`), or from scratch (`fresh`).
        ignored_layers: Layers that are not pruned, by name or pattern.
        passes: Larger budgets of the generators that the search keeps on its way, the largest first.
    """

    budgets: Mapping[Side, float | str]
    convention: Convention
    min_channels: int
    channel_multiple: int
    student_weights: Literal["inherited", "fresh"]
    ignored_layers: list[str]
    passes: Sequence[float | str] = ()

    def search_of(self, policy: Policy) -> Search:
        """The record of a search by `policy`, for checkpoints."""
        return Search(
            policy=type(policy).__name__,
            epochs=policy.search_epochs,
            options=policy.options(),
            budgets=dict(self.budgets),
            convention=self.convention,
            min_channels=self.min_channels,
            channel_multiple=self.channel_multiple,
            student_weights=self.student_weights,
            passes=list(self.passes),
        )

    def sides(self, networks: TeacherStudent) -> list[Side]:
        """Sides that are not left whole, and have networks."""
        pruned = [side for side, budget in self.budgets.items() if budget not in WHOLE]
        return [side for side in pruned if len(networks.group(side))]


class SinglePrecision(nn.ModuleDict):
    """Modules whose tensors move between devices, but keep their dtype whatever the trainer's precision.

    What decides about channels: in 8 bits many logits would be equal.
    """

    # called by `to`, `half`, `double` and so on
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SinglePrecision:
        super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)  # type: ignore[no-untyped-call]
        return self


class Sides(SinglePrecision):
    """An `nn.ModuleDict` of pruned sides, with types; keys are values of `Side`."""

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> PrunedSide: ...
        def items(self) -> ItemsView[str, PrunedSide]: ...  # noqa: D102


class Policy(Protocol):
    """The methods that the search phase calls on a pruning policy."""

    search_epochs: int

    def options(self) -> dict[str, Any]:
        """Its options that are plain values, besides the length, by name."""

    def agents(self, search: SearchPhase) -> Mapping[Side, nn.Module]:
        """Modules to train, by side."""

    def optimizer(self, search: SearchPhase, side: Side) -> Optimizer:
        """A new optimizer for a side's agent."""

    def losses(
        self, search: SearchPhase, batch: dict[str, Any], at: Position
    ) -> Iterator[tuple[Side, Tensor, Logs]]:
        """Side, loss and scalars to log, one side after the other; each is stepped before the next."""

    def in_reach(self, search: SearchPhase, at: Position) -> Mapping[Side, Tensor]:
        """The channels `(total,)` that later masks may still keep, by side; all of a side left out."""

    def narrowed(self, agent: nn.Module, keep: Mapping[Side, Tensor], side: Side) -> nn.Module:
        """The agent of a side, for networks with the channels of `keep` alone."""

    def choose(self, search: SearchPhase) -> dict[Side, Tensor]:
        """The final mask `(total,)` per side, within the budgets."""


class SearchPhase(Phase):
    """Masks and budgets of the student, and the policy's agents, which learn which channels to keep.

    Args:
        networks: Teacher and student; mask hooks are installed on the student.
        pruning: Budgets and limits.
        policy: Decides which channels to keep; None where a checkpoint's masks are only evaluated.
        beta1: Adam's decay rate of the first moment, for policies that train the networks' weights.
        budgets: Budgets that replace those of `pruning`.
        seed: Seed of the run, and so of the weights of `fresh` networks.

    Attributes:
        sides: Channel groups, masks, cost and budget of each pruned side.
        agents: Trained modules of the policy, by side.
        passes: MACs of the larger budgets that are still to come, by budget, the largest first.
    """

    name: PhaseName = "search"

    def __init__(
        self,
        networks: TeacherStudent,
        pruning: Pruning,
        policy: Policy | None,
        beta1: float = 0.5,
        budgets: Mapping[Side, float | str] | None = None,
        seed: int = 0,
    ) -> None:
        self.networks, self.pruning, self.policy = networks, pruning, policy
        self.beta1, self.seed = beta1, seed
        self.sides, self.agents = Sides(), SinglePrecision()
        if budgets is None:
            budgets = {side: pruning.budgets[side] for side in pruning.sides(networks)}
        ignored = ignored_layers(networks, pruning.ignored_layers)
        for side, budget in budgets.items():
            group = networks.group(side)
            if len(group):
                self.sides[side.value] = PrunedSide(
                    side.value,
                    group,
                    networks.samples(group),
                    budget,
                    pruning.convention,
                    pruning.min_channels,
                    pruning.channel_multiple,
                    ignored[side],
                )
        generators = self.sides[Side.GENERATOR].cost.full if Side.GENERATOR in self.sides else 0
        passes = pruning.passes if policy is not None else ()
        self.passes = {b: parse_budget(b, generators, "generator budget") for b in passes}

    def pruned(self) -> list[tuple[Side, PrunedSide]]:
        """The pruned sides, in the order in which agents draw."""
        return [(Side(name), pruned) for name, pruned in self.sides.items()]

    def roles(self) -> dict[Side, list[Role]]:
        """Roles of the networks that share one mask, by side."""
        return {side: list(map(Role, self.networks.group(side))) for side, _ in self.pruned()}

    def begin(self) -> None:
        """Create the policy's agents."""
        assert self.policy is not None
        for side, agent in self.policy.agents(self).items():
            self.agents[side.value] = agent

    # -- training --------------------------------------------------------------------------------------

    def trained(self) -> dict[str, nn.Module]:
        """The agents; a policy's optimizers may train weights of the networks as well."""
        return dict(self.agents.items())

    def optimizer(self, name: str) -> Optimizer:
        """The optimizer that the policy creates for a side."""
        assert self.policy is not None
        return self.policy.optimizer(self, Side(name))

    def averaged(self) -> list[nn.Module]:
        """The student's networks except frozen ones: their batch norm statistics depend on the masks."""
        frozen = self.networks.frozen
        return [network for role, network in self.networks.student.items() if role not in frozen]

    def set_modes(self) -> None:
        """Put all networks into eval mode, except the student's batch norms."""
        self.networks.teacher.eval()
        self.networks.student.eval()
        # Dropped channels change the inputs of the norms, so the teacher's statistics no longer fit. On
        # facades the L1 distance to the teacher after the search was 0.285 with the teacher's statistics and
        # 0.242 with those of the batch (U-Net ngf 32, a tenth of the MACs, 400 steps, statistics estimated
        # anew for both).
        for layer in self.networks.student.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.train()

    def step(self, batch: dict[str, Any], at: Position, optimizers: Optimizers) -> Logs:
        """Step each side once, in the policy's order; each loss changes its own side only."""
        assert self.policy is not None
        logs: Logs = {}
        for side, loss, terms in self.policy.losses(self, batch, at):
            optimizers.step(side.value, loss)
            self.sides[side].masks.freeze()
            logs |= terms
        return logs

    # -- masks -----------------------------------------------------------------------------------------

    def set_masks(self, masks: Mapping[Side, Tensor]) -> None:
        """Apply masks `(total,)` to the student; gradients flow through them."""
        for side, mask in masks.items():
            self.sides[side].masks.set(mask)

    def masks(self) -> dict[Side, Tensor]:
        """Copies of the student's masks, `(total,)` of zeros and ones, without gradients."""
        return {side: pruned.masks.mask.clone() for side, pruned in self.pruned()}

    def detach_masks(self) -> None:
        """Detach the student's masks from the graph of the agents."""
        for pruned in self.sides.values():
            assert isinstance(pruned, PrunedSide)
            pruned.masks.freeze()

    @contextmanager
    def frozen_weights(self, side: Side, trained: bool) -> Iterator[None]:
        """Context in which the student's weights of a side require no gradients.

        Args:
            side: Side to freeze.
            trained: Whether its weights require gradients afterwards.
        """
        group = self.networks.group(side).requires_grad_(False)
        try:
            yield
        finally:
            group.requires_grad_(trained)

    # -- fewer channels on the way ---------------------------------------------------------------------

    def worth_cutting(self, reach: Mapping[Side, Tensor]) -> dict[Side, Tensor]:
        """The channels to go on with, by side: all those in reach, if that makes some side much cheaper."""
        keep, worth = {}, False
        for side, pruned in self.pruned() if reach else ():
            whole = torch.ones(pruned.groups.total)
            keep[side] = reach.get(side, whole).cpu() if pruned.narrowable else whole
            worth |= float(pruned.cost(keep[side])) < WORTH * float(pruned.cost(whole))
        return keep if worth else {}

    def narrow(self, keep: Mapping[Side, Tensor]) -> Elements:
        """Go on with fewer channels: student, masks and agents.

        Args:
            keep: `(total,)` of zeros and ones on the CPU, for each side that is pruned.

        Returns:
            The elements that are left of each parameter before, for the states of optimizers.
        """
        left: Elements = {}
        if all(bool(mask.all()) for mask in keep.values()):
            return left
        for side, pruned in self.pruned():
            if bool(keep[side].all()):
                continue
            group = self.networks.group(side)
            pruned.masks.detach()
            cut = partial(slim, groups=pruned.groups, mask=keep[side])
            left |= elements_left(group, cut)
            small = cut(group)
            for before, after in zip(group.parameters(), small.parameters(), strict=True):
                after.requires_grad_(before.requires_grad)
            for role, network in small.items():
                self.networks.adopt_small(Role(role), network)
            pruned.narrow(keep[side], small)
        for name, agent in self.agents.items():
            assert self.policy is not None
            follow = partial(self.policy.narrowed, keep=keep, side=Side(name))
            left |= elements_left(agent, follow)
            self.agents[name] = follow(agent)
        return left

    def narrow_as(self, state: dict[str, Tensor]) -> None:
        """Go on with the channels that a checkpoint's state dict has; one of an older release has all.

        Raises:
            UserError: The entry of a side is damaged.
        """
        keep = {}
        for side, pruned in self.pruned():
            left = state.setdefault(f"sides.{side}.left", pruned.left.clone())
            keep[side] = left.cpu() > 0.5
            if left.shape != pruned.left.shape or not all(g.any() for g in pruned.groups.split(keep[side])):
                raise UserError(
                    f"ckpt_path: the checkpoint is damaged, sides.{side}.left does not fit the {side}: copy "
                    "it again, or go back to an earlier checkpoint."
                )
        self.narrow(keep)

    # -- the border ------------------------------------------------------------------------------------

    def choose(self, macs: int | None = None) -> dict[Side, Tensor]:
        """The policy's final masks, `(total,)` by side.

        Args:
            macs: Budget of the generators in place of their own.
        """
        assert self.policy is not None
        if macs is None:
            return self.policy.choose(self)
        generators = self.sides[Side.GENERATOR]
        own, generators.budget = generators.budget, macs
        try:
            return self.policy.choose(self)
        finally:
            generators.budget = own

    def cut(self, masks: Mapping[Side, Tensor]) -> list[str]:
        """Replace the student's masked networks by small dense ones with the kept channels alone.

        Args:
            masks: Final masks, `(total,)` of zeros and ones.

        Returns:
            One line of text per side with the MACs of its small networks.
        """
        for side, mask in masks.items():
            small = self.sides[side].slim(self.networks.group(side), mask)
            for role, network in small.items():
                if self.pruning.student_weights == "fresh":
                    renew(network, seed=self.seed)
                self.networks.adopt_small(Role(role), network)
        return [counted(self.networks, side, self.pruning) for side in masks]

    def saved_modules(self) -> dict[str, nn.Module]:
        """Masks and agents."""
        return {"sides": self.sides, "agents": self.agents}


def counted(networks: TeacherStudent, side: Side, pruning: Pruning) -> str:
    """Count the MACs of small networks, not of their masks, and say that they are within the budget."""
    small, convention = networks.group(side), pruning.convention
    whole, samples = NetworkGroup({role: networks.teacher[role] for role in small}), networks.samples(small)
    macs, full = (count_macs(group, samples, convention) for group in (small, whole))
    budget = parse_budget(pruning.budgets[side], full, f"{side} budget")
    if macs > budget:
        raise AssertionError(f"{side}: {macs} MACs are above the budget of {budget}")
    return (
        f"{' and '.join(small)}: {macs / 1e9:.4g} of {full / 1e9:.4g} GMACs ({convention}), "
        f"budget {budget / 1e9:.4g}"
    )


def ignored_layers(networks: TeacherStudent, patterns: list[str]) -> dict[Side, list[str]]:
    """Layers of each side that are not pruned; a pattern without a network's name is of the generators.

    Raises:
        UserError: A pattern matches no layer of either side.
    """
    generators, discriminators = networks.group(Side.GENERATOR), networks.group(Side.DISCRIMINATOR)
    prefix = Side.DISCRIMINATOR.value
    own = [p for p in patterns if p.startswith(prefix) and discriminators.has(p)]
    for pattern in patterns:
        if pattern not in own and not generators.qualified([pattern]):
            roles = " and ".join([*generators, *discriminators])
            raise UserError(f"model.ignored_layers: {roles} have no layer named {pattern!r}.")
    return {Side.GENERATOR: generators.qualified(patterns), Side.DISCRIMINATOR: own}
