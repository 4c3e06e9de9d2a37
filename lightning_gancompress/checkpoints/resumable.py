"""Checks of what Lightning and the optimizers restore from a checkpoint, before they do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from lightning_gancompress.checkpoints.files import is_state_dict
from lightning_gancompress.errors import UserError
from lightning_gancompress.schema import items, shown, typed, whole

MOST = 10**12  # epochs, batches or steps
POOLS_KEY = "image_pools"
WINDOW_KEY = "gradient_window"
AVERAGES_KEY = "averages"
REMEDY = "copy it again, or go back to an earlier checkpoint"


def require_resumable(content: Any, path: Path) -> None:
    """Check the entries of a checkpoint of Lightning; those that it lacks are Lightning's to miss.

    Raises:
        UserError: An entry is of another type, or a number out of range.
    """
    try:
        entries = dict(items(content, "it"))
        if not is_state_dict(entries.get("state_dict", {})):
            raise ValueError("its state_dict holds more than tensors by name")
        # Lightning's launchers hand bare state dicts over in files
        missing = None if "state_dict" in entries else "2.0"
        version = typed(entries.get("pytorch-lightning_version", missing), str, "pytorch-lightning_version")
        if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,9}){1,3}((\.?(dev|post)|rc|a|b)[0-9]{1,9})*", version):
            raise ValueError(f"pytorch-lightning_version is {shown(version)}")
        for name in ("epoch", "global_step"):
            whole(entries.get(name, 0), name, 0, MOST)
        for name, loop in items(entries.get("loops", {}), "loops"):
            for part, state in items(loop, f"loops.{name}"):
                _require_counters(state, f"loops.{name}.{part}")
        for name, state in items(entries.get("callbacks", {}), "callbacks"):
            dict(items(state, f"callbacks.{name}"))
        for state in typed(entries.get("optimizer_states", []), list, "optimizer_states"):
            typed(dict(items(state, "optimizer_states")).get("state"), dict, "optimizer_states.state")
            for group in typed(state.get("param_groups"), list, "optimizer_states.param_groups"):
                typed(dict(items(group, "param_groups")).get("params"), list, "param_groups.params")
        typed(entries.get("lr_schedulers", []), list, "lr_schedulers")
        for role, ranks in items(entries.get(POOLS_KEY, {}), POOLS_KEY):
            if not _holds_images(ranks):
                raise ValueError(f"{POOLS_KEY}.{role} holds no images")
        if WINDOW_KEY in entries:
            _require_window(entries[WINDOW_KEY])
        if AVERAGES_KEY in entries:
            _require_averages(entries[AVERAGES_KEY], entries.get("state_dict", {}))
    except ValueError as error:
        raise UserError(f"{path} is damaged, {error}: {REMEDY}.") from error


def _holds_images(ranks: Any) -> bool:
    """Whether an entry holds images of each rank, (C, H, W) each; earlier releases stacked them all."""
    if isinstance(ranks, Tensor):
        return ranks.ndim == 5 and len(ranks) > 0 and ranks.is_floating_point()
    if not isinstance(ranks, list) or not ranks or not all(isinstance(pool, list) for pool in ranks):
        return False
    images = chain.from_iterable(ranks)
    return all(isinstance(x, Tensor) and x.ndim == 3 and x.is_floating_point() for x in images)


def _require_window(value: Any) -> None:
    """Raise a ValueError unless an entry holds gradients by optimizer, and the batches of a window."""
    window = dict(items(value, WINDOW_KEY))
    whole(window.get("batches"), f"{WINDOW_KEY}.batches", 1, MOST)
    for name, gradients in items(window.get("gradients"), f"{WINDOW_KEY}.gradients"):
        for gradient in typed(gradients, list, f"{WINDOW_KEY}.gradients.{name}"):
            if gradient is not None and not (isinstance(gradient, Tensor) and gradient.is_floating_point()):
                raise ValueError(f"{WINDOW_KEY}.gradients.{name} holds {shown(gradient)}")


def _require_averages(value: Any, state: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless an entry holds trained weights of which `state` has the averages."""
    averages = dict(items(value, AVERAGES_KEY))
    whole(averages.get("steps"), f"{AVERAGES_KEY}.steps", 0, MOST)
    trained: Any = averages.get("trained")
    if not is_state_dict(trained) or any(
        name not in state or state[name].shape != tensor.shape for name, tensor in trained.items()
    ):
        raise ValueError(f"{AVERAGES_KEY}.trained are not the weights that were averaged")


def _require_counters(value: Any, where: str) -> None:
    """Raise a ValueError unless all leaves are counts or flags; the states of data loaders are theirs."""
    if where.endswith("combined_loader"):
        typed(value, list, where)
    elif isinstance(value, Mapping):
        for name, inner in items(value, where):
            _require_counters(inner, f"{where}.{name}")
    elif not isinstance(value, bool):
        whole(value, where, 0, MOST)


def require_fitting(optimizers: Iterable[Optimizer]) -> None:
    """Check the restored states of optimizers against their parameters.

    Raises:
        UserError: A state lacks something, or is of another shape.
    """
    for optimizer in optimizers:
        needed = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, (Adam, AdamW)) else set()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state = optimizer.state.get(parameter)
                if state and not (needed <= state.keys() and _fits(parameter, state)):
                    raise UserError(
                        "ckpt_path: the checkpoint is damaged, a state of an optimizer doesn't fit its "
                        f"parameter: {REMEDY}."
                    )


def require_fitting_gradients(
    gradients: Mapping[str, list[Tensor | None]], optimizers: Mapping[str, Optimizer]
) -> None:
    """Check the restored gradients of a window, by optimizer, against the parameters.

    Raises:
        UserError: They are of other parameters.
    """
    for name, found in gradients.items():
        groups = optimizers[name].param_groups if name in optimizers else []
        shapes = [parameter.shape for group in groups for parameter in group["params"]]
        if len(found) != len(shapes) or any(
            gradient is not None and gradient.shape != shape
            for gradient, shape in zip(found, shapes, strict=True)
        ):
            raise UserError(
                f"ckpt_path: the checkpoint is damaged, the gradients of {shown(name)} don't fit the "
                f"parameters: {REMEDY}."
            )


def _fits(parameter: Tensor, state: Mapping[str, Any]) -> bool:
    """Whether the tensors of an optimizer's state are of the parameter's shape, or single numbers."""
    return (
        all(
            isinstance(value, (int, float))
            if not isinstance(value, Tensor)
            else value.is_floating_point() and value.shape in (parameter.shape, ())
            for value in state.values()
        )
        and float(state.get("step", 1)) >= 0
    )
