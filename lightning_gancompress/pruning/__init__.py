"""Structured pruning: groups of channels, masks, their cost, budgets, and small dense networks."""

from lightning_gancompress.pruning.budget import (
    Budget,
    Budgets,
    budget_penalty,
    down_to,
    fit_budget,
    largest_first,
    parse_budget,
    smallest_mask,
)
from lightning_gancompress.pruning.channels import ChannelGroups, weights_of
from lightning_gancompress.pruning.check import check_groups
from lightning_gancompress.pruning.cost import (
    Convention,
    LayerCost,
    MaskedCost,
    count_macs,
    count_params,
    layer_costs,
)
from lightning_gancompress.pruning.groups import find_groups, read_groups, slim_by_mask
from lightning_gancompress.pruning.masks import ChannelMasks
from lightning_gancompress.pruning.pruned_side import NetworkGroup, PrunedSide
from lightning_gancompress.pruning.slim import slim

__all__ = [
    "Budget",
    "Budgets",
    "ChannelGroups",
    "ChannelMasks",
    "Convention",
    "LayerCost",
    "MaskedCost",
    "NetworkGroup",
    "PrunedSide",
    "budget_penalty",
    "check_groups",
    "count_macs",
    "count_params",
    "down_to",
    "find_groups",
    "fit_budget",
    "largest_first",
    "layer_costs",
    "parse_budget",
    "read_groups",
    "slim",
    "slim_by_mask",
    "smallest_mask",
    "weights_of",
]
