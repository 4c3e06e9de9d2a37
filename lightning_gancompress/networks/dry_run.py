"""Forward passes that leave no trace, on shapes alone where that can be."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from lightning_gancompress.errors import UserError

Result = TypeVar("Result")


def dry_run(network: nn.Module, run: Callable[[], Result]) -> Result:
    """Return what `run` does with `network`, of whose tensors the shapes alone may be meant.

    The network is afterwards as it was, and so are the random numbers. A forward that needs values, to decide
    by them for instance, is computed as usual, without gradients.

    Args:
        network: What `run` calls, sets into a mode, and so on.
        run: Called once, or twice if shapes are not enough for it.
    """
    try:
        with unchanged(network), shapes_alone():
            return run()
    except UserError:
        raise
    except Exception:  # a fault, or a forward that shapes tell too little: now it shows which
        with unchanged(network):
            return run()


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Compute shapes, and no values: a ResNet of nine blocks takes a twentieth of a second."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Undo what forward passes change in `network` (modes, attributes, buffers), and in the random state."""
    before = [
        [(entries, dict(entries)) for entries in (module._parameters, module._buffers, vars(module))]
        for module in network.modules()
    ]
    values = [(buffer, buffer.clone()) for buffer in network.buffers()]
    state = random.getstate()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
        for module in before:
            for entries, found in module:
                entries.clear()
                entries.update(found)
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)
