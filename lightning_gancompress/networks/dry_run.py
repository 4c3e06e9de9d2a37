"""Forward passes that leave no trace, on shapes alone where that can be."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError

Result = TypeVar("Result")


def dry_run(network: nn.Module, run: Callable[[Tensor], Result], x: Tensor) -> Result:
    """Return what `run` makes of `x`, of which it may be given the shape alone: tensors without values.

    The network is afterwards as it was, and so are the random numbers. A forward that needs values, to decide
    by them for instance, is computed as usual, without gradients.

    Args:
        network: What `run` calls, sets into a mode, and so on.
        run: Called once, or twice if shapes are not enough for it.
        x: Of which only the shape matters.
    """
    try:
        with unchanged(network):
            return run(without_values(x))
    except UserError:
        raise
    except Exception:  # a fault, or a forward that shapes tell too little: now it shows which
        with unchanged(network):
            return run(x)


def without_values(x: Tensor) -> Tensor:
    """Return a tensor of the shape of `x` that makes all that is computed with it likewise.

    Nothing else is: a grid that a network makes by itself, and may keep, has its values.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    return x if x.is_meta else FakeTensorMode(allow_non_fake_inputs=True).from_tensor(x)


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Undo what forward passes change in `network` (modes, attributes, buffers), and in the random state."""
    before = [(kept, kept.copy()) for module in network.modules() for kept in _containers(module)]
    values = [(buffer, buffer.clone()) for buffer in network.buffers()]
    state = random.getstate()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
        for kept, content in before:
            kept.clear()
            (kept.update if isinstance(kept, dict) else kept.extend)(content)
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)


def _containers(module: nn.Module) -> list[Any]:
    """The attributes of a module, and those of them, such as its buffers, that hold others."""
    attributes = vars(module)
    return [*(value for value in attributes.values() if isinstance(value, dict | list)), attributes]
