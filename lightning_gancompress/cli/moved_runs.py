"""Runs whose folder has another place than when their checkpoint was written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_gancompress.files import user_path
from lightning_gancompress.run_folder import CHECKPOINTS


def in_its_place(recorded: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Recorded settings with the paths that they have where the checkpoint lies now.

    A checkpoint that lies as in its run's folder (`checkpoints/last.ckpt`) writes there; one that lies
    elsewhere, into a folder beside it that bears its name. Other paths within the run's folder follow: those
    of the trainer, where it writes, and those of model and data that exist there.

    Args:
        recorded: Settings by part: `trainer`, `model`, `data`.
        checkpoint: The checkpoint that holds them.
    """
    trainer = recorded.get("trainer")
    if trainer is None:
        return recorded
    others = [user_path(path) for path in values(trainer, "dirpath")]
    return moved_to(folder_of(checkpoint, user_path(root_of(trainer)), others), recorded, checkpoint)


def config_in_its_place(settings: Any, path: Path) -> Any:
    """Likewise the content of a `config.yaml` that lies in its run's folder; that of any other as it is."""
    own = path.name.startswith("config") and (path.parent / CHECKPOINTS / "last.ckpt").is_file()
    trainer = settings.get("trainer") if own and isinstance(settings, dict) else None
    return moved_to(near(path.resolve().parent), settings, path) if isinstance(trainer, dict) else settings


def root_of(trainer: dict[str, Any]) -> str:
    """The run's folder in the settings of the trainer."""
    return str(trainer.get("default_root_dir") or ".")


def moved_to(now: Path, settings: dict[str, Any], file: Path) -> dict[str, Any]:
    """Settings in a file of a run whose folder is `now`."""
    was = root_of(settings["trainer"])
    if now.resolve() == user_path(was).resolve():
        return settings

    def moved(value: Any, required: bool) -> Any:
        if isinstance(value, dict):
            return {key: moved(item, required) for key, item in value.items()}
        if isinstance(value, list):
            return [moved(item, required) for item in value]
        if not isinstance(value, str) or not value.startswith(f"{was.rstrip('/')}/"):
            return value
        place = now / value[len(was.rstrip("/")) + 1 :]
        return value if required and not place.exists() else str(place)

    rank_zero_info(f"{file} was written by a run in {was}; it is in {now} now, and so is the run.")
    parts = {part: moved(value, required=part != "trainer") for part, value in settings.items()}
    return {**parts, "trainer": {**parts["trainer"], "default_root_dir": str(now)}}


def folder_of(checkpoint: Path, root: Path, others: list[Path]) -> Path:
    """The folder of the run whose checkpoint lies at a place.

    Args:
        checkpoint: The file.
        root: The run's folder when the file was written.
        others: Folders of checkpoints that the user had chosen.
    """
    place, root = checkpoint.resolve().parent, root.resolve()
    folders = [root / CHECKPOINTS, *(path.resolve() for path in others)]
    if place in folders:
        return root
    for within in [path.relative_to(root) for path in folders if path.is_relative_to(root)]:
        if within.parts and place.parts[-len(within.parts) :] == within.parts:
            return near(place.parents[len(within.parts) - 1])
    return near(place / checkpoint.stem)


def near(path: Path) -> Path:
    """The path from the working folder if it is within."""
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


def values(tree: Any, name: str) -> Iterator[str]:
    """The texts of all keys of a name in nested mappings and lists."""
    if isinstance(tree, list):
        for item in tree:
            yield from values(item, name)
    elif isinstance(tree, dict):
        for key, item in tree.items():
            if key == name and isinstance(item, str):
                yield item
            yield from values(item, name)
