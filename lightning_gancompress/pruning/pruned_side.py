"""One side of a GAN in the search: groups, masks, cost and budget of its networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
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

    Args:
        name: `generator` or `discriminator`; names the budget in errors.
        network: The whole networks; hooks for the masks are registered on them.
        sample: Example inputs at the size at which MACs are counted, `(1, C, H, W)` each.
        budget: Fraction of the networks' MACs, or an absolute number such as `2.4G`.
        convention: How MACs are counted.
        min_channels: Least number of channels in every group.
        channel_multiple: Widths of the small network are multiples of this.
        ignored_layers: Layers that are not pruned, by name or pattern.
    """

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
        target = self.cost.full * (self.budget / self.cost.full) ** min(progress, 1.0)
        return budget_penalty(self.cost(mask), target)

    def kept_macs(self) -> float:
        """MACs under the current mask as a fraction of those of the whole network."""
        return float(self.cost(self.masks.mask)) / self.cost.full

    def slim(self, network: NetworkGroup, mask: Tensor) -> NetworkGroup:
        """The small dense networks with the channels that a mask keeps; removes the hooks of the masks."""
        self.masks.detach()
        small = slim(network, self.groups, mask)
        assert isinstance(small, NetworkGroup)
        return small
