"""What the data modules of image files share: files by split, and the record of what is done to them."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from itertools import chain
from pathlib import Path

from lightning_gancompress.data.contract import GANDataModule, PreprocessingRecord, Split
from lightning_gancompress.data.datasets import Files, Images, Samples
from lightning_gancompress.data.layout import EXTENSIONS, describe_folder, list_images
from lightning_gancompress.data.transforms import Preprocessing, check_channels
from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks.role import Role


class ImageDataModule(GANDataModule):
    """Images from folders.

    Derived classes say which files a split has (`find`) and how they become samples (`dataset`).
    """

    def __init__(
        self,
        root: str,
        view: Preprocessing,
        channels: dict[str, int],
        *,
        batch_size: int,
        search_batch_size: int,
        eval_batch_size: int,
        splits: tuple[str, str],
        max_train: int | None,
        num_workers: int,
        seed: int,
        predict_folder: str | None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            search_batch_size=search_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        check_channels(**channels)
        self.root, self.view, self.channels = Path(root), view, channels
        self.max_train, self.predict_folder = max_train, predict_folder
        self.splits = {"train": ["train"], "val": [*splits], "test": [*reversed(splits)]}
        self._files: dict[Split, dict[Role, Files]] = {}

    # -- what derived classes say ----------------------------------------------------------------------

    @abstractmethod
    def find(self, split: Split) -> dict[Role, Files]:
        """Per generator role the files of a split, sorted by name; empty if the split is not there."""

    @abstractmethod
    def dataset(self, role: Role, files: Files, seed: int | None) -> Samples:
        """Make the data set of a role; ``seed`` is None for images as evaluation sees them."""

    @abstractmethod
    def layouts(self, split: str) -> str:
        """Where `find` looks for a split, in words."""

    # -- what is done to which files -------------------------------------------------------------------

    @property
    def crop_size(self) -> int:
        """Side of the images that the networks see, in pixels."""
        return self.view.crop_size

    @property
    def preprocessing(self) -> PreprocessingRecord:
        """What a user of the generator must do to an image first, in plain types. Sizes in pixels."""
        channels: PreprocessingRecord = {"in_channels": self.channels["in_channels"]}
        if "out_channels" in self.channels:
            channels["out_channels"] = self.channels["out_channels"]
        return {
            "preprocess": self.view.preprocess,
            "load_size": self.view.load_size,
            "crop_size": self.view.crop_size,
            "resample": "bicubic",
            **channels,
            "range": [-1.0, 1.0],
        }

    def fingerprint(self, split: Split = "train") -> str:
        """Digest of the files of a split (names, sizes, times) and what is done to them."""
        files = sorted({file for sample in chain(*self.files(split).values()) for file in sample})
        stats = [(str(file.relative_to(self.root)), file.stat()) for file in files]
        facts = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        return hashlib.sha256(json.dumps([self.preprocessing, facts]).encode()).hexdigest()

    def files(self, split: Split) -> dict[Role, Files]:
        """Per generator role the files of each sample of a split; read from disk once.

        Raises:
            UserError: There are none.
        """
        if split not in self._files:
            if not self.root.is_dir():
                raise UserError(
                    f"Data folder {self.root} does not exist: set data.root to a folder with images."
                )
            found = self.find(split)
            if not found:
                names = self.splits[split]
                seen = [self.root, *(path for name in names if (path := self.root / name).is_dir())]
                raise UserError(
                    f"No {split} images in {self.root}: looked for {' or '.join(names)} with "
                    f"{self.layouts(names[0])}, with the endings {' '.join(sorted(EXTENSIONS))}; but "
                    f"{', '.join(map(describe_folder, seen))}."
                )
            limit = self.max_train if split == "train" else None
            self._files[split] = {role: files[:limit] for role, files in found.items()}
        return self._files[split]

    def datasets(self, split: Split, augment: bool = False) -> dict[Role, Samples]:
        """Per generator role the data set of a split, augmented or as evaluation sees it."""
        files = self.files(split)
        seeds = self._seeds() if augment else [None, None]
        return {role: self.dataset(role, files[role], seed) for role, seed in zip(files, seeds, strict=False)}

    def predict_dataset(self) -> Images:
        """Images of ``predict_folder``, in order, by the keys of `Images`."""
        if self.predict_folder is None:
            raise UserError("predict needs images: set data.predict_folder to a folder with source images.")
        folder = Path(self.predict_folder)
        files = [(file,) for file in list_images(folder)]
        if not files:
            raise UserError(
                f"No images to predict: {describe_folder(folder)}; expected files with one of the endings "
                f"{' '.join(sorted(EXTENSIONS))}."
            )
        return Images(files, self.view, self.predict_channels)

    @property
    def predict_channels(self) -> int:
        """Channels of the images of ``predict_folder``."""
        return self.channels["in_channels"]
