"""The callback that writes image grids of validation and test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from lightning_gancompress.data.contract import data_of
from lightning_gancompress.data.labels import as_picture
from lightning_gancompress.data.pictures import to_picture
from lightning_gancompress.evaluation.evaluable import output_folder
from lightning_gancompress.files import write_files
from lightning_gancompress.loggers import log_picture
from lightning_gancompress.options import Count, checked
from lightning_gancompress.reporting.grid import lay_out, png
from lightning_gancompress.tasks import Role


class ImageGrid(Callback):
    """Writes image grids of validation and test images, with a row per image: source, teacher, student.

    The images are evenly spread over the set.

    Under `default_root_dir`: `images/epoch_XXXX.png` after an epoch's validation, `validate/grid.png` after a
    separate validation, `test/grid.png` after a test (of `best.ckpt` in `validate_best` and `test_best`); for
    CycleGAN one per direction (`grid_AtoB.png`).
    Loggers that take pictures get them too: TensorBoard, and those with a method `log_image`, such as W&B.

    Args:
        every_n_epochs: Epochs of training between two grids.
        n_images: Rows of a grid.
    """

    @checked
    def __init__(self, every_n_epochs: Count = 1, n_images: Count = 8) -> None:
        self.every_n_epochs, self.n_images = every_n_epochs, n_images
        self._spreads: dict[Role, Spread] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new grid."""
        self._spreads = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep some of the images."""
        if self._due(trainer):
            self._collect(trainer, outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the grid of this epoch."""
        if trainer.state.fn == "fit":
            path = Path(trainer.default_root_dir, "images", f"epoch_{trainer.current_epoch:04d}.png")
        else:
            path = output_folder(trainer, "validate") / "grid.png"
        self._write(trainer, path, "val/images")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new grid."""
        self._spreads = {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep some of the images."""
        if trainer.is_global_zero:
            self._collect(trainer, outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the grid of the test."""
        self._write(trainer, output_folder(trainer, "test") / "grid.png", "test/images")

    def _due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return False
        return trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _collect(self, trainer: Trainer, outputs: Mapping[str, Mapping[str, Tensor]]) -> None:
        preprocessing = data_of(trainer).preprocessing
        for role, images in outputs.items():
            shown = {**images, "source": as_picture(images["source"], preprocessing)}
            self._spreads.setdefault(Role(role), Spread(self.n_images)).add(shown)

    def _write(self, trainer: Trainer, path: Path, key: str) -> None:
        for role, spread in self._spreads.items():
            grid = draw_grid(spread.columns())
            write_files({path.with_stem(path.stem + role.suffix): png(grid)})
            log_picture(trainer, key + role.suffix, grid)
        self._spreads = {}


class Spread:
    """Chooses images evenly spread over a set of unknown length: every k-th, where k doubles as it grows.

    Args:
        n: Number of images to choose.
    """

    def __init__(self, n: int) -> None:
        self.n, self._seen, self._step = n, 0, 1
        self._rows: list[dict[str, Tensor]] = []

    def add(self, images: Mapping[str, Tensor]) -> None:
        """Add a batch of images (B, C, H, W) by column."""
        for position in range(min(map(len, images.values()))):
            if self._seen % self._step == 0:
                self._rows.append({name: column[position].detach().cpu() for name, column in images.items()})
            self._seen += 1
            if len(self._rows) == 2 * self.n:
                self._rows, self._step = self._rows[::2], 2 * self._step

    def columns(self) -> dict[str, list[Tensor]]:
        """The chosen images (C, H, W) by column."""
        total, count = len(self._rows), min(self.n, len(self._rows))
        rows = [self._rows[number * total // count] for number in range(count)]
        return {name: [row[name] for row in rows] for name in rows[0]}


def draw_grid(columns: Mapping[str, Sequence[Tensor]]) -> Image.Image:
    """Draw images (C, H, W) in [-1, 1] as a grid of named columns of equal length; sizes may differ."""
    return lay_out({name: [to_picture(image) for image in images] for name, images in columns.items()})
