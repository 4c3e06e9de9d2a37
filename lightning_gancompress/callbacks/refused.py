"""Callbacks of Lightning that can't work here: why, and what does the same."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    SpikeDetection,
    StochasticWeightAveraging,
    WeightAveraging,
)

from lightning_gancompress.errors import UserError

REFUSED: dict[type[Callback], tuple[str, str]] = {
    WeightAveraging: (
        "copies the module before its networks are there, and once for the whole run",
        "use GeneratorEMA, which averages the small generator",
    ),
    StochasticWeightAveraging: (
        "needs a single optimizer, and a GAN has two",
        "use GeneratorEMA, which averages the small generator",
    ),
    BatchSizeFinder: (
        "tries a few steps of one phase alone, and two phases have different batches",
        "set data.batch_size and data.search_batch_size",
    ),
    LearningRateFinder: ("needs a single optimizer, and a GAN has two", "set model.lr"),
    GradientAccumulationScheduler: (
        "needs automatic optimization, and a GAN steps two optimizers in turn",
        "set model.accumulate_grad_batches",
    ),
    BaseFinetuning: (
        "freezes layers of networks that are replaced after the search",
        "leave it out; model.ignored_layers keeps layers from being pruned",
    ),
    ModelPruning: (
        "sets weights to zero, which saves no time",
        "use a policy of this project, such as UniformWidth, which removes channels",
    ),
    SpikeDetection: (
        "looks at the one loss that a step returns, and a GAN has several",
        "leave it out; losses that aren't finite end a run anyway",
    ),
}
"""By class, for it and its subclasses: what it does that can't work, and what to do instead."""


def refuse(callbacks: Sequence[Callback]) -> None:
    """Raise a `UserError` if one of the callbacks can't work here."""
    for callback in callbacks:
        for kind, (reason, remedy) in REFUSED.items():
            if isinstance(callback, kind):
                raise UserError(f"trainer.callbacks: {type(callback).__name__} {reason}: {remedy}.")
