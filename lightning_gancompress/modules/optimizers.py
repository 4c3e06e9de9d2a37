"""Fused optimizers, whose step is one pass over the memory of all parameters."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam, AdamW, Optimizer


def parameters(optimizer: Optimizer) -> list[Parameter]:
    """All parameters of an optimizer, group by group."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def fused(optimizer: Optimizer) -> Optimizer:
    """A new Adam or AdamW as torch's fused one, wherever torch has that; any other optimizer as it is.

    Options that its maker has chosen (`foreach`, `fused`) stand.
    """
    kernels = [group.get(name) for group in optimizer.param_groups for name in ("foreach", "fused")]
    able = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters(optimizer))
    if type(optimizer) not in (Adam, AdamW) or any(k is not None for k in kernels) or not able:
        return optimizer
    kind: Any = type(optimizer)
    anew: Optimizer = kind([{**group, "fused": True} for group in optimizer.param_groups])
    return anew


def fit_states(optimizer: Optimizer) -> None:
    """Lay restored states out in memory as the parameters: a fused step reads both in the order of memory.

    The run that saved them may have had another memory format, or no fused optimizer.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                if name == "step" and isinstance(value, Tensor):
                    state[name] = value.to(parameter.device if group.get("fused") else "cpu")
                elif isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[name] = laid_out_as(parameter, value)


def laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """A tensor of a parameter's shape, on its device and with its strides; of its own dtype."""
    if value.stride() == parameter.stride() and value.device == parameter.device:
        return value
    strided = parameter.new_empty_strided(parameter.shape, parameter.stride(), dtype=value.dtype)
    return strided.copy_(value)
