"""The data module of paired images."""

from __future__ import annotations

import hashlib
import json
import warnings
from operator import is_
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lightning_gancompress.data.datasets import Direction, FolderImages, Pairs
from lightning_gancompress.data.layout import EXTENSIONS, describe_folder, find_pairs
from lightning_gancompress.data.sampler import EpochSampler, ResumableLoader, ShardSampler
from lightning_gancompress.data.transforms import Preprocess, Preprocessing, check_channels, collate
from lightning_gancompress.errors import UserError

Split = Literal["train", "val", "test"]

# Lightning warns of pytorch issue 91252, which needs a new loader every epoch; here one serves them all
warnings.filterwarnings("ignore", ".*persistent_workers=True.* can lead to instability")


class PairedDataModule(LightningDataModule):
    """Pairs of images in the layouts, with the preprocessing and defaults, of pytorch-CycleGAN-and-pix2pix.

    Batches: ``{"source", "target": (B, C, H, W) in [-1, 1], "index": (B,) position in the split,
    "path": list}``.

    Args:
        root: Folder with ``train``, ``val`` and ``test``, each holding images A | B side by side, or two
            folders each: ``trainA`` and ``trainB``, ``train/A`` and ``train/B``, or ``A/train`` and
            ``B/train``, paired by file name.
        direction: AtoB translates A (the left half) to B.
        batch_size: Training images per step and process.
        search_batch_size: The same while neighbourhoods are sampled; a multiple of their members.
        load_size: Pixels to which training images are resized before the crop.
        crop_size: Pixels of what the networks see.
        preprocess: As the option of the same name there; ``none`` only rounds sizes to a multiple of 4.
        flip: Whether half of the training images are mirrored.
        in_channels: 1 makes the source greyscale, 3 RGB.
        out_channels: The same for the target.
        val_split: Folder name of the validation split; ``test_split`` where it is missing.
        test_split: Folder name of the test split; ``val_split`` where it is missing.
        max_train: Train on the first so many images only.
        num_workers: Processes that load images, per loader.
        seed: Of order and augmentation.
        eval_batch_size: Images per step in validation, test and prediction.
        predict_folder: Source images for prediction.
    """

    def __init__(
        self,
        root: str,
        direction: Direction = "AtoB",
        batch_size: int = 1,
        search_batch_size: int = 8,
        load_size: int = 286,
        crop_size: int = 256,
        preprocess: Preprocess = "resize_and_crop",
        flip: bool = True,
        in_channels: int = 3,
        out_channels: int = 3,
        val_split: str = "val",
        test_split: str = "test",
        max_train: int | None = None,
        num_workers: int = 2,
        seed: int = 0,
        eval_batch_size: int = 8,
        predict_folder: str | None = None,
    ) -> None:
        super().__init__()
        check_channels(in_channels=in_channels, out_channels=out_channels)
        if min(batch_size, search_batch_size, eval_batch_size) < 1:
            raise UserError(
                f"batch_size {batch_size}, search_batch_size {search_batch_size} and eval_batch_size "
                f"{eval_batch_size} must be positive."
            )
        self.root, self.direction = Path(root), direction
        self.batch_size, self.max_train = batch_size, max_train
        self.view = Preprocessing(preprocess, load_size, crop_size, flip)
        self.channels = in_channels, out_channels
        self.splits = {"train": ["train"], "val": [val_split, test_split], "test": [test_split, val_split]}
        self.num_workers, self.seed, self.eval_batch_size = num_workers, seed, eval_batch_size
        self.predict_folder = predict_folder
        self.search_batch_size = search_batch_size
        self.neighbourhoods: Tensor | None = None
        self.members = 4
        self._files: dict[str, list[tuple[Path, Path]]] = {}
        self._train_loader: tuple[tuple[Any, ...], DataLoader[Any]] | None = None

    @property
    def crop_size(self) -> int:
        """Side of the images that the networks see, in pixels."""
        return self.view.crop_size

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What a user of the generator must do to an image first, in plain types. Sizes in pixels."""
        return {
            "direction": self.direction,
            "preprocess": self.view.preprocess,
            "load_size": self.view.load_size,
            "crop_size": self.view.crop_size,
            "resample": "bicubic",
            "in_channels": self.channels[0],
            "out_channels": self.channels[1],
            "range": [-1.0, 1.0],
        }

    def fingerprint(self) -> str:
        """Digest of the training files (names, sizes, times) and what is done to them."""
        files = sorted({file for pair in self.files("train") for file in pair})
        stats = [(str(file.relative_to(self.root)), file.stat()) for file in files]
        facts = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        return hashlib.sha256(json.dumps([self.preprocessing, facts]).encode()).hexdigest()

    def files(self, split: Split) -> list[tuple[Path, Path]]:
        """Pairs of files (A, B) of a split, sorted by name; read from disk once.

        Raises:
            UserError: There are none.
        """
        if split not in self._files:
            if not self.root.is_dir():
                raise UserError(
                    f"Data folder {self.root} does not exist: set data.root to a folder with train and val."
                )
            names = self.splits[split]
            found = next((pairs for name in names if (pairs := find_pairs(self.root, name))), [])
            if not found:
                name = names[0]
                seen = [self.root, *(path for other in names if (path := self.root / other).is_dir())]
                raise UserError(
                    f"No {split} images in {self.root}: looked for {' or '.join(names)} with images A | B "
                    f"side by side, {name}A and {name}B, {name}/A and {name}/B, or A/{name} and B/{name}, "
                    f"with the endings {' '.join(sorted(EXTENSIONS))}; but "
                    f"{', '.join(map(describe_folder, seen))}."
                )
            self._files[split] = found[: self.max_train] if split == "train" else found
        return self._files[split]

    def setup(self, stage: str) -> None:
        """Look for the splits of a stage, so that a missing one is reported before anything else starts."""
        stages: dict[str, list[Split]] = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}
        for split in stages.get(stage, []):
            self.files(split)

    def pairs(self, split: Split, augment: bool = False) -> Pairs:
        """Return the data set of a split, augmented or as evaluation sees it."""
        seed = self.seed if augment else None
        return Pairs(self.files(split), self.view, self.direction, self.channels, seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled and augmented pairs, or plain ones in groups once ``neighbourhoods`` is set.

        The loader is kept while nothing that it depends on changes: its workers survive the epoch.
        """
        depends = self.trainer, self.neighbourhoods, self.members
        known = self._train_loader and all(map(is_, self._train_loader[0], depends))
        if self._train_loader is None or not known:
            dataset = self.pairs("train", augment=self.neighbourhoods is None)
            batch_size = self.batch_size if self.neighbourhoods is None else self.search_batch_size
            sampler = EpochSampler(
                dataset, batch_size, self.seed, self.trainer, self.neighbourhoods, self.members
            )
            self._train_loader = depends, self._loader(dataset, sampler, batch_size, train=True)
        return self._train_loader[1]

    def plain_train_loader(self) -> DataLoader[Any]:
        """All training pairs in order, as evaluation sees them, on every rank."""
        return self._loader(self.pairs("train"), None, self.eval_batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        """This rank's share of the validation pairs, in order."""
        return self._eval_loader(self.pairs("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        """This rank's share of the test pairs, in order."""
        return self._eval_loader(self.pairs("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        """Images of ``predict_folder``, in order: ``{"source": (B, C, H, W) in [-1, 1], "path": list}``."""
        if self.predict_folder is None:
            raise UserError("predict needs images: set data.predict_folder to a folder with source images.")
        return self._eval_loader(FolderImages(self.predict_folder, self.view, self.channels[0]))

    def _eval_loader(self, dataset: Pairs | FolderImages) -> DataLoader[Any]:
        return self._loader(dataset, ShardSampler(dataset, self.trainer), self.eval_batch_size)

    def _loader(
        self,
        dataset: Pairs | FolderImages,
        sampler: Sampler[Any] | None,
        batch_size: int,
        train: bool = False,
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
