"""What of Lightning's trainer this project's modules can't do: refused before a run begins."""

from __future__ import annotations

import logging
import os
from typing import Literal, Protocol, runtime_checkable

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    ParallelStrategy,
    Strategy,
    StrategyRegistry,
)
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from lightning_gancompress.devices import computes_bfloat16
from lightning_gancompress.errors import UserError

GPUS = ("cuda", "mps")
SHARDING = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


def require_supported(trainer: Trainer) -> None:
    """Raise a `UserError` if an option of a trainer can't work in the run that it begins.

    Where an option of the model is to be used in its place, the message names it.
    """
    require_whole_networks(trainer.strategy)
    require_known_precision(trainer.precision)
    say_who_waits(trainer)
    if trainer.state.fn != TrainerFn.FITTING:
        return
    if trainer.precision == "16-true":
        raise UserError(
            "trainer.precision: 16-true can't train, since squares of gradients vanish in half precision: "
            "use 16-mixed, bf16-mixed or bf16-true."
        )
    for name in ("check_val_every_n_epoch", "val_check_interval"):
        if getattr(trainer, name) == 0:
            raise UserError(
                f"trainer.{name}: 0 is no interval: set it to 1 or more, or trainer.limit_val_batches to 0 "
                "to go without validation."
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


def require_available(accelerator: Accelerator | str) -> None:
    """Raise a `UserError` if an accelerator of Lightning's, by name, is not of this machine."""
    if isinstance(accelerator, Accelerator) or accelerator == "auto":
        return
    known = AcceleratorRegistry.available_accelerators()
    here = [name for name in known if AcceleratorRegistry[name]["accelerator"].is_available()]
    if accelerator not in here and not (accelerator == "gpu" and set(GPUS) & set(here)):
        raise UserError(
            f"trainer.accelerator: there is no {accelerator} here, but {' and '.join(sorted(here))}: choose "
            "that, or auto."
        )


def require_address(trainer: Trainer) -> None:
    """Raise a `UserError` where several machines can't find each other, but would wait for each other."""
    environment = environment_of(trainer)
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and not _addressed():
        raise UserError(
            f"trainer.num_nodes: {trainer.num_nodes} machines must know where to meet: set MASTER_ADDR (the "
            "address of the first), MASTER_PORT (a free port of it) and NODE_RANK (0, 1, ...) in the "
            "environment of each and give all the same command, or start it with torchrun or SLURM."
        )


def _addressed() -> bool:
    return {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def say_who_waits(trainer: Trainer) -> None:
    """Log where the processes of several machines meet, since they wait for each other there."""
    environment = environment_of(trainer)
    if trainer.num_nodes > 1 and environment is not None and trainer.local_rank == 0:
        # on every machine: any of them may be the one that waits
        logging.getLogger("lightning.pytorch").info(
            f"Waiting at {environment.main_address}:{environment.main_port} for {trainer.world_size} "
            f"processes on {trainer.num_nodes} machines; this is machine {trainer.node_rank}."
        )


def environment_of(trainer: Trainer) -> ClusterEnvironment | None:
    """What tells the processes of a run of each other; None for a single one."""
    strategy = trainer.strategy
    return strategy.cluster_environment if isinstance(strategy, ParallelStrategy) else None


def computed_dtype(trainer: Trainer) -> torch.dtype:
    """The dtype of parameters and inputs in a trainer's precision."""
    converted: Tensor = trainer.precision_plugin.convert_input(torch.zeros(()))
    return converted.dtype


@runtime_checkable
class LaysOut(Protocol):
    """A trainer that says how images lie in memory."""

    channels_last: bool | Literal["auto"]


def memory_format(trainer: Trainer | None, networks: nn.Module) -> torch.memory_format:
    """How images and filters lie in memory: `torch.channels_last`, or `torch.contiguous_format`.

    By default the former in 16 bits where these are native: matrix units read it without reordering. But
    instance norms reorder it, which costs more than it saves.
    """
    if trainer is None:
        return torch.contiguous_format
    choice = trainer.channels_last if isinstance(trainer, LaysOut) else "auto"
    if choice == "auto":
        device = trainer.strategy.root_device
        choice = trainer.precision in ("bf16-mixed", "16-mixed", "bf16-true") and (
            device.type == "cuda" or computes_bfloat16(device)
        )
        choice = choice and not any(isinstance(layer, _InstanceNorm) for layer in networks.modules())
    return torch.channels_last if choice else torch.contiguous_format


def scales_losses(trainer: Trainer) -> bool:
    """Whether losses are scaled, as under fp16 on a GPU."""
    plugin = trainer.precision_plugin
    return isinstance(plugin, MixedPrecision) and plugin.scaler is not None


def loss_scale(trainer: Trainer) -> float:
    """The factor of losses in the next backward pass; 1 where gradients are not scaled."""
    plugin = trainer.precision_plugin
    scaler = plugin.scaler if isinstance(plugin, MixedPrecision) else None
    return 1.0 if scaler is None else float(scaler.get_scale())
