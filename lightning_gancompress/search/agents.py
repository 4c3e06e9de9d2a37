"""Recurrent networks that output a logit per channel, and the sampling of masks from logits."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

_INPUT, _HIDDEN = 64, 128
_OFFSET = 3.0  # new agents, whose logits are near 0, keep nearly all channels
_MEDIAN = -math.log(math.log(2))  # of Gumbel noise


class PeerEncoder(nn.Module):
    """Encodes the other side's mask as one vector: the feedback between the two agents.

    Args:
        sizes: Channels per group of the other side.
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

    def narrow(self, keep: Tensor) -> None:
        """Drop the inputs of channels, `(total,)` of zeros and ones, that no mask keeps any more."""
        stays = torch.split(keep > 0.5, self.sizes)
        self.sizes = [int(columns.sum()) for columns in stays]
        for embed, columns in zip(self.embed, stays, strict=True):
            (linear, *_) = embed.children()
            assert isinstance(linear, nn.Linear)
            linear.in_features = int(columns.sum())
            linear.weight.data = linear.weight.data[:, columns.to(linear.weight.device)]


class PruningAgent(nn.Module):
    """Computes a logit for every droppable channel of one side, given the mask of the other side.

    Fixed orthogonal inputs, one per group, go through a bidirectional GRU, LayerNorm, ReLU and one
    weight-normed linear layer per group (the recurrent policy of the paper's authors).

    Args:
        sizes: Channels per group of the agent's own side.
        peer_sizes: Channels per group of the other side; None for no feedback.
        prior: Logits `(total,)` that the network's own are added to; None is 0.
    """

    inputs: Tensor
    prior: Tensor

    def __init__(
        self, sizes: Sequence[int], peer_sizes: Sequence[int] | None = None, prior: Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(sum(sizes)) if prior is None else prior)
        self.register_buffer("inputs", nn.init.orthogonal_(torch.empty(len(sizes), _INPUT)).unsqueeze(1))
        self.peer = PeerEncoder(peer_sizes) if peer_sizes is not None else None
        self.gru = nn.GRU(_INPUT, _HIDDEN, bidirectional=True)
        self.norm = nn.LayerNorm(2 * _HIDDEN)
        self.heads = nn.ModuleList(weight_norm(nn.Linear(2 * _HIDDEN, size, bias=False)) for size in sizes)

    def forward(self, peer_mask: Tensor | None = None) -> Tensor:
        """Logits `(total,)`, given the other side's mask `(peer_total,)`, which gets no gradient."""
        start = None
        if self.peer is not None and peer_mask is not None:
            # a copy: the buffer is overwritten before the backward pass
            start = self.peer(peer_mask.detach().clone()).expand(2, 1, _HIDDEN).contiguous()
        states = self.norm(self.gru(self.inputs, start)[0]).relu()
        logits = [head(state.flatten()) for head, state in zip(self.heads, states, strict=True)]
        return torch.cat(logits) + self.prior

    def narrowed(self, keep: Tensor, peer_keep: Tensor | None) -> PruningAgent:
        """A copy without the channels that are dropped on either side; the logits of the others are the same.

        Args:
            keep: `(total,)` of zeros and ones, of the own side.
            peer_keep: `(peer_total,)`, of the other side, whose masks no longer hold the dropped channels;
                None without one.
        """
        agent = copy.deepcopy(self)
        agent.prior = self.prior[keep.to(self.prior.device) > 0.5]
        heads = [head for head in agent.heads if isinstance(head, nn.Linear)]
        stays = torch.split(keep > 0.5, [head.out_features for head in heads])
        for head, rows in zip(heads, stays, strict=True):
            head.out_features = int(rows.sum())
            for parameter in head.parameters():  # direction and length of each row: see `weight_norm`
                parameter.data = parameter.data[rows.to(parameter.device)]
        if agent.peer is not None and peer_keep is not None:
            agent.peer.narrow(peer_keep)
        return agent


def gumbel(size: int, seed: Sequence[int]) -> Tensor:
    """Standard Gumbel noise `(size,)` on the CPU; the same on every rank, since only `seed` decides it."""
    mixed = 0
    for number in seed:
        mixed = (mixed * 1_000_003 + number + 1) % (2**63)
    uniform = torch.rand(size, generator=torch.Generator().manual_seed(mixed)).clamp(1e-6, 1 - 1e-6)
    return -(-uniform.log()).log()


def relax(logits: Tensor, noise: Tensor | None, temperature: float) -> Tensor:
    """Soft mask `sigmoid((logits + noise + 3) / temperature)`, `(total,)` in (0, 1).

    Without noise the median of Gumbel noise is added, so that the channels above 0.5 are those that a drawn
    mask keeps with a probability above 1/2. With zero, as the authors have it, fewer channels would be above
    0.5 than in the drawn masks, on which the budget penalty acts.
    """
    shift = _MEDIAN if noise is None else noise.to(logits, non_blocking=True)  # waits for no earlier kernel
    return ((logits + shift + _OFFSET) / temperature).sigmoid()


def binarize(soft: Tensor, sizes: Sequence[int], min_channels: int) -> Tensor:
    """Round a soft mask `(total,)` at 0.5 with a straight-through gradient.

    In every group of `sizes` at least the `min_channels` highest values become 1.
    """
    hard = (soft.detach() > 0.5).to(soft)
    groups = torch.split(hard, list(sizes)), torch.split(soft.detach(), list(sizes))
    for mask, values in zip(*groups, strict=True):
        mask[values.topk(min(min_channels, len(mask))).indices] = 1.0
    return hard + (soft - soft.detach())  # in this order the value is exactly 0 or 1
