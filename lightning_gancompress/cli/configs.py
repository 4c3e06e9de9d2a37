"""Configurations of the command line: given files, shipped files, and settings recorded in checkpoints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from lightning.pytorch import LightningDataModule

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.recorded_classes import arguments_of, require_known
from lightning_gancompress.checkpoints.recorded_settings import current_names, recorded_settings
from lightning_gancompress.errors import UserError
from lightning_gancompress.modules import GANModule
from lightning_gancompress.shipped_configs import find_config
from lightning_gancompress.trainer import Trainer
from lightning_gancompress.trust import Named

TRUST = "--trust"
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


class Trust(argparse.Action):
    """The flag `--trust`, which `named_by` looks for; a configuration neither sets nor records it."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None, **kwargs: Any) -> None:
        nowhere = argparse.SUPPRESS
        super().__init__(option_strings, dest=nowhere, default=nowhere, nargs=0, help=help)

    def __call__(self, *args: Any) -> None:
        """Do nothing."""


def recorded_config(args: list[str]) -> dict[str, Any]:
    """Settings recorded in the checkpoint of `--ckpt_path`, without those of the machine; empty without one.

    Raises:
        UserError: The file is missing or unreadable.
    """
    path = given_checkpoint(args)
    if path == "best":
        raise UserError("`--ckpt_path best` means the run in progress: here, name the file.")
    if path is None or path in ("null", "last", "hpc") or path.startswith("registry") or "://" in path:
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
    for name, kind in {"model": GANModule, "data": LightningDataModule}.items():
        require_known(recorded.get(name), kind, name)
    options = arguments_of(Trainer)
    for name, value in recorded.get("trainer", {}).items():
        require_known(value, options.get(name, object), f"trainer.{name}")
    for callback in recorded.get("trainer", {}).get("callbacks") or []:
        # with a folder goes the list of checkpoints there that the run replaces
        given = callback["init_args"] if isinstance(callback, dict) and "init_args" in callback else {}
        if given.get("dirpath") and Path(given["dirpath"]).resolve() != Path(path).resolve().parent:
            given["dirpath"] = None
    return recorded


def named_by(args: list[str]) -> Named:
    """What the user's own command and configurations name; files may name the same."""
    texts: set[str] = set()
    for arg in args:
        for text in (arg, arg.partition("=")[2]):
            texts |= _texts_of(text, is_file=text.endswith((".yaml", ".yml")))
    return Named(frozenset(texts), everything=TRUST in args)


def _texts_of(text: str, is_file: bool) -> set[str]:
    """All texts in a text of YAML, or in a configuration by its name; none if it can't be read."""
    try:
        content = yaml.safe_load(find_config(text).read_text(encoding="utf-8") if is_file else text)
    except (UserError, OSError, ValueError, RecursionError, yaml.YAMLError):
        return set()  # the parser will raise the error
    texts, waiting = set(), [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.add(value)
        elif isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return texts


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
