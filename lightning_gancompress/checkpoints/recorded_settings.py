"""The settings of a run that its checkpoints record, so that `--ckpt_path` alone says how to go on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

KEY = "run_config"

# classes that had another import path when a configuration was written
MOVED = {
    "lightning_gancompress.modules.distillation.Distillation": (
        "lightning_gancompress.finetune.distillation.Distillation"
    ),
}


def recorded_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in the content of a checkpoint, in plain types; nothing where it has none."""
    settings: dict[str, Any] = json.loads(current_names(json.dumps(checkpoint.get(KEY, {}))))
    return settings


def current_names(text: str) -> str:
    """A configuration, in JSON or YAML, with the classes where they are now."""
    for old, new in MOVED.items():
        text = re.sub(rf"\b{re.escape(old)}\b", new, text)
    return text
