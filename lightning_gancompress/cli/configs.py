"""Configurations of the command line: given files, shipped files, and settings recorded in checkpoints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.recorded_settings import current_names, recorded_settings
from lightning_gancompress.cli.trusted_settings import require_trusted
from lightning_gancompress.errors import UserError
from lightning_gancompress.shipped_configs import find_config

RUNS = ("fit", "validate", "test", "predict")
# not taken from a checkpoint: options of the machine, and limits of the run that wrote it
_NOT_RESUMED = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "max_epochs",
    "max_steps",
    "max_time",
    "model_registry",  # would upload checkpoints
)


class ConfigFile(ActionConfigFile):
    """The option `--config`, which also finds shipped files."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read and apply one configuration."""
        if str(values).startswith("{"):  # the settings from a checkpoint
            self.apply_config(parser, cfg, self.dest, values)
            return
        path = find_config(values)
        try:
            text = path.read_text(encoding="utf-8")
            # by its path if unchanged, since paths in it may be relative to it
            current = current_names(text)
            self.apply_config(parser, cfg, self.dest, str(path) if current == text else current)
        except (UserError, UnicodeError) as error:
            raise UserError(f"{path}: {error}") from error


def recorded_config(args: list[str]) -> dict[str, Any]:
    """Settings recorded in the checkpoint of `--ckpt_path`, without those of the machine; empty without one.

    Raises:
        UserError: The file is missing or unreadable.
    """
    path = given_checkpoint(args)
    if (
        path is None
        or path in ("null", "best", "last", "hpc")
        or path.startswith("registry")
        or "://" in path
    ):
        return {}
    checkpoint = read_torch(Path(path))
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(
            f"{path} is no training checkpoint: `export` and `profile` read it, the other commands don't."
        )
    settings = recorded_settings(checkpoint)
    keys = ("seed_everything", "trainer", "model", "data")
    recorded = {key: settings[key] for key in keys if settings.get(key) is not None}
    for name in _NOT_RESUMED:
        recorded.get("trainer", {}).pop(name, None)
    require_trusted(recorded, args, Path(path))
    return recorded


def given_checkpoint(args: list[str]) -> str | None:
    """The value of `--ckpt_path` if `args` have a command in `RUNS`, else None."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("--ckpt_path")
    try:
        path: str | None = reader.parse_known_args(args)[0].ckpt_path
    except argparse.ArgumentError:
        return None  # the full parser will raise the error
    return path if any(command in args for command in RUNS) else None


def with_config(args: list[str], recorded: dict[str, Any]) -> list[str]:
    """`args` with recorded settings as the first configuration, which all other arguments override."""
    if not recorded:
        return args
    at = next(n for n, arg in enumerate(args) if arg in RUNS) + 1
    return [*args[:at], "--config", json.dumps(recorded), *args[at:]]
