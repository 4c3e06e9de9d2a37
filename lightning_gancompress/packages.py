"""Packages that only some features need."""

from __future__ import annotations

import importlib.util

from lightning_gancompress.errors import UserError


def lacking(*packages: str) -> list[str]:
    """The packages that aren't installed."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def require(feature: str, *packages: str) -> None:
    """Check that packages are installed, whose names are those that pip knows.

    Args:
        feature: What needs them, as the beginning of a sentence.
        packages: Their names.

    Raises:
        UserError: One is missing.
    """
    if missing := lacking(*packages):
        raise UserError(f"{feature} needs {' and '.join(missing)}: run `pip install {' '.join(missing)}`.")
