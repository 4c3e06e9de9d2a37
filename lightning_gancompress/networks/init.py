"""Initialisation of weights."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Init = Literal["normal", "xavier", "kaiming", "orthogonal"]


def init_weights(network: nn.Module, init: Init = "normal", gain: float = 0.02) -> None:
    """Draw all weights of `network` anew, as pytorch-CycleGAN-and-pix2pix does.

    Convolutions and linear layers: `init` with zero biases. Batch norms: weight N(1, `gain`), bias 0.

    Args:
        network: Changed in place.
        init: Distribution of the weights; all but "orthogonal" are normal distributions.
        gain: Standard deviation for "normal", gain for "xavier" and "orthogonal"; "kaiming" has none.
    """
    draws: dict[Init, Callable[[Tensor], object]] = {
        "normal": lambda weight: nn.init.normal_(weight, 0.0, gain),
        "xavier": lambda weight: nn.init.xavier_normal_(weight, gain=gain),
        "kaiming": nn.init.kaiming_normal_,
        "orthogonal": lambda weight: nn.init.orthogonal_(weight, gain=gain),
    }
    draw = draws[init]
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            draw(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d) and layer.affine:
            nn.init.normal_(layer.weight, 1.0, gain)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def renew(network: nn.Module, seed: int) -> None:
    """Reset all parameters and statistics: `reset_parameters` of each layer, then `init_weights`.

    Args:
        network: Changed in place, on any device.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        init_weights(network)
