"""What of Lightning's trainer this project's modules can't do: refused before a run begins."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
    StrategyRegistry,
)
from lightning.pytorch.trainer.states import TrainerFn

from lightning_gancompress.errors import UserError

SHARDING = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


def require_supported(trainer: Trainer) -> None:
    """Raise a `UserError` if an option of a trainer can't work in the run that it begins.

    Where an option of the model is to be used in its place, the message names it.
    """
    require_whole_networks(trainer.strategy)
    require_known_precision(trainer.precision)
    if trainer.state.fn != TrainerFn.FITTING:
        return
    if trainer.precision == "16-true":
        raise UserError(
            "trainer.precision: 16-true can't train, since squares of gradients vanish in half precision: "
            "use 16-mixed, bf16-mixed or bf16-true."
        )
    given: dict[str, object] = {
        "gradient_clip_val": trainer.gradient_clip_val or None,
        "gradient_clip_algorithm": trainer.gradient_clip_algorithm and trainer.gradient_clip_algorithm.value,
        "accumulate_grad_batches": trainer.accumulate_grad_batches
        if trainer.accumulate_grad_batches != 1
        else None,
    }
    for name, value in given.items():
        if value is not None:
            raise UserError(f"trainer.{name}: the two optimizers of a GAN take {value} from model.{name}.")


def require_whole_networks(strategy: Strategy | str) -> None:
    """Raise a `UserError` if a strategy, or one of Lightning's by name, divides networks between devices."""
    if isinstance(strategy, str):
        name, registered = strategy, strategy.lower() in StrategyRegistry
        shards = registered and issubclass(StrategyRegistry[strategy.lower()]["strategy"], SHARDING)
    else:
        name, shards = type(strategy).__name__, isinstance(strategy, SHARDING)
    if shards:
        raise UserError(
            f"trainer.strategy: {name} divides networks between devices, and here each device holds them "
            "whole, so that they can be cut: use ddp."
        )


def require_known_precision(precision: str | int | None) -> None:
    """Raise a `UserError` if a precision is not for convolutions."""
    if str(precision).startswith("transformer-engine"):
        raise UserError(
            f"trainer.precision: {precision} is for linear layers, and image networks are made of "
            "convolutions: use bf16-mixed."
        )


def loss_scale(trainer: Trainer) -> float:
    """The factor of losses in the next backward pass; 1 where gradients are not scaled."""
    plugin = trainer.precision_plugin
    scaler = plugin.scaler if isinstance(plugin, MixedPrecision) else None
    return 1.0 if scaler is None else float(scaler.get_scale())
