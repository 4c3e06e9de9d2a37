"""Flags that are looked for in the words of the command, before anything is parsed."""

from __future__ import annotations

import argparse
from typing import Any

TRUST = "--trust"
DEBUG = "--debug"


class Flag(argparse.Action):
    """A flag that the parser accepts and skips; a configuration neither sets nor records it."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None, **kwargs: Any) -> None:
        nowhere = argparse.SUPPRESS
        super().__init__(option_strings, dest=nowhere, default=nowhere, nargs=0, help=help)

    def __call__(self, *args: Any) -> None:
        """Do nothing."""
