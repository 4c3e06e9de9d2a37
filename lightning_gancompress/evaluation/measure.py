"""What another callback may add to the results of a test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Measure(Callback, ABC):
    """A callback that measures generators at test, and whose findings `Evaluation` writes among its own."""

    @abstractmethod
    def findings(self, trainer: Trainer, pl_module: LightningModule, role: str) -> dict[str, Any]:
        """What goes into a generator's `results.json`, nested as there; called on all ranks.

        `{"networks": {"student": {"miou": 0.3}}, "miou": {"protocol": "quick"}}`, say.
        """


def merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add `more` to a nested dictionary in place."""
    for key, value in more.items():
        if isinstance(value, Mapping):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
