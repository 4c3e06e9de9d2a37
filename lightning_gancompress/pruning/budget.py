"""Budget: what a user asks for, its penalty during the search, and the channels that meet it exactly."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_gancompress.errors import UserError
from lightning_gancompress.pruning.groups import ChannelGroups

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def parse_budget(value: float | str, full: int, name: str = "budget") -> int:
    """MACs that a budget stands for.

    Args:
        value: A fraction in (0, 1] of the teacher's MACs, or an absolute number: 2.4e9, "2.4G", "800M".
        full: The teacher's MACs in the same convention.
        name: What to call it in an error.

    Raises:
        UserError: Not a number, not positive, or above the teacher.
    """
    match = re.fullmatch(r"\s*([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)\s*([KMGT]?)\s*", str(value), re.IGNORECASE)
    try:
        if match is None:
            raise ValueError
        number = float(match[1]) * _UNITS[match[2].upper()]
    except ValueError:
        raise UserError(
            f"{name}: {value!r} is no budget; give a fraction of the teacher's MACs (0.1) or a number (2.4G)."
        ) from None
    macs = number * full if number <= 1.0 else number
    if not macs > 0 or not math.isfinite(macs):
        raise UserError(f"{name}: {value!r} must be above zero: a fraction (0.1) or MACs (2.4G).")
    if macs > full:
        raise UserError(
            f"{name}: {value!r} is above the teacher's own {full / 1e9:.4g} GMACs; ask for less, or for 1.0 to "
            "keep it whole."
        )
    return int(macs)


def budget_penalty(macs: Tensor, budget: float) -> Tensor:
    """`R = log(max(T, B) / B)`: zero within the budget `B`, then growing with the excess."""
    return (macs / budget).clamp_min(1.0).log()


def fit_budget(
    scores: Tensor,
    groups: ChannelGroups,
    macs: Callable[[Tensor], Tensor],
    budget: int,
    min_channels: int = 1,
    channel_multiple: int = 1,
    name: str = "budget",
) -> Tensor:
    """Keep the channels with the highest scores that fit into the budget.

    A single cut through the sorted scores is found by bisection (the same as one scalar shift of an agent's
    logits); what one more channel would overshoot is filled with the best-scored channels that still fit.

    Args:
        scores: `(total,)`, higher is kept first.
        groups: The network's groups.
        macs: MACs under a `(total,)` mask.
        budget: Largest MACs allowed.
        min_channels: Channels that stay in every group.
        channel_multiple: Widths are multiples of this (or the whole group where it is smaller).
        name: What to call the budget in an error.

    Returns:
        A `(total,)` float mask of zeros and ones, with MACs at most `budget`.

    Raises:
        UserError: Even the smallest network is above the budget; the message says how large it is.
    """
    mask, atoms = _atoms(scores.detach().double().cpu(), groups, min_channels, channel_multiple)
    smallest = float(macs(mask))
    if smallest > budget:
        raise UserError(
            f"{name}: {budget / 1e9:.4g} GMACs can't be reached; the smallest network with min_channels="
            f"{min_channels} and channel_multiple={channel_multiple} has {smallest / 1e9:.4g} GMACs."
        )

    def kept(count: int) -> Tensor:
        cut = mask.clone()
        for atom in atoms[:count]:
            cut[atom] = 1.0
        return cut

    low, high = 0, len(atoms)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if float(macs(kept(middle))) <= budget else (low, middle - 1)
    mask = kept(low)
    for atom in atoms[low:]:
        if float(macs(mask)) > 0.998 * budget:
            break
        wider = mask.clone()
        wider[atom] = 1.0
        if float(macs(wider)) <= budget:
            mask = wider
    return mask.float()


def _atoms(
    scores: Tensor, groups: ChannelGroups, min_channels: int, multiple: int
) -> tuple[Tensor, list[Tensor]]:
    """The channels that always stay, and the others in bundles of `multiple`, best first."""
    mask = torch.zeros_like(scores)
    atoms: list[tuple[float, Tensor]] = []
    offset = 0
    for part in groups.split(scores):
        order = part.argsort(descending=True, stable=True)
        floor = min(len(part), multiple * math.ceil(max(min_channels, 1) / multiple))
        mask[offset + order[:floor]] = 1.0
        for bundle in order[floor:].split(multiple):
            atoms.append((float(part[bundle].mean()), offset + bundle))
        offset += len(part)
    atoms.sort(key=lambda atom: -atom[0])
    return mask, [bundle for _, bundle in atoms]
