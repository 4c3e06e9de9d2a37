"""Lightning's plug-in that writes and reads checkpoints, atomically and without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.resumable import require_resumable
from lightning_gancompress.files import replacing, user_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces checkpoints as a whole or not at all, and reads them without running code from them."""

    # Lightning writes to the system's temporary folder and moves: across file systems that is no atomic step

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a draft beside `path` and rename it to `path`; Lightning writes remote paths (`s3://...`).

        Raises:
            UserError: There is no space or no permission.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with replacing(path) as draft, draft.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # how torch reports a full disk
                    raise error.__context__ from None
                raise

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint; nothing else, since a checkpoint names those that its run has replaced."""
        if "://" in str(path):
            super().remove_checkpoint(path)
        elif Path(path).suffix == ".ckpt" and Path(path).is_file():
            Path(path).unlink()

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint of tensors and plain types.

        Raises:
            UserError: The file is missing, damaged, or holds other objects.
        """
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        path = user_path(path)
        checkpoint: dict[str, Any] = read_torch(path)
        require_resumable(checkpoint, path)
        return checkpoint
