"""Trial runs that find unsuitable networks before the search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_gancompress.data.contract import data_of
from lightning_gancompress.data.items import LIMIT
from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.finetune.distillation import Distillation
from lightning_gancompress.lightning_internals import synchronises_batch_norms
from lightning_gancompress.modules.teacher_loader import NetworkAndSpec
from lightning_gancompress.networks import dry_run, require_image_alone
from lightning_gancompress.tasks import Images, Role, Task
from lightning_gancompress.training.teacher_student import TeacherStudent


def check_before_search(
    networks: TeacherStudent,
    make_missing: Callable[[], Mapping[Role, NetworkAndSpec | None]],
    distillation: Distillation | None,
    trainer: Trainer,
    searches: bool,
) -> None:
    """Try whether all networks can be made, translate, be trained and be distilled, before any training.

    Args:
        networks: Teacher and student.
        make_missing: Makes the networks that have no weights.
        distillation: Distillation losses of the fine-tuning.
        trainer: Holds the data module and the devices.
        searches: Whether the policy trains in a search, with batches of `search_batch_size`.

    Raises:
        UserError: A network can't; the message names the option to change.
    """
    data = data_of(trainer)
    networks.inputs.recorded |= data.preprocessing
    batch = data.first_batch()
    if batch is not None:
        warn_of_range(networks.task.views(batch))
        networks.inputs.observe(batch)
        check_networks(networks.task, networks.teacher, batch)
    missing = make_missing()
    for role, new in missing.items():
        outcome = "trained afresh in the fine-tuning" if new else "left out, with the losses that need it"
        rank_zero_info(
            f"{role}: no weights were found; {outcome}. (model.own_weights: a network passed has its own.)"
        )
    if batch is not None:
        trained = {role: net for role, net in networks.student.items() if role not in networks.frozen}
        trained |= {role: new[0] for role, new in missing.items() if new is not None}
        sizes = {"batch_size": data.batch_size}
        if searches:
            sizes["search_batch_size"] = data.search_batch_size
        name = min(sizes, key=sizes.__getitem__)
        devices = trainer.world_size if synchronises_batch_norms(trainer) else 1
        check_training(networks.task, nn.ModuleDict(trained), batch, name, sizes[name] * devices)
    if distillation is not None:
        distillation.check(networks.task, networks.teacher, networks.student, networks.sources())


def warn_of_range(views: Mapping[Role, Mapping[str, Any]]) -> None:
    """Warn if the images of a batch are not in [-1, 1], or as if they were in [0, 1]."""
    images = [view[key] for view in views.values() for key in ("source", "target") if key in view]
    low, high = (float(bound) for bound in torch.cat([image.flatten() for image in images]).aminmax())
    if low >= 0 or max(-low, high) > LIMIT:
        scale = "x / 127.5 - 1" if high > LIMIT else "x * 2 - 1"
        rank_zero_warn(
            f"The first images of the data have values from {low:.4g} to {high:.4g}, and networks read and "
            f"make images in [-1, 1]: scale yours by {scale}, unless they are just bright."
        )


def check_networks(task: Task, networks: nn.ModuleDict, batch: dict[str, Any]) -> None:
    """Run the compressed generators on a batch in eval mode, and the discriminators on their images.

    This and `check_training` compute shapes alone where possible, and leave the networks unchanged.

    Args:
        task: Splits a batch into the inputs of its networks.
        networks: Generators and discriminators by role.
        batch: First batch of the data.

    Raises:
        UserError: A network fails on its input, or its output is not what the task needs.
    """
    for role, view in task.views(batch).items():
        if role in task.compressed:
            image = _translate(networks[role], view["source"])
            _require_target_shape(networks[role], image, view.get("target"))
            _discriminate(task, networks, batch, {role: image})


def check_training(
    task: Task, networks: nn.ModuleDict, batch: dict[str, Any], option: str, batch_size: int
) -> None:
    """Run all networks that will be trained in training mode, with as many images as a step has.

    Args:
        task: Splits a batch into the inputs of its networks.
        networks: Generators and discriminators by role.
        batch: First batch of the data; its first sample is repeated.
        option: Name of the data module's option that sets the batch size.
        batch_size: Images per step, over all devices where batch norms are synchronised.

    Raises:
        UserError: A network fails, or its output has another shape than in eval mode.
    """
    batch = {key: _repeated(value, batch_size) for key, value in batch.items()}
    with _single_values_refused(networks, option):
        for role, view in task.views(batch).items():
            if role in networks:
                image = _translate(networks[role], view["source"])
                _require_same(networks[role], image, _translate(networks[role], view["source"], True))
                for training in (False, True):
                    _discriminate(task, networks, batch, {role: image}, training)


def _repeated(value: Any, count: int) -> Any:
    if isinstance(value, Tensor) and value.ndim:
        return torch.cat([value[:1]] * count)
    return value[:1] * count if isinstance(value, (list, tuple)) else value


def _translate(generator: nn.Module, source: Tensor, training: bool = False) -> Tensor:
    """A blank image of the shape that the generator returns for `source`."""
    name, shape, how = type(generator).__name__, _shape(source), _how(training)
    require_image_alone(generator)
    try:
        image = dry_run(generator, lambda x: _set_mode(generator, training)(x), source)
    except UserError:
        raise
    except Exception as error:  # whatever a user's forward raises
        remedy = "give data of the channels and the size that it was made for"
        remedy = "mend what its forward does in that mode alone" if training else remedy
        raise UserError(
            f"{name} fails{how} on a source of the data, {shape} ({first_line(error)}): {remedy}."
        ) from error
    if not isinstance(image, Tensor) or image.ndim != 4 or len(image) != len(source):
        output = _shape(image) if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise UserError(
            f"{name} returns {output}{how} for a source {shape}, not an image (channels, height, width) for "
            "each: wrap it in a module that returns the image alone."
        )
    return source.new_zeros(image.shape)


def _require_target_shape(generator: nn.Module, image: Tensor, target: Tensor | None) -> None:
    if target is not None and target.shape != image.shape:
        raise UserError(
            f"{type(generator).__name__} makes images {_shape(image)}, but the targets are {_shape(target)} "
            "(channels, height, width): give targets of that shape, or the sources alone, to fine-tune "
            "against the generator's own images."
        )


def _require_same(generator: nn.Module, image: Tensor, trained: Tensor) -> None:
    if image.shape != trained.shape:
        raise UserError(
            f"{type(generator).__name__} makes images {_shape(trained)}{_how(True)}, but {_shape(image)} in "
            "eval mode (channels, height, width): wrap it in a module that returns the same image in both."
        )


def _discriminate(
    task: Task, networks: nn.ModuleDict, batch: dict[str, Any], images: Images, training: bool = False
) -> None:
    ((role, image),) = images.items()

    def discriminate(image: Tensor) -> Images:
        return task.discriminate(_set_mode(networks, training), batch, {role: image})

    try:
        logits_by_role = dry_run(networks, discriminate, image)
    except Exception as error:
        if training and isinstance(error, UserError):
            raise
        name = type(networks[role.discriminator]).__name__
        remedy = (
            "mend what its forward does in that mode alone"
            if training
            else f"the discriminator of {type(task).__name__} must read what the task shows it, for Pix2Pix "
            "source and image side by side in one tensor of the channels of both; wrap it so, or leave it out"
        )
        raise UserError(
            f"{name} fails{_how(training)} on an image of the {role} ({first_line(error)}): {remedy}."
        ) from error
    for role, logits in logits_by_role.items():
        if not isinstance(logits, Tensor):
            raise UserError(
                f"{type(networks[role]).__name__} returns a {type(logits).__name__}{_how(training)}, not one "
                "tensor: wrap it in a module that returns its logits alone."
            )


@contextmanager
def _single_values_refused(networks: nn.ModuleDict, option: str) -> Iterator[None]:
    """Context in which a batch norm in training mode raises if it gets a single value per channel."""

    def check(role: str, name: str, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        if layer.training and args[0].numel() == args[0].shape[1]:
            pixels = "x".join(map(str, args[0].shape[2:])) or "1"
            raise UserError(
                f"data.{option}: with {len(args[0])} image in a step the batch norm {name!r} of the {role} "
                f"can't be trained, since it sees each channel at {pixels} pixel alone: set it to 2 or more."
            )

    handles = [
        layer.register_forward_pre_hook(partial(check, role, name))
        for role, network in networks.items()
        for name, layer in network.named_modules()
        if isinstance(layer, _BatchNorm)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _set_mode(network: nn.Module, training: bool) -> Any:
    network.train(training)
    for layer in network.modules():
        if isinstance(layer, nn.SyncBatchNorm):  # its training mode needs several GPUs
            layer.eval()
    return network


def _how(training: bool) -> str:
    return " in training mode" if training else ""


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape[1:]))
