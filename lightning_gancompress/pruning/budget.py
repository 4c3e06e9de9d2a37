"""Budget: what a user asks for, its penalty during the search, and the channels that meet it exactly."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_gancompress.errors import UserError
from lightning_gancompress.pruning.channels import ChannelGroups

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
    if macs <= 0:
        raise UserError(f"{name}: {value!r} must be above zero: a fraction (0.1) or MACs (2.4G).")
    if macs > full:
        raise UserError(
            f"{name}: {value!r} is above the teacher's own {full / 1e9:.4g} GMACs; ask for less, or for 1.0 "
            "to keep it whole."
        )
    return int(macs)


def budget_penalty(macs: Tensor, budget: float) -> Tensor:
    """`R = |log(T / B)|`: zero on the budget `B`, growing with the excess and with what is left unused.

    Other code of the paper's authors has `log(max(T, B) / B)`. It leaves a search that has overshot a falling
    budget with fewer channels than it may have, and what the final cut adds was not chosen by anybody.
    """
    return (macs / budget).log().abs()


def smallest_mask(groups: ChannelGroups, min_channels: int = 1, channel_multiple: int = 1) -> Tensor:
    """The `(total,)` mask of the smallest network that there can be."""
    return _bundles(torch.zeros(groups.total), groups, min_channels, channel_multiple)[0].float()


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
        channel_multiple: Widths are multiples of this, or the whole group.
        name: What to call the budget in an error.

    Returns:
        A `(total,)` float mask of zeros and ones, with MACs at most `budget`.

    Raises:
        UserError: Even the smallest network is above the budget; the message says how large it is.
    """
    mask, bundles = _bundles(scores.detach().double().cpu(), groups, min_channels, channel_multiple)

    def fits(candidate: Tensor) -> bool:
        return float(macs(candidate)) < budget + 0.5  # whole numbers, but summed up with rounding

    if not fits(mask):
        raise UserError(
            f"{name}: {budget / 1e9:.4g} GMACs can't be reached; the smallest network with min_channels="
            f"{min_channels} and channel_multiple={channel_multiple} has {float(macs(mask)) / 1e9:.4g} GMACs."
        )

    def kept(count: int) -> Tensor:
        cut = mask.clone()
        for _, bundle in bundles[:count]:
            cut[bundle] = 1.0
        return cut

    low, high = 0, len(bundles)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(kept(middle)) else (low, middle - 1)
    mask = kept(low)
    narrow = set(range(len(groups.sizes)))  # groups that may have room for another bundle
    for group, bundle in bundles[low:]:
        if group in narrow:
            wider = mask.clone()
            wider[bundle] = 1.0
            if fits(wider):
                mask = wider
            else:
                narrow.remove(group)
    return mask.float()


def _bundles(
    scores: Tensor, groups: ChannelGroups, min_channels: int, multiple: int
) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """The channels that always stay, and the others in bundles of `multiple` with their group, best first."""
    mask = torch.zeros_like(scores)
    bundles: list[tuple[float, int, Tensor]] = []
    offset = 0
    for group, part in enumerate(groups.split(scores)):
        order = part.argsort(descending=True, stable=True)
        floor = min(len(part), multiple * math.ceil(max(min_channels, 1) / multiple))
        mask[offset + order[:floor]] = 1.0
        score = math.inf
        for bundle in torch.split(order[floor:], multiple):
            score = min(score, float(part[bundle].mean()))  # rounding must not put a later bundle first
            bundles.append((score, group, offset + bundle))
        offset += len(part)
    bundles.sort(key=lambda bundle: -bundle[0])
    return mask, [(group, bundle) for _, group, bundle in bundles]
