"""Forward passes without side effects, on shapes alone where possible."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError

Result = TypeVar("Result")


def dry_run(network: nn.Module, run: Callable[[Tensor], Result], x: Tensor) -> Result:
    """Return the result of `run` on a tensor of the shape of `x`, if possible without values.

    The network and the random generators are restored afterwards. If `run` needs values, for a condition for
    instance, it is called again with `x` itself, without gradients.

    Args:
        network: The network that `run` calls.
        run: Called once, or twice if it needs values.
        x: Input, of which mainly the shape matters.
    """
    try:
        with unchanged(network):
            return run(without_values(x))
    except UserError:
        raise
    except Exception:  # a real error, which is raised again below, or a forward that needs values
        with unchanged(network):
            return run(x)


def without_values(x: Tensor) -> Tensor:
    """Return a tensor of the shape of `x` without values; all tensors computed from it have none either.

    Tensors that do not depend on it, such as a grid that a network creates and keeps, have values.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    return x if x.is_meta else FakeTensorMode(allow_non_fake_inputs=True).from_tensor(x)


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Context that restores modes, attributes and buffers of `network`, and the random state."""
    before = [(container, container.copy()) for m in network.modules() for container in _containers(m)]
    values = [(buffer, buffer.clone()) for buffer in network.buffers()]
    state = random.getstate()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
        for container, content in before:
            container.clear()
            (container.update if isinstance(container, dict) else container.extend)(content)
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)


def _containers(module: nn.Module) -> list[Any]:
    """The dict of a module's attributes, and the dicts and lists among these, such as its buffers."""
    attributes = vars(module)
    return [*(value for value in attributes.values() if isinstance(value, dict | list)), attributes]
