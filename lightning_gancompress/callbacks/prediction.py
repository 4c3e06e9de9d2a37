"""The callback that writes predicted images to files."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_gancompress.callbacks.image_grid import to_picture
from lightning_gancompress.data.contract import data_of
from lightning_gancompress.data.layout import EXTENSIONS
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import require_writable, write_files
from lightning_gancompress.options import checked
from lightning_gancompress.reporting.grid import png


class PredictionWriter(Callback):
    """Writes predicted images to `<default_root_dir>/predictions/` as PNG, named like their sources.

    Subfolders are kept. If two sources in a folder differ by the suffix only (`a.jpg`, `a.png`), it becomes
    part of the name (`a.jpg.png`).

    Args:
        folder: Folder to write to, relative to `default_root_dir`.
    """

    @checked
    def __init__(self, folder: str = "predictions") -> None:
        self.folder = folder
        self._stems: dict[Path, Counter[str]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before a prediction that its images can be written."""
        if stage == "predict" and trainer.is_global_zero:
            require_writable(Path(trainer.default_root_dir, self.folder), "trainer.default_root_dir")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the images of a batch."""
        sources = data_of(trainer).predict_folder
        for image, path in zip(outputs["image"], outputs["path"], strict=True):
            if len(image) not in (1, 3):
                raise UserError(
                    f"An image of {len(image)} channels can't be written as PNG: predictions need 1 or 3."
                )
            target = Path(trainer.default_root_dir, self.folder, self.name(Path(path), sources))
            if target.exists() and Path(path).exists() and target.samefile(path):
                raise UserError(
                    f"The prediction of {path} would replace it: choose another data.predict_folder, or "
                    f"another folder for the predictions than {self.folder}."
                )
            write_files({target: png(to_picture(image))})

    def name(self, path: Path, sources: str | None) -> Path:
        """The file to write for the source `path`, relative to the folder of predictions.

        Args:
            path: The source image.
            sources: Folder of the sources, to which paths are relative; paths outside it are kept whole, so
                that files never collide.
        """
        path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links out of the folder
        parent = path.parent.relative_to(path.anchor)
        if sources is not None and path.is_relative_to(os.path.abspath(sources)):  # noqa: PTH100
            parent = path.parent.relative_to(os.path.abspath(sources))  # noqa: PTH100
        if path.parent not in self._stems:
            names = [Path(name) for name in os.listdir(path.parent)] if path.parent.is_dir() else []  # noqa: PTH208
            self._stems[path.parent] = Counter(n.stem for n in names if n.suffix.lower() in EXTENSIONS)
        alone = self._stems[path.parent][path.stem] <= 1
        return parent / f"{path.stem if alone else path.name}.png"
