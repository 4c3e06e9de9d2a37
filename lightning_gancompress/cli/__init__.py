"""The command line."""

from lightning_gancompress.cli.main import main

__all__ = ["main"]
