"""Configurations of the command line: given files, shipped files, and settings recorded in checkpoints."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.recorded_settings import current_names, recorded_settings
from lightning_gancompress.cli.moved_runs import config_in_its_place, in_its_place
from lightning_gancompress.cli.trusted_settings import require_trusted
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import expanded_path, user_path
from lightning_gancompress.leaves import leaves
from lightning_gancompress.run_folder import CONFIG_HEADER
from lightning_gancompress.shipped_configs import find_config, read_config

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
        path, text = find_config(values), read_config(values)
        try:
            _require_settings(text)
            # by its path if unchanged, since paths in it may be relative to it
            current = current_names(text)
            if text.startswith(CONFIG_HEADER):
                settings = yaml.safe_load(current)
                placed = config_in_its_place(settings, path)
                current = current if placed == settings else json.dumps(placed)
            self.apply_config(parser, cfg, self.dest, str(path) if current == text else current)
        except (UserError, yaml.YAMLError) as error:
            raise UserError(f"{path}: {error}") from error


def _require_settings(text: str) -> None:
    """Raise a `UserError` unless a text has settings by their keys, each once: of two YAML takes the last."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):  # which the parser explains
        return
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise UserError("holds no settings: it needs keys such as model, data or trainer.")
    nodes, seen = [root], set[int]()  # aliases may form circles
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.ScalarNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise UserError(
                    f"{name} is given in line {lines[name]} and again in line {line}, of which only the last "
                    "would count: put both together."
                )
            lines[name] = line
            nodes.append(value)


def expanded(settings: Any) -> Any:
    """Parsed settings with `~` and environment variables replaced in all texts."""
    if isinstance(settings, Namespace):
        return Namespace({key: expanded(value) for key, value in vars(settings).items()})  # type: ignore[no-untyped-call]
    if isinstance(settings, dict):
        return {key: expanded(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [expanded(value) for value in settings]
    text = isinstance(settings, str) and re.match(r"~|.*\$[\w{]", settings)
    return expanded_path(settings) if text else settings


class Arguments:
    """The arguments of a command that trains or evaluates, as far as they concern its checkpoint.

    Args:
        args: The arguments; the parser reports what is wrong with them.
    """

    def __init__(self, args: list[str]) -> None:
        self.args = args
        self.command = next((arg for arg in args if arg in RUNS), None)
        self.checkpoint: str | None = None
        self.appended = {found[1] for arg in args if (found := re.match(r"--([\w.]+)\+(=|$)", arg))}
        reader = _Reader(add_help=False)  # abbreviates as the parser does
        reader.add_argument("--ckpt_path", action=_Call, call=self._name)
        reader.add_argument("-c", "--config", action=_Call, call=self._read)
        with suppress(argparse.ArgumentError):
            reader.parse_known_args(args)
        if self.command is None:
            self.checkpoint = None

    def _name(self, value: Any) -> None:
        self.checkpoint = None if value in (None, "null") else str(value)

    def _read(self, name: str) -> None:
        """Take in what a configuration says of the checkpoint."""
        try:
            content = yaml.safe_load(read_config(name))
        except (UserError, OSError, ValueError, yaml.YAMLError):
            return
        for settings in (content, content.get(self.command) if isinstance(content, dict) else None):
            if isinstance(settings, dict):
                if "ckpt_path" in settings:
                    self._name(settings["ckpt_path"])
                keys = (key for key, _ in leaves(settings))
                self.appended |= {found[1] for key in keys if (found := re.match(r"([\w.]+)\+(\.|$)", key))}

    def with_config(self, recorded: dict[str, Any]) -> list[str]:
        """The arguments with recorded settings as the first configuration, which all others override."""
        if not recorded:
            return self.args
        return ["--config", json.dumps({str(self.command): recorded}), *self.args]


class _Reader(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


class _Call(argparse.Action):
    def __init__(self, *args: Any, call: Callable[[Any], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.call = call

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        self.call(values)


def recorded_config(arguments: Arguments) -> dict[str, Any]:
    """Settings recorded in a checkpoint, without those of the machine; empty without one.

    Their folder of the run is the one in which the checkpoint lies.

    Raises:
        UserError: The file is missing or unreadable.
    """
    name = arguments.checkpoint
    if name in (None, "best", "last", "hpc") or name.startswith("registry") or "://" in name:
        return {}
    path = user_path(name)
    checkpoint = read_torch(path)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(
            f"{path} is no training checkpoint: `export`, `profile`, `predict --model` and `demo` read it, "
            "this command doesn't."
        )
    settings = recorded_settings(checkpoint)
    keys = ("seed_everything", "trainer", "model", "data")
    recorded = {key: settings[key] for key in keys if settings.get(key) is not None}
    for option in _NOT_RESUMED:
        recorded.get("trainer", {}).pop(option, None)
    recorded = in_its_place(recorded, path)
    require_trusted(recorded, arguments.args, path)
    return recorded
