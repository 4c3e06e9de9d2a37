"""What the user's command names, and the check of a checkpoint's settings against it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from lightning_gancompress.checkpoints.recorded_classes import arguments_of, require_known
from lightning_gancompress.cli.flags import TRUST
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.modules import GANModule
from lightning_gancompress.run_folder import CHECKPOINTS
from lightning_gancompress.shipped_configs import read_config
from lightning_gancompress.trainer import Trainer
from lightning_gancompress.trust import Named


def named_by(args: list[str]) -> Named:
    """What the user's own command and configurations name, but no files; files may name the same."""
    texts = set(args)
    waiting = [
        *_configurations(args),
        *(_yaml(text) for arg in args for text in (arg, arg.partition("=")[2])),
    ]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.add(value)
        elif isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return Named(frozenset(text for text in texts if not _names_a_file(text)), everything=TRUST in args)


def _names_a_file(text: str) -> bool:
    """Whether a text names a file to read or to write: `e.ckpt` would be a class of a module `e` as well."""
    endings = (".ckpt", ".pth", ".safetensors", ".onnx", ".pt2", ".yaml", ".yml")
    return text.endswith(endings) or os.path.exists(text)  # noqa: PTH110, Path fails on a long text


def require_trusted(recorded: dict[str, Any], args: list[str], path: Path) -> None:
    """Check that a checkpoint's settings name only classes that a file may name.

    What fails is left out if the command gives a class of its own there, or the same option of the trainer:
    it would be replaced. So is a folder of checkpoints outside of the run's own: it may be that of another,
    some of which would be replaced.

    Raises:
        UserError: They name others.
    """
    trainer, options = recorded.get("trainer", {}), arguments_of(Trainer)
    parts = [("model", recorded, "model", GANModule), ("data", recorded, "data", LightningDataModule)]
    parts += [(f"trainer.{name}", trainer, name, options.get(name, object)) for name in trainer]
    for where, settings, name, kind in parts:
        try:
            require_known(settings.get(name), kind, where)
        except UserError:
            if not _gives(args, where):
                raise
            rank_zero_info(
                f"{where}: what {path} records of it is left out, since the command gives another."
            )
            del settings[name]
    place = path.resolve().parent
    beside = (place, place.parent) if place.name == CHECKPOINTS else ()
    for callback in trainer.get("callbacks") or []:
        given = callback.get("init_args") or {} if isinstance(callback, dict) else {}
        folder = user_path(given["dirpath"]).resolve() if given.get("dirpath") else place
        if folder != place and folder.parent not in beside:
            given["dirpath"] = None


def _gives(args: list[str], where: str) -> bool:
    """Whether the user gives a class for the model or the data, or an option of the trainer, as a whole."""
    *parents, name = where.split(".")
    settings = list(_configurations(args))
    for parent in parents:
        settings = [config.get(parent) for config in settings if isinstance(config, dict)]
    given = [config[name] for config in settings if isinstance(config, dict) and name in config]
    if not parents:  # arguments alone are set beside those that are recorded
        given = [value for value in given if isinstance(value, dict) and "class_path" in value]
    return bool(given) or any(arg.partition("=")[0] == f"--{where}" for arg in args)


def _configurations(args: list[str]) -> Iterator[Any]:
    """The contents of the configurations among the arguments."""
    for arg in args:
        name = arg.partition("=")[2] or arg
        if name.endswith((".yaml", ".yml")):
            yield _yaml(name, is_file=True)


def _yaml(text: str, is_file: bool = False) -> Any:
    """The content of a text, or of a configuration by its name; None if the parser will complain of it."""
    try:
        return yaml.safe_load(read_config(text) if is_file else text)
    except (UserError, OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
