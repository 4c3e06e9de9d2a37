"""Windows of batches whose gradients are added up before the optimizers step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lightning_gancompress.checkpoints.resumable import require_fitting_gradients
from lightning_gancompress.modules.optimizers import laid_out_as, parameters
from lightning_gancompress.training.phase import Position

Gradients = list[Tensor | None]  # of the parameters of an optimizer, in its order


class Window:
    """Consecutive batches of an epoch whose gradients are averaged; the last of an epoch may be shorter.

    Args:
        batches: Batches per window; 1 lets the optimizers step in every batch.
    """

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self._scales: dict[str, float] = {}  # of the loss in an optimizer's last backward pass, under fp16
        self._restored: dict[str, Gradients] = {}

    def begins(self, at: Position) -> bool:
        """Whether a batch is the first of its window."""
        return at.batch % self.batches == 0

    def ends(self, at: Position) -> bool:
        """Whether a batch is the last of its window."""
        return (at.batch + 1) % self.batches == 0 or at.batch + 1 >= at.batches

    def weight(self, at: Position) -> float:
        """Weight of a batch's loss: 1 divided by the batches of its window."""
        first = at.batch - at.batch % self.batches
        return 1 / min(self.batches, at.batches - first)

    def rescale(self, name: str, optimizer: Optimizer, scale: float, begins: bool) -> None:
        """Bring the gradients that an optimizer has so far to the scale of the next backward pass.

        Under fp16 the scale of the loss changes when the other optimizer steps.
        """
        factor = scale / self._scales.get(name, scale)
        self._scales[name] = scale
        if factor != 1 and not begins:
            for parameter in parameters(optimizer):
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)

    # -- checkpoints -----------------------------------------------------------------------------------

    def state(self, optimizers: Mapping[str, Optimizer]) -> dict[str, Any]:
        """The gradients of a window that has begun, by optimizer, for a checkpoint within it."""
        gradients = {name: [p.grad for p in parameters(optimizer)] for name, optimizer in optimizers.items()}
        return {"batches": self.batches, "gradients": gradients}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the output of `state`, which `restore` sets once there are optimizers.

        Gradients of windows of another length are dropped.
        """
        self._restored = dict(state["gradients"]) if state.get("batches") == self.batches else {}

    def restore(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Set the loaded gradients.

        Raises:
            UserError: They are of other parameters.
        """
        require_fitting_gradients(self._restored, optimizers)
        for name, gradients in self._restored.items():
            for parameter, gradient in zip(parameters(optimizers[name]), gradients, strict=True):
                parameter.grad = None if gradient is None else laid_out_as(parameter, gradient.to(parameter))
        self._restored = {}
