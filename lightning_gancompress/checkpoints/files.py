"""Reading and writing files such that a bad one is named and no half-written one remains."""

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from lightning_gancompress.errors import UserError


def read_torch(path: Path) -> Any:
    """Return the tensors and plain types in a file of `torch.save`, on the CPU. Runs no code from it.

    Raises:
        UserError: When the file is missing, damaged, or holds other objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}: check the path.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: name the checkpoint file inside it.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error
    except Exception as error:  # what the bytes of a damaged file lead to has no end
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise UserError(
                f"{path} contains more than tensors (Python objects, which could run code), so it was not loaded. "
                "If you trust it, load it once with torch.load(path, weights_only=False), take the network's "
                "state_dict() and torch.save() only that."
            ) from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{path} is truncated or no PyTorch file ({reason}): copy or download it again."
        ) from error


def write_files(contents: dict[Path, bytes]) -> None:
    """Write each of `contents` whole or not at all: all are on the disk before the first takes its name.

    Raises:
        UserError: When a file can't be written; none of the old ones has changed then.
    """
    drafts = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, draft in drafts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(contents[path])
        for path, draft in drafts.items():
            draft.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} can't be written: {error.strerror}. Free some space or choose another folder."
        ) from error
    finally:
        for draft in drafts.values():
            with contextlib.suppress(OSError):
                draft.unlink()
