"""What a safetensors file says of itself, read without its tensors."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

SAFETENSORS = ".safetensors"
KEY = "gancompress"  # of the description of a small model


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; a damaged one raises errors of that package."""
    from safetensors import safe_open

    path.open("rb").close()  # whose errors say more
    with safe_open(path, "numpy") as file:
        return dict(file.metadata() or {})


def has_description(path: Path) -> bool:
    """Whether a file is a whole safetensors file that describes a small model of this project."""
    with suppress(Exception):  # what is missing or damaged does not
        return path.suffix == SAFETENSORS and KEY in safetensors_metadata(path)
    return False
