"""Generated facades as data sets, for the quick starts, tests and notebooks."""

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
from lightning_gancompress.data.unpaired import Domain, UnpairedDataModule
from lightning_gancompress.errors import UserError

VERSION = 1  # of the pictures: raise it when the renderer changes
MANIFEST = "facades.json"


class FacadeFolder:
    """A folder of facades, drawn unless it holds them already.

    Args:
        root: The folder; made, or refreshed if it holds facades of other settings.
        counts: Pictures per split.
        size: Pixels per side.
        seed: Of the pictures.
        paired: Photo | labels side by side in a folder per split; else the labels of some buildings in
            ``splitA`` and photos of others in ``splitB``.
    """

    def __init__(self, root: Path, counts: dict[str, int], size: int, seed: int, paired: bool = True) -> None:
        if size < 32:
            raise UserError(f"size is {size}, too small to draw a facade: use at least 32 pixels.")
        self.root, self.counts, self.size, self.seed, self.paired = root, counts, size, seed, paired
        self.manifest = {"version": VERSION, "size": size, "seed": seed, "counts": counts}
        if not paired:
            self.manifest["paired"] = False

    def prepare(self) -> None:
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
            for name in [split] if self.paired else [f"{split}A", f"{split}B"]:
                (folder / name).mkdir(parents=True)
                for _ in range(count):
                    photo, label = render_facade(self.size, self.seed, index)
                    if self.paired:
                        picture = side_by_side(photo, label)
                    else:
                        picture = label if name.endswith("A") else photo
                    picture.save(folder / name / f"{index:04}.png", compress_level=1)
                    index += 1
        (folder / MANIFEST).write_text(json.dumps(self.manifest, indent=2))


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Join two images of one size."""
    pair = Image.new("RGB", (2 * left.width, left.height))
    pair.paste(left, (0, 0))
    pair.paste(right, (left.width, 0))
    return pair


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
        counts = {"train": n_train, "val": n_val, "test": n_test}
        self.facades = FacadeFolder(self.root, counts, size, seed)

    def prepare_data(self) -> None:
        """Write the pictures, unless the folder holds them already."""
        self.facades.prepare()
        self._files.clear()


class SyntheticUnpairedFacades(UnpairedDataModule):
    """The facades of `SyntheticFacades` as two domains: label maps, and photos of other buildings.

    Written once as ``root/{train,val,test}{A,B}/*.png``, A are label maps.

    Args:
        root: Folder to write to; made, or refreshed if it holds facades of other settings.
        n_train: Training images of each domain.
        n_val: Validation images of each domain.
        n_test: Test images of each domain.
        size: Pixels per side.
        seed: Of the pictures, their order and augmentation.
        batch_size: Training images of each domain per step and process.
        search_batch_size: The same while neighbourhoods are sampled; a multiple of their members.
        load_size: Pixels to which training images are resized before the crop; None keeps ``size``.
        flip: Whether half of the training images are mirrored.
        num_workers: Processes that load images, per loader.
        eval_batch_size: Images per step in validation, test and prediction.
        predict_folder: Source images for prediction.
        predict_domain: Of these images.
    """

    def __init__(
        self,
        root: str = "data/facades_unpaired",
        n_train: int = 200,
        n_val: int = 24,
        n_test: int = 24,
        size: int = 64,
        seed: int = 0,
        batch_size: int = 4,
        search_batch_size: int = 8,
        load_size: int | None = None,
        flip: bool = True,
        num_workers: int = 2,
        eval_batch_size: int = 8,
        predict_folder: str | None = None,
        predict_domain: Domain = "A",
    ) -> None:
        super().__init__(
            root,
            batch_size=batch_size,
            search_batch_size=search_batch_size,
            load_size=load_size or size,
            crop_size=size,
            flip=flip,
            num_workers=num_workers,
            seed=seed,
            eval_batch_size=eval_batch_size,
            predict_folder=predict_folder,
            predict_domain=predict_domain,
        )
        counts = {"train": n_train, "val": n_val, "test": n_test}
        self.facades = FacadeFolder(self.root, counts, size, seed, paired=False)

    def prepare_data(self) -> None:
        """Write the pictures, unless the folder holds them already."""
        self.facades.prepare()
        self._files.clear()
