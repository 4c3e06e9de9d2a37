"""Generated facades as a paired data set, for the quick start, tests and notebooks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_gancompress.data.datasets import Direction
from lightning_gancompress.data.facades import render_facade
from lightning_gancompress.data.layout import describe_folder
from lightning_gancompress.data.paired import PairedDataModule
from lightning_gancompress.errors import UserError

VERSION = 1  # of the pictures: raise it when the renderer changes
MANIFEST = "facades.json"


class SyntheticFacades(PairedDataModule):
    """Facades drawn on the spot: label maps and photos with texture, light and noise, no download.

    Written once as ``root/{train,val,test}/*.png`` with A (photo) | B (labels) side by side; the same seed
    gives the same pictures.

    Args:
        root: Folder to write to; made, or refreshed if it holds facades of other settings.
        n_train: Training pairs.
        n_val: Validation pairs.
        n_test: Test pairs.
        size: Pixels per side.
        seed: Of the pictures, their order and augmentation.
        direction: BtoA translates labels to photos.
        batch_size: Training images per step and process.
        search_batch_size: The same while neighbourhoods are sampled; a multiple of their members.
        load_size: Pixels to which training images are resized before the crop; None keeps ``size``.
        flip: Whether half of the training images are mirrored.
        num_workers: Processes that load images, per loader.
        eval_batch_size: Images per step in validation, test and prediction.
        predict_folder: Source images for prediction.
    """

    def __init__(
        self,
        root: str = "data/facades_synthetic",
        n_train: int = 200,
        n_val: int = 24,
        n_test: int = 24,
        size: int = 64,
        seed: int = 0,
        direction: Direction = "BtoA",
        batch_size: int = 4,
        search_batch_size: int = 8,
        load_size: int | None = None,
        flip: bool = True,
        num_workers: int = 2,
        eval_batch_size: int = 8,
        predict_folder: str | None = None,
    ) -> None:
        super().__init__(
            root,
            direction=direction,
            batch_size=batch_size,
            search_batch_size=search_batch_size,
            load_size=load_size or size,
            crop_size=size,
            flip=flip,
            num_workers=num_workers,
            seed=seed,
            eval_batch_size=eval_batch_size,
            predict_folder=predict_folder,
        )
        if size < 32:
            raise UserError(f"size is {size}, too small to draw a facade: use at least 32 pixels.")
        self.size, self.counts = size, {"train": n_train, "val": n_val, "test": n_test}
        self.manifest = {"version": VERSION, "size": size, "seed": seed, "counts": self.counts}

    def prepare_data(self) -> None:
        """Write the pictures, unless the folder holds them already.

        Raises:
            UserError: The folder holds something else, or can't be written.
        """
        found = self.read_manifest()
        if found == self.manifest:
            return
        empty = not self.root.exists() or (self.root.is_dir() and not any(self.root.iterdir()))
        if found is None and not empty:
            raise UserError(
                f"Generated facades need a folder of their own, but {describe_folder(self.root)}: set "
                "data.root to a new folder."
            )
        unfinished = self.root.with_name(f".{self.root.name}.{os.getpid()}")
        try:
            self.write(unfinished)
            if self.root.exists():
                shutil.rmtree(self.root)
            unfinished.replace(self.root)
            self._files.clear()
        except OSError as error:
            # another process may have been quicker
            if self.read_manifest() != self.manifest:
                raise UserError(f"Facades can't be written to {self.root}: {error}.") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def read_manifest(self) -> Any:
        """What the manifest in the folder says, None without one."""
        try:
            return json.loads((self.root / MANIFEST).read_text())
        except (OSError, ValueError):
            return None

    def write(self, folder: Path) -> None:
        """Render all splits into a folder."""
        index = 0
        for split, count in self.counts.items():
            (folder / split).mkdir(parents=True)
            for _ in range(count):
                photo, label = render_facade(self.size, self.seed, index)
                pair = Image.new("RGB", (2 * photo.width, photo.height))
                pair.paste(photo, (0, 0))
                pair.paste(label, (photo.width, 0))
                pair.save(folder / split / f"{index:04}.png", compress_level=1)
                index += 1
        (folder / MANIFEST).write_text(json.dumps(self.manifest, indent=2))
