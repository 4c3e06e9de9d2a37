"""Running statistics of batch norms on several devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def average_statistics(networks: Iterable[nn.Module], mean: Callable[[Tensor], Tensor]) -> None:
    """Average running statistics over the ranks, since manual optimization broadcasts no buffers.

    Args:
        networks: Networks with batch norms, or without.
        mean: Averages a tensor over the ranks.
    """
    buffers = [
        buffer
        for network in networks
        for name, buffer in network.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    ]
    if buffers:
        flat: Tensor = mean(torch.cat([b.flatten() for b in buffers]))
        for buffer, average in zip(buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True):
            buffer.copy_(average.view_as(buffer))
