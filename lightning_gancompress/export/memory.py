"""Peak memory of the feature maps of a forward pass."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operators have returned within the block and that are still alive.

    Temporary memory within an operator, such as that of an unfolded convolution, is not counted, so that the
    result does not depend on the machine.

    Attributes:
        now: Bytes at present.
        peak: Largest number of bytes at any time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak: int = 0
        self._known: dict[int, int] = {}  # bytes by the storage's address

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count the tensors that the operator returns."""
        before = {x.untyped_storage().data_ptr() for x in tree_leaves(args) if isinstance(x, Tensor)}
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._note(tensor, before)
        return output

    def _note(self, tensor: Tensor, inputs: set[int]) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address in inputs or address in self._known or not storage.nbytes():
            return  # a view, or in place
        self._known[address] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, address)

    def _forget(self, address: int) -> None:
        self.now -= self._known.pop(address, 0)


@torch.inference_mode()
def peak_activation_bytes(network: nn.Module, sample: Tensor) -> int:
    """Peak number of bytes of feature maps and output in a forward pass.

    Args:
        network: Network in eval mode; its parameters and buffers are not counted.
        sample: Input `(B, C, H, W)`; not counted.
    """
    with LiveBytes() as live:
        network(sample)
    peak: int = live.peak
    return peak
