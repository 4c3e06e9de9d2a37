"""What the data modules of image files share: files by split, loaders, and the record of what is done."""

from __future__ import annotations

import hashlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from operator import is_
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lightning_gancompress.data.datasets import Files, Images, Samples, Together
from lightning_gancompress.data.layout import EXTENSIONS, describe_folder, list_images
from lightning_gancompress.data.sampler import EpochSampler, ResumableLoader, ShardSampler, ZipSampler
from lightning_gancompress.data.transforms import Preprocessing, check_channels, collate
from lightning_gancompress.errors import UserError

Split = Literal["train", "val", "test"]

# Lightning warns of pytorch issue 91252, which needs a new loader every epoch; here one serves them all
warnings.filterwarnings("ignore", ".*persistent_workers=True.* can lead to instability")


class ImageDataModule(LightningDataModule, ABC):
    """Images from folders, in one data set per generator role: the images which that generator translates.

    Derived classes say which files a split has (`find`) and how they become samples (`dataset`).

    Attributes:
        neighbourhoods: Per generator role its table, ``(N, k + 1)`` int64 over its training images; None
            outside of the search. Then training images come unaugmented, and those of a role with a table
            in groups of ``members``.
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
        super().__init__()
        check_channels(**channels)
        if min(batch_size, search_batch_size, eval_batch_size) < 1:
            raise UserError(
                f"batch_size {batch_size}, search_batch_size {search_batch_size} and eval_batch_size "
                f"{eval_batch_size} must be positive."
            )
        self.root, self.view, self.channels, self.seed = Path(root), view, channels, seed
        self.batch_size, self.search_batch_size = batch_size, search_batch_size
        self.eval_batch_size, self.num_workers = eval_batch_size, num_workers
        self.max_train, self.predict_folder = max_train, predict_folder
        self.splits = {"train": ["train"], "val": [*splits], "test": [*reversed(splits)]}
        self.neighbourhoods: dict[str, Tensor] | None = None
        self.members = 4
        self._files: dict[str, dict[str, Files]] = {}
        self._train_loader: tuple[tuple[Any, ...], DataLoader[Any]] | None = None

    # -- what derived classes say ----------------------------------------------------------------------

    @abstractmethod
    def find(self, split: Split) -> dict[str, Files]:
        """Per generator role the files of a split, sorted by name; empty if the split is not there."""

    @abstractmethod
    def dataset(self, role: str, files: Files, seed: int | None) -> Samples:
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
    def preprocessing(self) -> dict[str, Any]:
        """What a user of the generator must do to an image first, in plain types. Sizes in pixels."""
        return {
            "preprocess": self.view.preprocess,
            "load_size": self.view.load_size,
            "crop_size": self.view.crop_size,
            "resample": "bicubic",
            **self.channels,
            "range": [-1.0, 1.0],
        }

    def fingerprint(self) -> str:
        """Digest of the training files (names, sizes, times) and what is done to them."""
        files = sorted({file for sample in chain(*self.files("train").values()) for file in sample})
        stats = [(str(file.relative_to(self.root)), file.stat()) for file in files]
        facts = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        return hashlib.sha256(json.dumps([self.preprocessing, facts]).encode()).hexdigest()

    def files(self, split: Split) -> dict[str, Files]:
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

    def datasets(self, split: Split, augment: bool = False) -> dict[str, Samples]:
        """Per generator role the data set of a split, augmented or as evaluation sees it."""
        files = self.files(split)
        seeds = self._seeds() if augment else [None, None]
        return {role: self.dataset(role, files[role], seed) for role, seed in zip(files, seeds, strict=False)}

    def _seeds(self) -> list[int]:
        """One per role: order and views of one domain say nothing about those of the other."""
        return [self.seed, int(np.random.SeedSequence(self.seed).generate_state(1)[0])]

    # -- loaders ---------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Look for the splits of a stage, so that a missing one is reported before anything else starts."""
        stages: dict[str, list[Split]] = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}
        for split in stages.get(stage, []):
            self.files(split)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled and augmented images, or plain ones in groups once ``neighbourhoods`` is set.

        The loader is kept while nothing that it depends on changes: its workers survive the epoch.
        """
        depends = self.trainer, self.neighbourhoods, self.members
        known = self._train_loader and all(map(is_, self._train_loader[0], depends))
        if self._train_loader is None or not known:
            datasets = self.datasets("train", augment=self.neighbourhoods is None)
            batch_size = self.batch_size if self.neighbourhoods is None else self.search_batch_size
            samplers = [
                EpochSampler(
                    dataset,
                    batch_size,
                    seed,
                    self.trainer,
                    (self.neighbourhoods or {}).get(role),
                    self.members,
                    max(map(len, datasets.values())),
                )
                for (role, dataset), seed in zip(datasets.items(), self._seeds(), strict=False)
            ]
            dataset, sampler = Together(list(datasets.values())), ZipSampler(samplers)
            self._train_loader = depends, self._loader(dataset, sampler, batch_size, train=True)
        return self._train_loader[1]

    def plain_train_loader(self) -> Iterator[dict[str, Any]]:
        """Batches of all training images in order, as evaluation sees them, on every rank; role by role."""
        datasets = self.datasets("train").values()
        return chain.from_iterable(self._loader(dataset, None, self.eval_batch_size) for dataset in datasets)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """This rank's share of the validation images, in order; a loader per role, if there are several."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """This rank's share of the test images, in order; a loader per role, if there are several."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
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
        return self._share_loader(Images(files, self.view, self.predict_channels))

    @property
    def predict_channels(self) -> int:
        """Channels of the images of ``predict_folder``."""
        return self.channels["in_channels"]

    def _eval_loader(self, split: Split) -> DataLoader[Any] | list[DataLoader[Any]]:
        loaders = [self._share_loader(dataset) for dataset in self.datasets(split).values()]
        return loaders if len(loaders) > 1 else loaders[0]

    def _share_loader(self, dataset: Samples) -> DataLoader[Any]:
        return self._loader(dataset, ShardSampler(dataset, self.trainer), self.eval_batch_size)

    def _loader(
        self, dataset: Samples | Together, sampler: Sampler[Any] | None, batch_size: int, train: bool = False
    ) -> DataLoader[Any]:
        return ResumableLoader(
            dataset,
            batch_size=batch_size,  # by keyword: Lightning builds a loader anew for prediction
            sampler=sampler,
            drop_last=train,
            num_workers=self.num_workers,
            persistent_workers=train and self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
        )
