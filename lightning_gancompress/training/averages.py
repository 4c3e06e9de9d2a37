"""Moving averages of the weights of the generators that are trained. Imports no Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.checkpoints.resumable import AVERAGES_KEY


class Averages:
    """Exponential moving averages of some tensors of a module, which can take the place of these.

    In a checkpoint the averages are the weights of the networks, so that whatever reads it has them; an entry
    `averages` keeps the trained weights, from which a run is resumed.

    Args:
        decay: Share of the average that stays in a step, from 0 to 1. After n steps it is at most
            (1 + n) / (10 + n), so that the first weights are soon forgotten.

    Attributes:
        steps: Number of averaged steps.
        tensors: Averages by the names of the module's state dict; float32 where weights have fewer bits.
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.tensors: dict[str, Tensor] = {}
        self._live: dict[str, Tensor] = {}  # the tensors of the module
        self._aside: dict[str, Tensor] = {}  # their values, while the averages are in their place

    def watch(self, module: nn.Module, networks: list[nn.Module]) -> None:
        """Average the tensors of `networks`, which are parts of `module`; averages of others are dropped."""
        prefixes = [f"{name}." for name, part in module.named_modules() if any(part is n for n in networks)]
        state = module.state_dict(keep_vars=True)
        self._live = {name: t for name, t in state.items() if name.startswith(tuple(prefixes))}
        if self.tensors.keys() != self._live.keys():
            self.steps, self.tensors = 0, {}
        self.tensors = {name: tensor.to(self._live[name].device) for name, tensor in self.tensors.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Average the tensors as they are after a step."""
        live = {name: tensor.detach().to(wide(tensor.dtype)) for name, tensor in self._live.items()}
        if not self.tensors:
            self.tensors = {name: tensor.clone() for name, tensor in live.items()}
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in live.items():
            if is_averaged(name, self._live[name]):
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)
        self.steps += 1

    @torch.no_grad()
    def apply(self) -> None:
        """Put the averages in the place of the weights; nothing before the first step."""
        if self.tensors and not self._aside:
            self._aside = {name: tensor.detach().clone() for name, tensor in self._live.items()}
            for name, tensor in self._live.items():
                tensor.copy_(self.tensors[name])

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights back in their place."""
        for name, tensor in self._aside.items():
            self._live[name].copy_(tensor)
        self._aside = {}

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write the averages as the weights in a checkpoint, and the trained weights into an entry of it."""
        if self.tensors:
            state = checkpoint["state_dict"]
            trained = self._aside or {name: state[name] for name in self.tensors}
            state.update(self.tensors)
            checkpoint[AVERAGES_KEY] = {"decay": self.decay, "steps": self.steps, "trained": trained}

    def load(self, averaged: Mapping[str, Tensor], steps: int) -> None:
        """Take over the averages of a resumed run."""
        self.tensors = {name: tensor.to(wide(tensor.dtype), copy=True) for name, tensor in averaged.items()}
        self.steps = steps


def to_trained_weights(checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
    """Put the trained weights into a checkpoint that is to be resumed; return the averages and their steps.

    Both are empty and 0 for a checkpoint without averages.
    """
    entry = checkpoint.get(AVERAGES_KEY)
    if entry is None:
        return {}, 0
    state = checkpoint["state_dict"]
    averaged = {name: state[name] for name in entry["trained"]}
    state.update(entry["trained"])
    return averaged, int(entry["steps"])


def is_averaged(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is averaged: parameters and the statistics of norms; others are copied."""
    return tensor.is_floating_point() and (
        isinstance(tensor, nn.Parameter) or name.endswith(("running_mean", "running_var"))
    )


def wide(dtype: torch.dtype) -> torch.dtype:
    """A type in which small steps of an average aren't lost."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
