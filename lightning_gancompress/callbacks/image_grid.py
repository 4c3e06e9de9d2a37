"""Picture grids of validation and test images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lightning_gancompress.files import write_files
from lightning_gancompress.metrics import to_uint8
from lightning_gancompress.reporting.page.pictures import GAP, HEADER
from lightning_gancompress.tasks import Role


class ImageGrid(Callback):
    """Draw the first images of validation and test: a row for each, in the columns of the step's output.

    Under `default_root_dir`: `images/epoch_XXXX.png` after an epoch's validation, `validate/grid.png` after a
    validation of its own, `test/grid.png` after a test; for CycleGAN one per direction (`grid_AtoB.png`).
    Loggers that take images get them too (`log_image`, as WandbLogger has it).

    Args:
        every_n_epochs: Draw after each so many epochs of training.
        n_images: Rows.
    """

    def __init__(self, every_n_epochs: int = 1, n_images: int = 8) -> None:
        self.every_n_epochs, self.n_images = every_n_epochs, n_images
        self._columns: dict[Role, dict[str, list[Tensor]]] = {}  # by role and name

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new grid."""
        self._columns = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep images while rows are missing."""
        if self._due(trainer):
            self._collect(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the grid of this epoch."""
        fitting = trainer.state.fn == "fit"
        name = f"images/epoch_{trainer.current_epoch:04d}.png" if fitting else "validate/grid.png"
        self._write(trainer, name, "val/images")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new grid."""
        self._columns = {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep images while rows are missing."""
        if trainer.is_global_zero:
            self._collect(outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the grid of the test."""
        self._write(trainer, "test/grid.png", "test/images")

    def _due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return False
        return trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _collect(self, outputs: dict[Role, dict[str, Tensor]]) -> None:
        for role, images_by_name in outputs.items():
            columns = self._columns.setdefault(role, {})
            for name, images in images_by_name.items():
                column = columns.setdefault(name, [])
                column.extend(images[: self.n_images - len(column)].detach().cpu())

    def _write(self, trainer: Trainer, name: str, key: str) -> None:
        for role, columns in self._columns.items():
            grid, path = draw_grid(columns), Path(trainer.default_root_dir, name)
            write_files({path.with_stem(path.stem + role.suffix): png(grid)})
            for logger in trainer.loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image(key=key + role.suffix, images=[grid])
        self._columns = {}


def draw_grid(columns: dict[str, list[Tensor]]) -> Image.Image:
    """Lay images (C, H, W) in [-1, 1] out in named columns of equal length; sizes may differ."""
    font = ImageFont.load_default()
    pictures = {name: [to_picture(image) for image in images] for name, images in columns.items()}
    everything = [picture for column in pictures.values() for picture in column]
    width = max([p.width for p in everything] + [int(font.getlength(name)) for name in pictures]) + GAP
    height = max(p.height for p in everything) + GAP
    rows = max(len(column) for column in pictures.values())
    grid = Image.new("RGB", (width * len(pictures) + GAP, HEADER + height * rows + GAP), "white")
    for x, (name, column) in enumerate(pictures.items()):
        ImageDraw.Draw(grid).text((GAP + width * x, 0), name, fill="black", font=font)
        for y, picture in enumerate(column):
            grid.paste(picture, (GAP + width * x, HEADER + GAP + height * y))
    return grid


def to_picture(image: Tensor) -> Image.Image:
    """An image (C, H, W) in [-1, 1] as a picture: the first three channels as RGB, or one as greyscale."""
    pixels = to_uint8(image).cpu()
    if len(pixels) < 3:
        return Image.fromarray(pixels[0].numpy())
    return Image.fromarray(pixels[:3].permute(1, 2, 0).contiguous().numpy())


def png(picture: Image.Image) -> bytes:
    """The content of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
