"""Data sets: pairs of images, single images, and the union of two domains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lightning_gancompress.data.cache import Loaded, SampleCache
from lightning_gancompress.data.reading import ImageError, read_header, read_image
from lightning_gancompress.data.transforms import (
    Array,
    ImageReader,
    PictureReader,
    Preprocessing,
    Read,
    different_sizes,
)

Direction = Literal["AtoB", "BtoA"]
Files = Sequence[tuple[Path, ...]]  # per sample: one file, or those of A and B


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image in pixels, upright; its header is read again only if the file changes.

    Every epoch has new loaders, which ask for the sizes of all images.

    Raises:
        ImageError: The file is no image.
    """
    changed = None
    with suppress(OSError):  # told by the reader
        changed = path.stat().st_mtime_ns, path.stat().st_size
    return _read_size(path, changed)


@cache
def _read_size(path: Path, changed: tuple[int, int] | None) -> tuple[int, int]:
    return read_header(path).size


def size_of(files: tuple[Path, ...]) -> tuple[int, int]:
    """Width and height of the images of a sample, of which two may be side by side in one file.

    Raises:
        ImageError: The file is no image.
    """
    width, height = upright_size(files[0])
    return (width // 2, height) if len(files) == 2 and files[0] == files[1] else (width, height)


class SampleDataset(Dataset[dict[str, Any]], ABC):
    """Samples of one generator, indexed by codes ``epoch * N + index``; a plain index is epoch 0.

    `EpochSampler` yields the codes, so that the augmentation of a sample depends on epoch and index alone.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, code: int) -> dict[str, Any]: ...

    def different(self) -> ImageError | None:
        """What to raise if samples are to share a batch, but are known to differ in size."""
        return None


class FileDataset(SampleDataset):
    """Samples from image files.

    Args:
        files: The files of each sample.
        preprocessing: How images are resized, cropped and flipped.
        sides: How the pixels of each image of a sample are read, by its key.
        seed: None for evaluation; else seeds the augmentation, together with epoch and index.
    """

    def __init__(
        self, files: Files, preprocessing: Preprocessing, sides: Mapping[str, ImageReader], seed: int | None
    ) -> None:
        self.files, self.preprocessing, self.sides, self.seed = files, preprocessing, sides, seed
        self.cache: SampleCache | None = None

    def remember(self, room: int) -> SampleCache:
        """Keep samples from now on as they are before augmentation, in `room` bytes at most.

        Raises:
            OSError: There is not so much memory.
        """
        planes = {key: side.planes for key, side in self.sides.items()}
        self.cache = SampleCache(self._loaded_sizes(), planes, len(set(self.files[0])), room)
        return self.cache

    def _loaded_sizes(self) -> Array:
        """Width and height of all images before the crop, (N, 2)."""
        options, augment = self.preprocessing, self.seed is not None
        if options.preprocess == "resize_and_crop":
            return np.tile(options.loaded_size((1, 1), augment), (len(self), 1))
        with ThreadPoolExecutor(16) as pool:
            return np.array([options.loaded_size(size, augment) for size in pool.map(size_of, self.files)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, code: int) -> dict[str, Any]:
        epoch, index = divmod(code, len(self.files))
        random = None if self.seed is None else np.random.default_rng((self.seed, epoch, index))
        return self.sample(index, random)

    def different(self) -> ImageError | None:
        """The error for the first two images that differ in size, by the headers of all files.

        Raises:
            ImageError: An image can't be used.
        """
        if not self.preprocessing.needs_sizes:
            return None
        with ThreadPoolExecutor(16) as pool:  # on a file server each takes a while
            sizes = list(pool.map(self.final_size, self.files))
        first: dict[tuple[int, int], str] = {}
        for files, size in zip(self.files, sizes, strict=True):
            if size is not None:
                first.setdefault(size, str(files[0]))
        if len(first) < 2:
            return None
        remedy = "set data.preprocess to resize_and_crop, or outside of a search data.batch_size to 1"
        return different_sizes({path: size for size, path in list(first.items())[:2]}, remedy)

    def final_size(self, files: tuple[Path, ...]) -> tuple[int, int] | None:
        """Width and height of a sample's images in evaluation; None if that is not known.

        Raises:
            ImageError: The image can't be used.
        """
        return self.preprocessing.final_size(size_of(files), files[0])

    def tensors(self, index: int, random: np.random.Generator | None) -> dict[str, Tensor]:
        """The images of a sample by key, augmented with `random`, from the cache or from their files."""
        if self.cache is None:
            loaded = self.load(index)
        else:
            loaded = self.cache.of(index, dict.fromkeys(self.files[index]), self.load)
        transform = self.preprocessing.transform(loaded.size, self.path(index), random)
        return {key: self.sides[key].encode(transform.cut(pixels)) for key, pixels in loaded.pixels.items()}

    def load(self, index: int) -> Loaded:
        """Decode and resize a sample, without augmentation."""
        images = self.images(index)
        size = next(iter(images.values()))[0].size
        result = self.preprocessing.resized(size, self.path(index), augment=self.seed is not None)
        return Loaded(
            size, {key: self.sides[key].pixels(image, result, path) for key, (image, path) in images.items()}
        )

    def path(self, index: int) -> Path:
        """The file that a sample is named by."""
        return self.files[index][0]

    @abstractmethod
    def sample(self, index: int, random: np.random.Generator | None) -> dict[str, Any]:
        """Read a sample, augmented with `random`, or without augmentation if that is None."""

    @abstractmethod
    def images(self, index: int) -> dict[str, tuple[Image.Image, Path]]:
        """The images of a sample as decoded, and their files, by key."""


class PairDataset(FileDataset):
    """Pairs (A, B) of images as ``{"source", "target": (C, H, W) in [-1, 1], "index": int, "path": str}``.

    Args:
        files: Per sample the files of A and B; one and the same file holds A | B side by side.
        preprocessing: How images are resized, cropped and flipped, both of a pair alike.
        direction: AtoB makes A the source.
        sides: How the pixels of source and target are read; or their channels, for pictures.
        seed: As in `FileDataset`.
    """

    def __init__(
        self,
        files: Files,
        preprocessing: Preprocessing,
        direction: Direction,
        sides: tuple[ImageReader | int, ImageReader | int],
        seed: int | None = None,
    ) -> None:
        source, target = (_reader(side) for side in sides)
        super().__init__(files, preprocessing, {"source": source, "target": target}, seed)
        self.direction = direction

    def images(self, index: int) -> dict[str, tuple[Image.Image, Path]]:
        """Source and target as decoded, and their files."""
        pair = list(zip(("source", "target"), self.files[index], strict=True))
        if self.direction == "BtoA":
            pair = [("target", self.files[index][0]), ("source", self.files[index][1])]
        (first, path_a), (second, path_b) = pair
        a, b = read_pair(path_a, path_b, self.sides[first].read, self.sides[second].read)
        return {first: (a, path_a), second: (b, path_b)}

    def sample(self, index: int, random: np.random.Generator | None) -> dict[str, Any]:
        """Read a pair."""
        return {**self.tensors(index, random), "index": index, "path": str(self.path(index))}

    def path(self, index: int) -> Path:
        """The file of the source."""
        return self.files[index][0 if self.direction == "AtoB" else 1]


def read_pair(
    path_a: Path, path_b: Path, read_a: Read = read_image, read_b: Read = read_image
) -> tuple[Image.Image, Image.Image]:
    """Decode A and B from their files, or from the halves of one file.

    Raises:
        ImageError: A file can't be used, its halves are unequal, or A and B differ in size.
    """
    image = read_a(path_a)
    other = image if (path_a, read_a) == (path_b, read_b) else read_b(path_b)
    if path_a == path_b:
        width, height = image.size
        if width % 2:
            raise ImageError(
                f"Image {path_a} is {width} pixels wide, so it has no two equal halves A | B: put A and B of "
                "the same width side by side, or into two folders."
            )
        return image.crop((0, 0, width // 2, height)), other.crop((width // 2, 0, width, height))
    if image.size != other.size:
        raise ImageError(
            f"Images {path_a} ({image.width}x{image.height}) and {path_b} ({other.width}x{other.height}) are "
            "a pair, but differ in size: resize one of them."
        )
    return image, other


class ImageDataset(FileDataset):
    """Images as ``{"source": (C, H, W) in [-1, 1], "index": int, "path": str}``.

    With a domain, for example A, the keys are ``A``, ``index_A`` and ``path_A``.

    Args:
        files: Per sample the one file.
        preprocessing: How images are resized, cropped and flipped.
        reader: How pixels are read; or channels, 1 or 3, for pictures.
        seed: As in `FileDataset`.
        domain: Names the keys.
    """

    def __init__(
        self,
        files: Files,
        preprocessing: Preprocessing,
        reader: ImageReader | int,
        seed: int | None = None,
        domain: Literal["A", "B"] | None = None,
    ) -> None:
        self.keys = (
            (f"{domain}", f"index_{domain}", f"path_{domain}") if domain else ("source", "index", "path")
        )
        super().__init__(files, preprocessing, {self.keys[0]: _reader(reader)}, seed)

    def images(self, index: int) -> dict[str, tuple[Image.Image, Path]]:
        """The image as decoded, and its file."""
        (path,) = self.files[index]
        return {key: (reader.read(path), path) for key, reader in self.sides.items()}

    def sample(self, index: int, random: np.random.Generator | None) -> dict[str, Any]:
        """Read an image."""
        (image,) = self.tensors(index, random).values()
        return dict(zip(self.keys, (image, index, str(self.path(index))), strict=True))


def _reader(side: ImageReader | int) -> ImageReader:
    return PictureReader(side, "labels") if isinstance(side, int) else side


class SourceDataset(ImageDataset):
    """Images to translate; one that can't be used is a sample ``{"unreadable": why}``."""

    def final_size(self, files: tuple[Path, ...]) -> tuple[int, int] | None:
        """Width and height of an image; None if it can't be used."""
        with suppress(ImageError):
            return super().final_size(files)
        return None

    def sample(self, index: int, random: np.random.Generator | None) -> dict[str, Any]:
        """Read an image."""
        try:
            return super().sample(index, random)
        except ImageError as error:
            return {"unreadable": str(error)}


class ZipDataset(Dataset[dict[str, Any]]):
    """Merges a sample of each data set into one; indexed by tuples of codes, as `ZipSampler` yields them."""

    def __init__(self, datasets: Sequence[SampleDataset]) -> None:
        self.datasets = datasets

    def __len__(self) -> int:
        return max(map(len, self.datasets))

    def __getitem__(self, codes: tuple[int, ...]) -> dict[str, Any]:
        samples = (dataset[code] for dataset, code in zip(self.datasets, codes, strict=True))
        return {key: value for sample in samples for key, value in sample.items()}
