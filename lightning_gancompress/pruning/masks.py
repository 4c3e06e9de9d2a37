"""Masks: one number per droppable channel, multiplied into the inputs of every layer that consumes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.pruning.channels import CONSUMERS, ChannelGroups


class ChannelMasks(nn.Module):
    """The masks of one network, as forward hooks on layers that themselves stay untouched.

    The flat mask is the buffer `mask` (it is what a checkpoint keeps and what the other agent reads); the
    value in use may also carry the graph of the agent that made it, see `set`.
    """

    mask: Tensor
    index: Tensor

    def __init__(self, groups: ChannelGroups) -> None:
        super().__init__()
        self.groups = groups
        self.register_buffer("mask", torch.ones(groups.total))
        self._gated = [name for name, c in groups.layers.items() if (c.inputs < groups.total).any()]
        self._lengths = [len(groups.layers[name].inputs) for name in self._gated]
        index = [groups.layers[name].inputs for name in self._gated]
        self.register_buffer("index", torch.cat(index), persistent=False)
        self.live = self.mask  # the mask in use, with the graph of the agent that made it
        self._slices: dict[str, Tensor] | None = None
        self.register_load_state_dict_post_hook(lambda masks, _: masks.freeze())  # type: ignore[no-untyped-call]
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def attach(self, network: nn.Module) -> None:
        """Put a gate before every layer of `network` that reads droppable channels."""
        for name in self._gated:
            layer = network.get_submodule(name)
            if isinstance(layer, CONSUMERS):
                self._hooks.append(layer.register_forward_pre_hook(partial(self._gate, name)))

    def detach(self) -> None:
        """Take the gates off again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def set(self, mask: Tensor) -> None:
        """Use a `(total,)` mask in [0, 1] from now on; gradients flow back into it."""
        self.mask.copy_(mask.detach())
        self.live = mask
        whole = torch.cat([mask, mask.new_ones(1)])
        slices = torch.split(whole[self.index], self._lengths)
        self._slices = dict(zip(self._gated, slices, strict=True))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ChannelMasks:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._slices is not None:
            self.freeze()  # to another device, say: what is in use goes along
        return self

    def freeze(self) -> None:
        """Go on with the present values, cut from the graph that made them."""
        self.set(self.mask.clone())

    def _gate(self, name: str, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._slices is None:
            return None
        x, *rest = args
        scale = self._slices[name].to(x.dtype)
        return (x * (scale if isinstance(layer, nn.Linear) else scale.view(1, -1, 1, 1)), *rest)
