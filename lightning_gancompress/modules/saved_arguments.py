"""The check of the arguments that a checkpoint records for Lightning's `load_from_checkpoint`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.recorded_classes import require_known
from lightning_gancompress.errors import UserError

LIGHTNINGS_INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


def require_known_arguments(path: Any, module: type) -> None:
    """Check that the recorded arguments of a `module` name only what a file may name.

    Raises:
        UserError: They name other classes, or `path` is no local file.
    """
    if not isinstance(path, (str, Path)) or "://" in str(path):
        raise UserError("checkpoint_path: give the path of a local file; download it first.")
    content = read_torch(Path(path))
    saved = content.get("hyper_parameters", {}) if isinstance(content, Mapping) else None
    if not isinstance(saved, Mapping):
        raise UserError(f"{path} is no checkpoint of a {module.__name__}: load_generator may read it.")
    arguments = dict(saved)
    kind = arguments.pop("_class_path", f"{module.__module__}.{module.__name__}")
    instantiator = arguments.pop("_instantiator", LIGHTNINGS_INSTANTIATOR)
    if instantiator != LIGHTNINGS_INSTANTIATOR:
        raise UserError(
            f"{path} wants to be loaded by {instantiator!r}, which is not Lightning's: it is damaged."
        )
    require_known({"class_path": kind, "init_args": arguments}, module, f"{path}, hyper_parameters")
