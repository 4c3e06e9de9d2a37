"""Checks of options; each raises a UserError that names option, value and remedy."""

from __future__ import annotations

from lightning_gancompress.errors import UserError

IMAGE_MODES = {1: "L", 3: "RGB"}  # of Pillow, by channels


def check_least(least: int, **options: int | None) -> None:
    """Require numbers of at least ``least``; None is allowed."""
    for name, value in options.items():
        if value is not None and not value >= least:
            raise UserError(f"data: {name} {value} is too small: set it to {least} or more.")


def check_share(**options: float) -> None:
    """Require shares in [0, 1)."""
    for name, value in options.items():
        if not 0 <= value < 1:
            raise UserError(
                f"data: {name} is {value}: set it to a share of the images, at least 0 and below 1."
            )


def check_channels(**options: int) -> None:
    """Require 1 or 3 channels."""
    for name, value in options.items():
        if value not in IMAGE_MODES:
            raise UserError(
                f"{name} is {value}, but image files give 1 (greyscale) or 3 (RGB) channels: use one of "
                f"them, labels: {{encoding: one_hot, classes: {value}}} for label maps, or DatasetDataModule "
                "with a data set of your own."
            )
