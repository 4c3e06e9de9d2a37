"""Data sets: pairs of images, single images, and several data sets side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from lightning_gancompress.data.transforms import MODES, ImageError, Preprocessing, read_image

Direction = Literal["AtoB", "BtoA"]
Files = Sequence[tuple[Path, ...]]  # per sample: one file, or those of A and B


class Samples(Dataset[dict[str, Any]], ABC):
    """What one generator reads; indexed by codes ``epoch * N + index``, a plain index is epoch 0."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, code: int) -> dict[str, Any]: ...


class Pairs(Samples):
    """Pairs (A, B) of images as ``{"source", "target": (C, H, W) in [-1, 1], "index": int, "path": str}``.

    Indexed by codes ``epoch * N + index`` (see `EpochSampler`); a plain index is epoch 0.

    Args:
        files: Per sample the files of A and B; one and the same file holds A | B side by side.
        preprocessing: How images are resized, cropped and flipped, both of a pair alike.
        direction: AtoB makes A the source.
        channels: Of source and target.
        seed: None for evaluation; else seeds the augmentation, together with epoch and index.
    """

    def __init__(
        self,
        files: Files,
        preprocessing: Preprocessing,
        direction: Direction,
        channels: tuple[int, int],
        seed: int | None = None,
    ) -> None:
        self.files, self.preprocessing, self.direction, self.seed = files, preprocessing, direction, seed
        self.modes = MODES[channels[0]], MODES[channels[1]]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, code: int) -> dict[str, Any]:
        epoch, index = divmod(code, len(self.files))
        path_a, path_b = self.files[index]
        source, target = read_pair(path_a, path_b)
        path = path_a
        if self.direction == "BtoA":
            source, target, path = target, source, path_b
        random = None if self.seed is None else np.random.default_rng((self.seed, epoch, index))
        view = self.preprocessing.view(source.size, path, random)
        return {
            "source": view(source.convert(self.modes[0])),
            "target": view(target.convert(self.modes[1])),
            "index": index,
            "path": str(path),
        }


def read_pair(path_a: Path, path_b: Path) -> tuple[Image.Image, Image.Image]:
    """Decode A and B from their files, or from the halves of one file.

    Raises:
        ImageError: A file can't be used, its halves are unequal, or A and B differ in size.
    """
    image = read_image(path_a)
    if path_a == path_b:
        width, height = image.size
        if width % 2:
            raise ImageError(
                f"Image {path_a} is {width} pixels wide, so it has no two equal halves A | B: put A and B of "
                "the same width side by side, or into two folders."
            )
        return image.crop((0, 0, width // 2, height)), image.crop((width // 2, 0, width, height))
    other = read_image(path_b)
    if image.size != other.size:
        raise ImageError(
            f"Images {path_a} ({image.width}x{image.height}) and {path_b} ({other.width}x{other.height}) are "
            "a pair, but differ in size: resize one of them."
        )
    return image, other


class Images(Samples):
    """Images as ``{"source": (C, H, W) in [-1, 1], "index": int, "path": str}``.

    With a domain, A say, the keys are ``A``, ``index_A`` and ``path_A``. Indexed by codes, as `Pairs`.

    Args:
        files: Per sample the one file.
        preprocessing: How images are resized, cropped and flipped.
        channels: 1 or 3; images with others are converted.
        seed: None for evaluation; else seeds the augmentation, together with epoch and index.
        domain: Names the keys.
    """

    def __init__(
        self,
        files: Files,
        preprocessing: Preprocessing,
        channels: int,
        seed: int | None = None,
        domain: Literal["A", "B"] | None = None,
    ) -> None:
        self.files, self.preprocessing, self.mode, self.seed = files, preprocessing, MODES[channels], seed
        self.keys = (
            (f"{domain}", f"index_{domain}", f"path_{domain}") if domain else ("source", "index", "path")
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, code: int) -> dict[str, Any]:
        epoch, index = divmod(code, len(self.files))
        (path,) = self.files[index]
        image = read_image(path).convert(self.mode)
        random = None if self.seed is None else np.random.default_rng((self.seed, epoch, index))
        view = self.preprocessing.view(image.size, path, random)
        return dict(zip(self.keys, (view(image), index, str(path)), strict=True))


class Together(Dataset[dict[str, Any]]):
    """One sample of each data set in one; indexed by tuples of their codes."""

    def __init__(self, datasets: Sequence[Samples]) -> None:
        self.datasets = datasets

    def __len__(self) -> int:
        return max(map(len, self.datasets))

    def __getitem__(self, codes: tuple[int, ...]) -> dict[str, Any]:
        samples = (dataset[code] for dataset, code in zip(self.datasets, codes, strict=True))
        return {key: value for sample in samples for key, value in sample.items()}
