"""The base class of data modules of image files: files by split, preprocessing and fingerprint."""

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from lightning_gancompress.data.cache import CacheRoom, shared_with_workers
from lightning_gancompress.data.contract import GANDataModule, PreprocessingRecord, Split
from lightning_gancompress.data.datasets import FileDataset, Files, SampleDataset, SourceDataset
from lightning_gancompress.data.inspection import inspect
from lightning_gancompress.data.labels import Labels, reader_of, record_of
from lightning_gancompress.data.listing import describe_folder, list_images
from lightning_gancompress.data.options import FileChannels, Sides, recorded
from lightning_gancompress.data.reading import ENDINGS, VERSION
from lightning_gancompress.data.survey import describe_images, doubts
from lightning_gancompress.data.transforms import ImageReader, Preprocess, Preprocessing
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path
from lightning_gancompress.options import Amount, Count, Workers
from lightning_gancompress.tasks.role import Role

# no `from __future__ import annotations`: the command line reads the types of inherited options


@dataclass(eq=False, repr=False)
class ImageDataModule(GANDataModule):
    """Images from folders, with the preprocessing and defaults of pytorch-CycleGAN-and-pix2pix.

    Derived classes implement `find`, the files of a split, and `dataset`, samples from files.

    Args:
        root: Folder with the images.
        load_size: Size in pixels to which training images are resized before the crop, a side or `[height,
            width]`; None is `crop_size`.
        crop_size: Size in pixels of the networks' input: the side, or `[height, width]`.
        preprocess: As the option of that name in pytorch-CycleGAN-and-pix2pix; `none` only rounds sizes to a
            multiple of 4.
        flip: Whether half of the training images are mirrored.
        in_channels: 1 makes the sources (the images of A) greyscale, 3 RGB.
        labels: The sources are label maps, which are encoded and never interpolated; None for pictures.
        val_split: Folder name of the validation split; `test_split` where it is missing, and then no epoch is
            chosen as the best.
        test_split: Folder name of the test split; `val_split` where it is missing.
        max_train: Number of training images to use, the first of each domain; None uses all.
        predict_folder: Source images for prediction: a folder, or one file.
        cache_gb: Memory per process, in GB (1e9 bytes), for decoded images of training and validation, which
            workers share; images beyond it are decoded in every epoch. 0 caches nothing, null takes up to a
            quarter of the memory that is free.
    """

    root: str
    _: KW_ONLY
    num_workers: Workers = 2
    load_size: Sides | None = 286
    crop_size: Sides = 256
    preprocess: Preprocess = "resize_and_crop"
    flip: bool = True
    in_channels: FileChannels = 3
    labels: Labels | None = None
    val_split: str = "val"
    test_split: str = "test"
    max_train: Count | None = None
    predict_folder: str | None = None
    cache_gb: Amount | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sources = reader_of(self.in_channels, self.labels, "labels")
        load_size = self.crop_size if self.load_size is None else self.load_size
        self.options = Preprocessing(self.preprocess, load_size, self.crop_size, self.flip)
        self.folder = user_path(self.root)
        others = [self.val_split, self.test_split]
        self.splits = {"train": ["train"], "val": others, "test": others[::-1]}
        self._files: dict[Split, dict[Role, Files]] = {}
        self._names: dict[Split, str] = {}  # of the folders in which the files were found
        self._warned = False
        self._room = CacheRoom(None if self.cache_gb is None else int(self.cache_gb * 1e9))

    # -- implemented by derived classes ----------------------------------------------------------------

    @abstractmethod
    def find(self, split: Split, name: str) -> dict[Role, Files]:
        """The files of a split for each generator, sorted by name; empty if no folder has this name."""

    @abstractmethod
    def dataset(self, role: Role, files: Files, seed: int | None) -> SampleDataset:
        """The data set of a role; ``seed`` is None for no augmentation."""

    @abstractmethod
    def layouts(self, split: str) -> str:
        """The layouts in which `find` looks for a split, as text."""

    def undivided(self, split: Split) -> dict[Role, Files]:
        """The files of a split where no folders divide the images into splits; empty if there are none."""
        return {}

    @property
    def readers(self) -> list[ImageReader]:
        """How the sources are read, and the targets where there are any."""
        return [self.sources]

    @property
    def predict_reader(self) -> ImageReader:
        """How the images of `predict_folder` are read."""
        return self.sources

    # -- files and preprocessing -----------------------------------------------------------------------

    @property
    def preprocessing(self) -> PreprocessingRecord:
        """The preprocessing of images before a generator reads them."""
        return {
            "preprocess": self.preprocess,
            "load_size": recorded(self.options.load_size),
            "crop_size": recorded(self.crop_size),
            "resample": "nearest" if self.labels else "bicubic",
            **record_of(*self.readers),  # type: ignore[typeddict-item]
            "range": [0.0, 1.0] if self.labels and self.labels.encoding == "one_hot" else [-1.0, 1.0],
        }

    @property
    def validates_on_test(self) -> bool:
        """Whether validation reads the folder of the test, as it does where `val_split` is missing."""
        self.files("val")
        return self._names["val"] == self.test_split

    def fingerprint(self, split: Split = "train") -> str:
        """Digest of the files of a split (names, sizes, times) and their preprocessing."""
        facts = self._facts(split, lambda file: [file.st_size, file.st_mtime_ns])
        return hashlib.sha256(json.dumps([VERSION, self.preprocessing, facts]).encode()).hexdigest()

    def images(self) -> str:
        """Digest of names and sizes of the training files, which stay the same in a copy of the folder."""
        facts = self._facts("train", lambda file: [file.st_size])
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _facts(self, split: Split, of: Callable[[os.stat_result], list[int]]) -> dict[str, Any]:
        """What tells the samples of each role from others: files in their order, as source or as target."""
        known: dict[Path, list[str | int]] = {}
        for file in chain.from_iterable(chain(*self.files(split).values())):
            if file not in known:  # pairs side by side name it twice
                known[file] = [os.path.relpath(file, self.folder), *of(file.stat())]
        roles = self.files(split).items()
        return {str(role): [[known[file] for file in sample] for sample in files] for role, files in roles}

    def files(self, split: Split) -> dict[Role, Files]:
        """The files of each sample of a split, for each generator; read from disk once.

        Raises:
            UserError: The folder or the split is missing.
        """
        if split not in self._files:
            if not self.folder.is_dir():
                raise UserError(
                    f"Data folder {self.root} does not exist: set data.root to a folder with images."
                )
            found = ((name, files) for name in self.splits[split] if (files := self.find(split, name)))
            name, roles = next(found, ("", {}))
            roles = roles or self.undivided(split)
            if not roles:
                raise self._nothing_found(split)
            self._names[split] = name
            limit = self.max_train if split == "train" else None
            self._files[split] = {role: files[:limit] for role, files in roles.items()}
        return self._files[split]

    def _nothing_found(self, split: Split) -> UserError:
        names = self.splits[split]
        seen = [self.folder, *(path for name in names if (path := self.folder / name).is_dir())]
        remedies = {
            "val": " Set data.val_split to train to validate there, or trainer.limit_val_batches to 0.",
            "test": " Set data.test_split to the folder to test on.",
        }
        return UserError(
            f"No {split} images in {self.root}: looked for {' or '.join(names)} with "
            f"{self.layouts(names[0])}, with {ENDINGS}; but "
            f"{', '.join(map(describe_folder, seen))}.{remedies.get(split, '')}"
        )

    def setup(self, stage: str) -> None:
        """Find the images of a stage, say in one line what they are, and look at some."""
        super().setup(stage)
        self._say(stage)
        datasets = [dataset for split in self.splits_of(stage) for dataset in self.datasets(split).values()]
        if stage == "predict":
            datasets = [self.predict_dataset()]
        for warning in chain.from_iterable(map(inspect, datasets)):
            if not self._warned:  # once is enough
                rank_zero_warn(warning)
                self._warned = True

    @rank_zero_only
    def _say(self, stage: str) -> None:
        root: Path | None = self.folder
        splits = {str(split): list(self.files(split).values()) for split in self.splits_of(stage)}
        if stage == "predict":
            root, splits = None, {"predict": [self._sources()]}
        size = self.options.trained_size if stage == "fit" else self.options.final_size
        rank_zero_info(describe_images(splits, root, size, [reader.kind for reader in self.readers]))
        for warning in doubts(splits):
            rank_zero_warn(warning)

    def datasets(self, split: Split, augment: bool = False) -> dict[Role, SampleDataset]:
        """The data set of a split per generator; search and evaluation read it without augmentation."""
        files = self.files(split)
        seeds = self._seeds() if augment else [None, None]
        return {role: self.dataset(role, files[role], seed) for role, seed in zip(files, seeds, strict=False)}

    def _remember(self, split: Split, datasets: Mapping[Role, SampleDataset]) -> None:
        """Cache the decoded images."""
        if shared_with_workers(self.num_workers):
            images = [dataset for dataset in datasets.values() if isinstance(dataset, FileDataset)]
            self._room.serve(split, images, 1 if self.trainer is None else self.trainer.num_devices)

    def predict_dataset(self) -> SourceDataset:
        """Images of `predict_folder`, in order, under the keys `source`, `index` and `path`."""
        return SourceDataset(self._sources(), self.options, self.predict_reader)

    def _sources(self) -> Files:
        """The files to translate."""
        if self.predict_folder is None:
            raise UserError(
                "predict needs images: set data.predict_folder to an image, or a folder of images."
            )
        folder = user_path(self.predict_folder)
        files = [(file,) for file in ([folder] if folder.is_file() else list_images(folder))]
        if not files:
            raise UserError(
                f"No images to predict: {describe_folder(folder)}; expected files with {ENDINGS}."
            )
        return files
