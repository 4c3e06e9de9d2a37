"""Budgets: parsing, the penalty during the search, and the choice of channels within a budget."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Annotated, Any

import torch
from torch import Tensor

from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Items, Kind
from lightning_gancompress.pruning.channels import ChannelGroups

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
LEAST = 1000  # MACs: a smaller number above 1 is no budget of an image network, but a slip


class IsBudget(Kind):
    """Requires a fraction of the teacher's MACs, or a number of MACs."""

    def accepts(self, value: Any) -> bool:
        """Whether a number or text is a budget of some network."""
        try:
            number = _number(value)
        except ValueError:
            return False
        return 0 < number <= 1 or LEAST <= number < math.inf

    def __str__(self) -> str:
        return f"a fraction of the teacher's MACs (0.3, not 30%), or MACs of {LEAST} or more (2.4G)"


Budget = Annotated[float | str, IsBudget()]
Budgets = Budget | Annotated[list[Budget], Items()]


def _number(value: float | str) -> Fraction:
    """The number that a budget stands for, a fraction or MACs, exactly as it is written in decimal digits.

    Raises:
        ValueError: It is no number.
    """
    match = re.fullmatch(r"\s*([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)\s*([KMGT]?)\s*", str(value), re.IGNORECASE)
    if match is None:
        raise ValueError(value)
    near = float(match[1])  # before a fraction is made that may have as many digits as an exponent says
    if not math.isfinite(near):
        raise ValueError(value)
    return (Fraction(match[1]) if near else Fraction(0)) * _UNITS[match[2].upper()]


def parse_budget(value: float | str, full: int, name: str = "budget") -> int:
    """The number of MACs of a budget.

    Args:
        value: A fraction in (0, 1] of the teacher's MACs, or an absolute number: 2.4e9, "2.4G", "800M".
        full: The teacher's MACs in the same convention.
        name: Name of the budget in errors.

    Raises:
        UserError: Not a budget, or above the teacher.
    """
    if not IsBudget().accepts(value):
        raise UserError(f"{name} is {value!r}: give {IsBudget()}.")
    number = _number(value)
    macs = number * full if number <= 1.0 else number
    if macs > full:
        raise UserError(
            f"{name}: {value!r} is above the teacher's own {full / 1e9:.4g} GMACs; ask for less, or for 1.0 "
            "to keep it whole."
        )
    return int(macs)


def largest_first(budgets: float | str | Sequence[float | str], name: str) -> list[float | str]:
    """One budget or several, the largest first.

    Args:
        budgets: Either fractions below 1, or numbers of MACs, all different.
        name: Name of the option in errors.

    Raises:
        UserError: Two can't be told apart, or the teacher would have to be known to sort them.
    """
    if isinstance(budgets, (str, float, int)):
        return [budgets]
    numbers = {budget: _number(budget) for budget in budgets}
    if len({number <= 1 for number in numbers.values()}) > 1:
        raise UserError(
            f"{name}: {list(budgets)} are fractions and numbers of MACs, which can't be sorted: give all as "
            "the one or the other."
        )
    if len(budgets) > len(set(numbers.values())):
        raise UserError(f"{name}: {list(budgets)} has a budget twice: leave one out.")
    if len(budgets) > 1 and 1 in numbers.values():
        raise UserError(
            f"{name}: 1.0 of {list(budgets)} is the whole network, not a smaller one: leave it out."
        )
    return sorted(budgets, key=_number, reverse=True)


def down_to(smallest: float | str | Sequence[float | str], count: int, name: str) -> list[float | str]:
    """Budgets in equal factors from the whole network, which is left out, down to the smallest.

    Args:
        smallest: A fraction of the teacher's MACs.
        count: Number of budgets; rounding to two digits may leave fewer.
        name: Name of the option in errors.

    Raises:
        UserError: It is no fraction below 1.
    """
    if not isinstance(smallest, (str, float, int)) or not _number(smallest) < 1:
        raise UserError(
            f"{name} is {smallest!r}: with model.quality give the smallest fraction of the teacher's MACs to "
            "try, such as 0.05."
        )
    steps = (float(f"{float(_number(smallest)) ** (step / count):.2g}") for step in range(1, count))
    return [*dict.fromkeys(step for step in steps if float(_number(smallest)) < step < 1), smallest]


def budget_penalty(macs: Tensor, budget: float) -> Tensor:
    """`R = |log(T / B)|` of `macs` T and `budget` B: zero for T = B, positive above and below.

    Other code of the paper's authors has `log(max(T, B) / B)`. With it a search that falls below the budget
    stays there, and the channels that are added after the search were not chosen by the agent.
    """
    return (macs / budget).log().abs()


def smallest_mask(groups: ChannelGroups, min_channels: int = 1, channel_multiple: int = 1) -> Tensor:
    """The `(total,)` mask of the smallest possible network."""
    return _blocks(torch.zeros(groups.total), groups, min_channels, channel_multiple)[0].float()


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

    A threshold of the sorted scores is found by bisection (the same as one scalar shift of an agent's
    logits); the rest of the budget is filled with the best-scored channels that still fit.

    Args:
        scores: `(total,)`; the highest are kept.
        groups: The network's groups.
        macs: Maps a `(total,)` mask on the CPU to MACs.
        budget: Largest number of MACs.
        min_channels: Least number of channels in every group.
        channel_multiple: Numbers of channels are multiples of this, or the whole group.
        name: Name of the budget in errors.

    Returns:
        A `(total,)` float mask of zeros and ones on the CPU, with MACs at most `budget`.

    Raises:
        UserError: Even the smallest network is above the budget; the message has its MACs.
    """
    mask, blocks = _blocks(scores.detach().cpu().double(), groups, min_channels, channel_multiple)

    def fits(candidate: Tensor) -> bool:
        return float(macs(candidate)) < budget + 0.5  # MACs are integers, but summed with rounding errors

    if not fits(mask):
        raise UserError(
            f"{name}: {budget / 1e9:.4g} GMACs can't be reached; the smallest network with min_channels="
            f"{min_channels} and channel_multiple={channel_multiple} has {float(macs(mask)) / 1e9:.4g} GMACs."
        )

    def kept(count: int) -> Tensor:
        wider = mask.clone()
        for _, block in blocks[:count]:
            wider[block] = 1.0
        return wider

    low, high = 0, len(blocks)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(kept(middle)) else (low, middle - 1)
    mask = kept(low)
    open_groups = set(range(len(groups.sizes)))  # groups to which another block may still be added
    for group, block in blocks[low:]:
        if group in open_groups:
            wider = mask.clone()
            wider[block] = 1.0
            if fits(wider):
                mask = wider
            else:
                open_groups.remove(group)
    return mask.float()


def _blocks(
    scores: Tensor, groups: ChannelGroups, min_channels: int, multiple: int
) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """The mask of the least channels, and the other channels in blocks of `multiple`, best first.

    Returns:
        A `(total,)` mask, and for each block its group and the positions of its channels.
    """
    mask = torch.zeros_like(scores)
    blocks: list[tuple[float, int, Tensor]] = []
    offset = 0
    for group, own in enumerate(groups.split(scores)):
        order = own.argsort(descending=True, stable=True)
        least = min(len(own), multiple * math.ceil(max(min_channels, 1) / multiple))
        mask[offset + order[:least]] = 1.0
        score = math.inf
        for block in torch.split(order[least:], multiple):
            score = min(score, float(own[block].mean()))  # never above the block before, despite rounding
            blocks.append((score, group, offset + block))
        offset += len(own)
    blocks.sort(key=lambda block: -block[0])
    return mask, [(group, block) for _, group, block in blocks]
