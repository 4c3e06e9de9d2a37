"""Masks: one number per droppable channel, multiplied into the inputs of every layer that consumes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.pruning.channels import CONSUMERS, ChannelGroups, Filters
from lightning_gancompress.pruning.convolution import Kept, convolve, is_plain, pays


class ChannelMasks(nn.Module):
    """The masks of one network, applied by forward hooks and by forwards of convolutions.

    The buffer `mask` is the flat mask, `(total,)` of zeros and ones, in checkpoints and as the input of the
    other agent. `live` is the mask in use, through which gradients flow to the agent. `set`
    alone changes both.
    """

    mask: Tensor
    index: Tensor

    def __init__(self, groups: ChannelGroups) -> None:
        super().__init__()
        self.groups = groups
        self.register_buffer("mask", torch.ones(groups.total))
        self._filters = {n: f for n, f in groups.filters.items() if f.axes[1] in groups.tensors.get(n, ())}
        read = {name: channels.inputs for name, channels in groups.layers.items()}
        read |= {name: filters.inputs for name, filters in self._filters.items()}
        read = {name: inputs for name, inputs in read.items() if (inputs < groups.total).any()}
        self._gated, self._lengths = list(read), [len(inputs) for inputs in read.values()]
        self.register_buffer("index", torch.cat(list(read.values())), persistent=False)
        self.live = self.mask
        self._slices: dict[str, Tensor] | None = None
        self.register_load_state_dict_post_hook(lambda masks, _: masks.set(masks.mask.clone()))  # type: ignore[no-untyped-call]
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._convolved: dict[str, tuple[nn.Module, Any]] = {}  # layers with a forward of these masks, and it
        self._kept: dict[str, Kept] = {}  # of the mask in use, by layer

    def attach(self, network: nn.Module) -> None:
        """Register hooks that multiply the inputs of every layer which reads droppable channels."""
        for name in self._gated:
            if name in self._filters:
                self._gate_filters(network, name, self._filters[name])
                continue
            layer = network.get_submodule(name)
            if isinstance(layer, CONSUMERS):
                filters = self._own_forward(name, layer)
                if is_plain(layer):
                    # a partial, not a closure: a copy of the network has to use its own tensors
                    own = partial(self._convolve, name, layer)
                    layer.forward = own  # type: ignore[method-assign]
                    self._convolved[name] = layer, own
                elif filters is None:
                    gate = partial(self._gate, name)
                    self._hooks.append(layer.register_forward_pre_hook(gate, with_kwargs=True))
                else:
                    self._gate_filters(network, f"{name}.weight", filters, name)

    def _own_forward(self, name: str, layer: nn.Module) -> Filters | None:
        """The filters of a layer with its own forward, which may use its inputs for other things as well."""
        of_torch = "forward" not in vars(layer) and type(layer).forward.__module__.startswith("torch.")
        if of_torch or "weight" not in layer._parameters or getattr(layer, "groups", 1) > 1:
            return None
        channels = self.groups.layers[name]
        return Filters(channels.inputs, channels.outputs, name, (1, 0) if _transposed(layer) else (0, 1))

    def _gate_filters(self, network: nn.Module, name: str, filters: Filters, gate: str | None = None) -> None:
        """Register hooks that multiply filters while the module runs that uses them, once in recursion."""
        owner, key = network.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        tensors = owner._parameters if key in owner._parameters else owner._buffers
        caller, running = network.get_submodule(filters.module), []

        def begin(*_: Any) -> None:
            weight = tensors[key]
            running.append(weight)
            if self._slices is not None and weight is not None and len(running) == 1:
                shape = [-1 if axis == filters.axes[1] else 1 for axis in range(weight.ndim)]
                scale = self._slices[gate or name].to(weight.dtype).view(shape)
                tensors[key] = weight * scale  # type: ignore[assignment]

        def end(*_: Any) -> None:
            tensors[key] = running.pop()  # type: ignore[assignment]

        self._hooks.append(caller.register_forward_pre_hook(begin))
        self._hooks.append(caller.register_forward_hook(end, always_call=True))

    def detach(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        for layer, own in self._convolved.values():
            if vars(layer).get("forward") is own:  # nobody has put another one there
                del layer.forward
        self._hooks, self._convolved = [], {}

    def set(self, mask: Tensor) -> None:
        """Apply a `(total,)` mask in [0, 1]; gradients flow back into it."""
        self._kept = {}
        self._use(mask)

    def _use(self, mask: Tensor) -> None:
        self.mask.copy_(mask.detach())
        self.live = mask
        whole = torch.cat([mask, mask.new_ones(1)])
        slices = torch.split(whole[self.index], self._lengths)
        self._slices = dict(zip(self._gated, slices, strict=True))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ChannelMasks:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._slices is None:
            self.live = self.mask
        else:
            self.set(self.mask.clone())  # what is in use moves to the new device as well
        return self

    def freeze(self) -> None:
        """Detach the mask in use from the graph of the agent."""
        self._use(self.live.detach().clone())

    def _gate(self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._slices is None:
            return None
        space = len(getattr(layer, "kernel_size", ()))
        x = args[0] if args else kwargs["input"]
        gated = self._gated_by(name, x, space)
        return ((gated, *args[1:]), kwargs) if args else ((), {**kwargs, "input": gated})

    def _convolve(
        self,
        name: str,
        layer: nn.Conv2d | nn.ConvTranspose2d,
        input: Tensor,
        output_size: list[int] | None = None,
    ) -> Tensor:
        """The forward of a layer, for its input times the gates."""
        size = () if output_size is None else (output_size,)
        own: Callable[..., Tensor] = type(layer).forward
        if self._slices is None:
            return own(layer, input, *size)
        if input.ndim == 4 and not size and pays(layer, input):
            kept = self._taking_part()[name]
            if not kept.all:
                return convolve(input, self._slices[name], layer, kept)
        return own(layer, self._gated_by(name, input, 2), *size)

    def _taking_part(self) -> dict[str, Kept]:
        """The channels that take part in each convolution under the mask in use."""
        if not self._kept:  # once a mask: here a GPU is waited for
            gates = torch.cat([self.live.detach().float().cpu(), torch.ones(1)])
            for name in self._convolved:
                channels = self.groups.layers[name]
                kept = Kept.of(gates[channels.inputs], gates[channels.outputs])
                self._kept[name] = kept.to(self.mask.device)
        return self._kept

    def _gated_by(self, name: str, x: Tensor, space: int) -> Tensor:
        assert self._slices is not None
        return x * self._slices[name].to(x.dtype).view(-1, *[1] * space)


def _transposed(layer: nn.Module) -> bool:
    return bool(getattr(layer, "transposed", False))
