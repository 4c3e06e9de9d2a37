"""The settings of a run in its checkpoints, so that a run can be resumed with `--ckpt_path` alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lightning_gancompress.errors import UserError

KEY = "run_config"

# new import paths of classes that old configurations name by their former paths
MOVED = {
    "lightning_gancompress.modules.distillation.Distillation": (
        "lightning_gancompress.finetune.distillation.Distillation"
    ),
}


def recorded_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in the content of a checkpoint, in plain types; empty if it has none.

    Raises:
        UserError: They are damaged.
    """
    try:
        settings = json.loads(current_names(json.dumps(checkpoint.get(KEY, {}))))
    except (TypeError, ValueError):  # a tensor, or a key of another type
        settings = None
    if not isinstance(settings, dict) or not isinstance(settings.get("trainer") or {}, dict):
        raise UserError(
            f"ckpt_path: the settings in the checkpoint ({KEY}) are damaged: go back to an earlier one."
        )
    return settings


def current_names(text: str) -> str:
    """A configuration, in JSON or YAML, with the current import paths of classes."""
    for old, new in MOVED.items():
        text = re.sub(rf"\b{re.escape(old)}\b", new, text)
    return text
