"""One side of a GAN in the search: groups, masks, cost and budget of its networks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.networks import has_parametrizations
from lightning_gancompress.pruning.budget import budget_penalty, fit_budget, parse_budget, smallest_mask
from lightning_gancompress.pruning.cost import Convention, MaskedCost
from lightning_gancompress.pruning.groups import find_groups
from lightning_gancompress.pruning.masks import ChannelMasks
from lightning_gancompress.pruning.slim import slim


class NetworkGroup(nn.ModuleDict):
    """Networks by role that share one mask and one budget; called with one input per network."""

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Outputs of the networks, in their order."""
        return [network(x) for network, x in zip(self.values(), inputs, strict=True)]

    def has(self, pattern: str) -> bool:
        """Whether a pattern matches the full name of a layer, which begins with the role."""
        return any(name and fnmatchcase(name, pattern) for name, _ in self.named_modules())

    def qualified(self, patterns: Sequence[str]) -> list[str]:
        """The patterns that match layers, as they are, or with the role of each network before them."""
        candidates = [c for pattern in patterns for c in (pattern, *(f"{role}.{pattern}" for role in self))]
        return list(filter(self.has, candidates))


class PrunedSide(nn.Module):
    """Masks, cost and budget of the networks of one side.

    The networks may be narrowed on the way: groups, masks and cost are then those of the channels that are
    left. What is counted relative to the whole stays relative to the networks that it was made with.

    Args:
        name: `generator` or `discriminator`; names the budget in errors.
        network: The whole networks; hooks for the masks are registered on them.
        sample: Example inputs at the size at which MACs are counted, `(1, C, H, W)` each.
        budget: Fraction of the networks' MACs, or an absolute number such as `2.4G`.
        convention: How MACs are counted.
        min_channels: Least number of channels in every group.
        channel_multiple: Widths of the small network are multiples of this.
        ignored_layers: Layers that are not pruned, by name or pattern.

    Attributes:
        left: Which channels of the whole networks are left, `(total,)` of those; checkpoints hold it.
        narrowable: Whether the networks can be narrowed: no weights are parametrized or tied, which a small
            network has as plain ones.
    """

    left: Tensor

    def __init__(
        self,
        name: str,
        network: NetworkGroup,
        sample: Sequence[Tensor],
        budget: float | str,
        convention: Convention = "exact",
        min_channels: int = 1,
        channel_multiple: int = 1,
        ignored_layers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.name = name
        try:
            self.groups = find_groups(network, sample, ignored_layers)
        except UserError as error:
            if name == "generator":
                raise
            raise UserError(f"{error} model.{name}_budget: 1.0 keeps the {name}s whole.") from error
        self.cost = MaskedCost(network, self.groups, sample, convention)
        self.budget = parse_budget(budget, self.cost.full, f"{name} budget")
        self.min_channels, self.channel_multiple = min_channels, channel_multiple
        # raises now if the budget can't be reached, not after the search
        self.fit(torch.zeros(self.groups.total))
        self.register_buffer("left", torch.ones(self.groups.total, dtype=torch.bool))
        self.narrowable = not has_parametrizations(network) and not _is_tied(network)
        self.masks = ChannelMasks(self.groups)
        self.masks.attach(network)

    def summary(self) -> str:
        """Droppable channels, least possible MACs, and layers that are not pruned, as text."""
        smallest = smallest_mask(self.groups, self.min_channels, self.channel_multiple)
        least, most = float(self.cost(smallest)) / 1e9, self.cost.full / 1e9
        whole = Counter(self.groups.whole.values())
        stays = "; ".join(f"{n} layer{'s' * (n > 1)}: {reason}" for reason, n in whole.most_common(3))
        groups = f"{len(self.groups.sizes)} group{'s' * (len(self.groups.sizes) > 1)}"
        return (
            f"{self.name}: {self.groups.total} channels in {groups} can be dropped, down to {least:.4g} of "
            f"{most:.4g} GMACs; the budget is {self.budget / 1e9:.4g}. "
            f"What stays whole: {stays}{'; ...' * (len(whole) > 3)}."
            + " Parametrized or tied weights are cut at the end of the search alone."
            * (not self.narrowable)
        )

    def fit(self, scores: Tensor) -> Tensor:
        """The mask that keeps the best-scored channels within the budget, `(total,)` of zeros and ones."""
        mask = fit_budget(
            scores,
            self.groups,
            self.cost,
            self.budget,
            self.min_channels,
            self.channel_multiple,
            f"{self.name} budget",
        )
        return mask.to(scores.device)

    def penalty(self, mask: Tensor, progress: float) -> Tensor:
        """Budget penalty of a mask, for a target that falls exponentially from the whole network.

        A linear fall would leave too few steps at small networks: it goes from a fifth of the MACs to a
        twentieth within a sixth of its length.

        Args:
            mask: `(total,)`; gradients flow into it.
            progress: Position in the fall: at 0 the target is the whole network, from 1 on the budget.
        """
        return budget_penalty(self.cost(mask), self.target(progress))

    def target(self, progress: float) -> float:
        """The MACs to which the penalty pulls at a position in the fall, see `penalty`."""
        whole = float(self.cost.full)
        return whole * math.pow(self.budget / whole, min(progress, 1.0))

    def in_reach(self, scores: Tensor, mask: Tensor, progress: float, slack: float) -> Tensor:
        """The channels that later masks may still keep, `(total,)` of zeros and ones.

        Args:
            scores: `(total,)`; the highest are in reach.
            mask: `(total,)`; what would be kept now. With `progress` it says how far the fall has come.
            progress: Position in the fall of the target, see `penalty`.
            slack: From 0 to 1: in reach are as many MACs as the fall has come to, as a fraction of the whole,
                to the power of 1 - slack.
        """
        fallen = max(self.target(progress), float(self.cost(mask))) / self.cost.full
        macs = math.ceil(self.cost.full * fallen ** (1 - slack))
        multiple = self.channel_multiple
        return fit_budget(scores, self.groups, self.cost, macs, self.min_channels, multiple, self.name)

    def narrow(self, keep: Tensor, network: NetworkGroup) -> None:
        """Go on with networks without the channels that a `(total,)` mask drops, as `slim` makes them."""
        rest = self.left.clone()
        rest[self.left] = keep.to(self.left.device) > 0.5
        self.left.copy_(rest)
        self.groups, self.cost = self.groups.narrowed(keep), self.cost.narrowed(keep)
        mask = self.masks.mask[keep.to(self.masks.mask.device) > 0.5]
        self.masks = ChannelMasks(self.groups).to(mask.device)
        self.masks.attach(network)
        self.masks.set(mask)

    def kept_macs(self) -> float:
        """MACs under the current mask as a fraction of those of the whole network."""
        return float(self.cost(self.masks.mask)) / self.cost.full

    def slim(self, network: NetworkGroup, mask: Tensor) -> NetworkGroup:
        """The small dense networks with the channels that a mask keeps; removes the hooks of the masks."""
        self.masks.detach()
        return slim(network, self.groups, mask)


def _is_tied(network: nn.Module) -> bool:
    """Whether a parameter has several names."""
    names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    return len(names) > len(list(network.parameters()))
