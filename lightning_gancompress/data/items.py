"""Items of a user's own data set: checks of their tensors, and seeding of their random numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import Dataset

from lightning_gancompress.data.datasets import SampleDataset
from lightning_gancompress.data.reading import ImageError

# images in [-1, 1] may overshoot, for example by resampling; those in [0, 255] or standardised exceed this
LIMIT = 1.5


class ItemDataset(SampleDataset):
    """Items of a user's data set as ``{"source", ["target"]: (C, H, W), "index": int, "path": str}``.

    Args:
        dataset: The user's data set.
        name: Name of the split, with which each ``path`` begins.
        positions: Positions of the items in `dataset`; None for all.
        seed: Seeds an item's random numbers, with epoch and position; None for evaluation, by position alone.
        like: Images (C, H, W) whose keys and channels all items must have; None for no check.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        name: str,
        positions: Sequence[int] | None = None,
        seed: int | None = None,
        like: dict[str, Tensor] | None = None,
    ) -> None:
        self.dataset, self.name, self.seed = dataset, name, seed
        self.positions = range(len(dataset)) if positions is None else positions  # type: ignore[arg-type]
        self.channels = None if like is None else {key: len(image) for key, image in like.items()}

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, code: int) -> dict[str, Any]:
        epoch, index = divmod(code, len(self.positions))
        position = self.positions[index]
        place = f"{self.name}[{position}]"
        with seeded(position, *(() if self.seed is None else (self.seed, epoch))):
            images = read_item(self.dataset[position], place)
        if self.name == "predict":
            images = {"source": images["source"]}
        channels = {key: len(image) for key, image in images.items()}
        if self.channels not in (None, channels):
            raise ImageError(
                f"{place} has {_channels(channels)}, but train[0] has {_channels(self.channels or {})}: make "
                "all items alike."
            )
        return {**images, "index": index, "path": f"{self.name}/{position}"}


def _channels(channels: dict[str, int]) -> str:
    return " and ".join(f"a {key} of {count} channel(s)" for key, count in channels.items())


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Context with random generators of torch, numpy and Python seeded; restores their states afterwards."""
    with isolate_rng(include_cuda=False):
        seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA as well
        np.random.seed(seed)
        random.seed(seed)
        yield


def read_item(item: Any, place: str) -> dict[str, Tensor]:
    """Source, and target if any, (C, H, W) float32 in [-1, 1], from an item of a user's data set.

    Args:
        item: A tensor, a sequence of one or two tensors, or a dict of tensors.
        place: Name of the item in messages.

    Raises:
        ImageError: The item has another type, or a tensor is no image in [-1, 1].
    """
    if isinstance(item, dict):
        images = {key: item[key] for key in ("source", "target") if item.get(key) is not None}
        if "source" not in images:
            keys = ", ".join(map(repr, item)) or "nothing"
            raise ImageError(f"{place} has no 'source', but {keys}: give what the generator reads this name.")
    else:
        parts = item if isinstance(item, (tuple, list)) else (item,)
        if len(parts) not in (1, 2):
            raise ImageError(f"{place} has {len(parts)} parts: return a source, or a source and a target.")
        images = dict(zip(("source", "target"), parts, strict=False))
    return {key: _image(image, f"The {key} of {place}") for key, image in images.items()}


def _image(image: Any, name: str) -> Tensor:
    if not isinstance(image, Tensor) or image.ndim != 3:
        found = f"a tensor {tuple(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise ImageError(
            f"{name} is {found}, not a tensor (channels, height, width) in [-1, 1]: return images alone, and "
            "turn them into such tensors, for example by torchvision's pil_to_tensor(image) / 127.5 - 1."
        )
    pixels = image.detach().float()
    values = pixels.numpy(
        force=True
    )  # numpy uses one thread; torch's threads in many workers block each other
    low, high = float(values.min()), float(values.max())
    if not (low >= -LIMIT and high <= LIMIT):  # so that nan fails as well
        raise ImageError(
            f"{name} has values from {low:.4g} to {high:.4g}, where [-1, 1] is expected: scale "
            "it, by x / 127.5 - 1 if it goes from 0 to 255."
        )
    return pixels
