"""The recurrent policy that decides, layer by layer, which channels stay."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

_INPUT, _HIDDEN = 64, 128
_OFFSET = 3.0  # every agent starts from the full network
_MEDIAN = -math.log(math.log(2))  # of Gumbel noise


class PeerEncoder(nn.Module):
    """What the other agent kept, as one vector: the feedback between the two agents.

    Args:
        sizes: Channels per group of the other network.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.embed = nn.ModuleList(
            nn.Sequential(nn.Linear(size, _HIDDEN), nn.LayerNorm(_HIDDEN), nn.ReLU()) for size in sizes
        )
        self.gru = nn.GRU(_HIDDEN, _HIDDEN)

    def forward(self, mask: Tensor) -> Tensor:
        """Encode a flat `(total,)` mask into `(128,)`."""
        steps = [embed(part) for embed, part in zip(self.embed, torch.split(mask, self.sizes), strict=True)]
        last: Tensor = self.gru(torch.stack(steps).unsqueeze(1))[1]
        return last.flatten()


class PruningAgent(nn.Module):
    """Logits for every droppable channel of one network, given what the peer kept of the other.

    Fixed orthogonal inputs, one per group, go through a bidirectional GRU, LayerNorm, ReLU and one
    weight-normed linear layer per group (the recurrent policy of the paper's authors).

    Args:
        sizes: Channels per group of its own network.
        peer_sizes: Channels per group of the other network; None cuts the feedback.
    """

    inputs: Tensor

    def __init__(self, sizes: Sequence[int], peer_sizes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.register_buffer("inputs", nn.init.orthogonal_(torch.empty(len(sizes), _INPUT)).unsqueeze(1))
        self.peer = PeerEncoder(peer_sizes) if peer_sizes is not None else None
        self.gru = nn.GRU(_INPUT, _HIDDEN, bidirectional=True)
        self.norm = nn.LayerNorm(2 * _HIDDEN)
        self.heads = nn.ModuleList(weight_norm(nn.Linear(2 * _HIDDEN, size, bias=False)) for size in sizes)

    def forward(self, peer_mask: Tensor | None = None) -> Tensor:
        """Logits `(total,)`; `peer_mask` is the other network's flat mask (no gradient flows into it)."""
        start = None
        if self.peer is not None and peer_mask is not None:
            # a copy: the buffer is overwritten before the backward pass
            start = self.peer(peer_mask.detach().clone()).expand(2, 1, _HIDDEN).contiguous()
        states = self.norm(self.gru(self.inputs, start)[0]).relu()
        return torch.cat([head(state.flatten()) for head, state in zip(self.heads, states, strict=True)])


def gumbel(size: int, seed: Sequence[int]) -> Tensor:
    """Standard Gumbel noise `(size,)` on the CPU, from a seed: every rank draws the same."""
    mixed = 0
    for part in seed:
        mixed = (mixed * 1_000_003 + part + 1) % (2**63)
    uniform = torch.rand(size, generator=torch.Generator().manual_seed(mixed)).clamp(1e-6, 1 - 1e-6)
    return -(-uniform.log()).log()


def relax(logits: Tensor, noise: Tensor | None, temperature: float) -> Tensor:
    """Soft mask `sigmoid((logits + noise + 3) / temperature)`.

    Without noise its median stands in, so that the channels above 0.5 are those drawn more often than not. At
    zero, the authors' choice, the mask would be smaller than those drawn, on which the budget is held.
    """
    # without waiting for the step before
    shift = _MEDIAN if noise is None else noise.to(logits, non_blocking=True)
    return ((logits + shift + _OFFSET) / temperature).sigmoid()


def binarize(soft: Tensor, sizes: Sequence[int], min_channels: int) -> Tensor:
    """Round a soft mask at 0.5, forward only (straight-through), never below `min_channels` a group."""
    hard = (soft.detach() > 0.5).to(soft)
    parts = torch.split(hard, list(sizes)), torch.split(soft.detach(), list(sizes))
    for part, values in zip(*parts, strict=True):
        part[values.topk(min(min_channels, len(part))).indices] = 1.0
    return hard + (soft - soft.detach())  # in this order the value is exactly 0 or 1
