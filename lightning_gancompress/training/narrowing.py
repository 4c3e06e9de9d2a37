"""States of optimizers that follow networks to fewer channels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from lightning_gancompress.networks import copy_network

Module = TypeVar("Module", bound=nn.Module)
Elements = dict[Parameter, Tensor]  # positions of the elements that are left of a parameter, flattened


def elements_left(module: Module, narrow: Callable[[Module], nn.Module]) -> Elements:
    """The elements of each parameter that `narrow` keeps, which makes a copy of `module` with fewer channels.

    Numbers take the places of the elements of a copy; those that come out are the ones that are left.
    """
    numbered = copy_network(module).cpu()
    for parameter in numbered.parameters():
        parameter.data = torch.arange(parameter.numel(), dtype=torch.float64).view_as(parameter)
    left = [parameter.detach().long() for parameter in narrow(numbered).parameters()]
    pairs = zip(module.parameters(), left, strict=True)
    return {parameter: positions.to(parameter.device) for parameter, positions in pairs}


def carry_over(old: Optimizer, new: Optimizer, left: Mapping[Parameter, Tensor]) -> None:
    """Give an optimizer of narrowed modules the state of the optimizer of the modules before.

    Args:
        old: Optimizer before.
        new: A new optimizer of the same parameters in the same order, some of them with fewer elements.
        left: For these, the elements that are left, by the parameter before.
    """
    before, after = (chain(*(group["params"] for group in one.param_groups)) for one in (old, new))
    for was, now in zip(before, after, strict=True):
        if was in old.state:
            new.state[now] = {name: _part(v, was, left.get(was)) for name, v in old.state[was].items()}


def _part(value: Any, parameter: Parameter, left: Tensor | None) -> Any:
    """The elements that are left of a value that is one number per element of its parameter, or all of it."""
    if left is None or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return copy.deepcopy(value)
    return value.flatten()[left]
