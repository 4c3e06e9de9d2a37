"""The search: the student is the whole teacher under masks, and a policy decides which channels stay."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import renew
from lightning_gancompress.pruning import Convention, NetworkGroup, PrunedSide, count_macs
from lightning_gancompress.tasks import Role, Side
from lightning_gancompress.training.phase import Logs, Optimizers, Phase, PhaseName, Position
from lightning_gancompress.training.teacher_student import TeacherStudent

WHOLE = (1, "1", "1.0")  # budgets that leave a side as it is


@dataclass(frozen=True)
class Pruning:
    """What is asked of the small networks.

    Attributes:
        budgets: MACs per side: a fraction of the teacher's or a number such as `2.4G`.
        convention: How MACs are counted.
        min_channels: Channels that stay in every group.
        channel_multiple: Widths are multiples of this.
        student_weights: Whether the small networks start with the weights of the channels that stay
            (`inherited`), or from scratch (`fresh`).
        ignored_layers: Layers that stay whole, by name or pattern.
    """

    budgets: Mapping[Side, float | str]
    convention: Convention
    min_channels: int
    channel_multiple: int
    student_weights: Literal["inherited", "fresh"]
    ignored_layers: list[str]


class Sides(nn.ModuleDict):
    """What is being pruned, by side."""

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> PrunedSide: ...
        def items(self) -> ItemsView[str, PrunedSide]: ...  # noqa: D102


class Policy(Protocol):
    """What the search asks of the callback that chooses channels."""

    search_epochs: int

    def agents(self, search: SearchPhase) -> Mapping[Side, nn.Module]:
        """What learns to choose, by side."""

    def optimizer(self, search: SearchPhase, side: Side) -> Optimizer:
        """The optimizer of an agent."""

    def losses(
        self, search: SearchPhase, batch: dict[str, Any], at: Position
    ) -> Iterator[tuple[Side, Tensor, Logs]]:
        """The loss of one side after the other; each is stepped before the next is computed."""

    def choose(self, search: SearchPhase) -> dict[Side, Tensor]:
        """The final mask per side, within the budgets."""


class SearchPhase(Phase):
    """Masks on the student, budgets, and the agents that learn which channels stay.

    Args:
        networks: Teacher and student; the latter's get gates.
        pruning: Budgets and limits.
        policy: Decides; None for a look at the masks that a checkpoint holds.
        beta1: Adam's first momentum, for policies that train the networks' weights.
        budgets: In place of those of `pruning`.

    Attributes:
        sides: Groups, masks, cost and budget of each side that is pruned.
        agents: By side.
    """

    name: PhaseName = "search"

    def __init__(
        self,
        networks: TeacherStudent,
        pruning: Pruning,
        policy: Policy | None,
        beta1: float = 0.5,
        budgets: Mapping[Side, float | str] | None = None,
    ) -> None:
        self.networks, self.pruning, self.policy, self.beta1 = networks, pruning, policy, beta1
        self.sides, self.agents = Sides(), nn.ModuleDict()
        if budgets is None:
            budgets = {side: budget for side, budget in pruning.budgets.items() if budget not in WHOLE}
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

    def pruned(self) -> list[tuple[Side, PrunedSide]]:
        """The sides that are pruned."""
        return [(Side(name), pruned) for name, pruned in self.sides.items()]

    def roles(self) -> dict[Side, list[Role]]:
        """The networks under one mask, by side."""
        return {side: list(map(Role, self.networks.group(side))) for side, _ in self.pruned()}

    def begin(self) -> None:
        """Make the agents."""
        assert self.policy is not None
        for side, agent in self.policy.agents(self).items():
            self.agents[side.value] = agent

    # -- training --------------------------------------------------------------------------------------

    def trained(self) -> dict[str, nn.Module]:
        """The agents; a policy may train the networks' weights by the same optimizers."""
        return dict(self.agents.items())

    def optimizer(self, name: str) -> Optimizer:
        """The policy's."""
        assert self.policy is not None
        return self.policy.optimizer(self, Side(name))

    def averaged(self) -> list[nn.Module]:
        """All of the student but what is frozen: its batch norms follow the masks."""
        frozen = self.networks.frozen
        return [network for role, network in self.networks.student.items() if role not in frozen]

    def set_modes(self) -> None:
        """Nothing trains but the student's batch norms."""
        self.networks.teacher.eval()
        self.networks.student.eval()
        # Dropped channels shift what a norm sees. With the teacher's statistics the search would judge a
        # broken network: on facades the L1 to the teacher at the cut was 0.285, and 0.242 with those of
        # the batch (U-Net ngf 32, a tenth of the MACs, 400 steps, statistics estimated anew for both).
        for layer in self.networks.student.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.train()

    def step(self, batch: dict[str, Any], at: Position, optimizers: Optimizers) -> Logs:
        """One step of each side, in the policy's order; each loss reaches its own side only."""
        assert self.policy is not None
        logs: Logs = {}
        for side, loss, terms in self.policy.losses(self, batch, at):
            optimizers.step(side.value, loss)
            self.sides[side.value].masks.freeze()
            logs |= terms
        return logs

    # -- masks -----------------------------------------------------------------------------------------

    def show(self, masks: Mapping[Side, Tensor]) -> None:
        """Put masks `(total,)` on the student; they keep their graph."""
        for side, mask in masks.items():
            self.sides[side.value].masks.set(mask)

    def shown(self) -> dict[Side, Tensor]:
        """The masks that are on the student, `(total,)` of zeros and ones, without their graph."""
        return {side: pruned.masks.mask.clone() for side, pruned in self.pruned()}

    def freeze(self) -> None:
        """Cut the masks on the student from their graph."""
        for pruned in self.sides.values():
            assert isinstance(pruned, PrunedSide)
            pruned.masks.freeze()

    @contextmanager
    def still(self, side: Side, trained: bool) -> Iterator[None]:
        """Meanwhile the student's weights of a side ask for no gradients; `trained` says if they do after."""
        group = self.networks.group(side).requires_grad_(False)
        try:
            yield
        finally:
            group.requires_grad_(trained)

    # -- the border ------------------------------------------------------------------------------------

    def cut(self, masks: Mapping[Side, Tensor], seed: int) -> list[str]:
        """Replace the student's masked networks by the small dense ones that the masks leave.

        Args:
            masks: Final ones, `(total,)` of zeros and ones.
            seed: Of the weights of `fresh` networks.

        Returns:
            What each side costs now, in words.
        """
        told = []
        for side, mask in masks.items():
            pruned, group = self.sides[side.value], self.networks.group(side)
            small = pruned.slim(group, mask)
            told.append(self._counted(pruned, small))
            for role, network in small.items():
                if self.pruning.student_weights == "fresh":
                    renew(network, seed=seed)
                self.networks.adopt_small(Role(role), network)
        return told

    def _counted(self, pruned: PrunedSide, small: NetworkGroup) -> str:
        """Count the small networks themselves, independently of the masks, and hold them to the budget."""
        convention = self.pruning.convention
        macs = count_macs(small, self.networks.samples(small), convention)
        if macs > pruned.budget:
            raise AssertionError(f"{pruned.name}: {macs} MACs are above the budget of {pruned.budget}")
        return (
            f"{' and '.join(small)}: {macs / 1e9:.4g} of {pruned.cost.full / 1e9:.4g} GMACs ({convention}), "
            f"budget {pruned.budget / 1e9:.4g}"
        )

    def parts(self) -> dict[str, nn.Module]:
        """Masks and agents."""
        return {"sides": self.sides, "agents": self.agents}


def ignored_layers(networks: TeacherStudent, patterns: list[str]) -> dict[Side, list[str]]:
    """The layers of each side that stay whole; a name without its network's is of the generators.

    Raises:
        UserError: There is no such layer on either side.
    """
    generators, discriminators = networks.group(Side.GENERATOR), networks.group(Side.DISCRIMINATOR)
    prefix = Side.DISCRIMINATOR.value
    own = [p for p in patterns if p.startswith(prefix) and discriminators.has(p)]
    for pattern in patterns:
        if pattern not in own and not generators.qualified([pattern]):
            roles = " and ".join([*generators, *discriminators])
            raise UserError(f"model.ignored_layers: {roles} have no layer named {pattern!r}.")
    return {Side.GENERATOR: generators.qualified(patterns), Side.DISCRIMINATOR: own}
