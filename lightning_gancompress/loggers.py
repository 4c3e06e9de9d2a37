"""What loggers can hold beside figures: pictures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image


@runtime_checkable
class TakesPictures(Protocol):
    """A logger for pictures, such as `WandbLogger`."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Log pictures under a name."""


@runtime_checkable
class TakesTables(Protocol):
    """A logger for tables, such as `WandbLogger`."""

    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log a table under a name."""


def log_picture(trainer: Trainer, key: str, picture: Image.Image) -> None:
    """Give a picture to all loggers that take pictures; called on rank zero."""
    for logger in trainer.loggers:
        if isinstance(logger, TakesPictures):
            logger.log_image(key, [picture], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(key, pixels, trainer.global_step, dataformats="HWC")


def log_table(trainer: Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Give a table to all loggers that take tables or text; called on rank zero."""
    for logger in trainer.loggers:
        if isinstance(logger, TakesTables):
            logger.log_table(key, columns=[*columns], data=[[*row] for row in rows], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(key, markdown(columns, rows), trainer.global_step)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as Markdown; empty where there is no value."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines
    )
