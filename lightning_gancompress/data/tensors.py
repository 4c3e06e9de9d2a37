"""Data sets of the user's own, whose items are tensors."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from lightning_gancompress.data.contract import GENERATOR, GANDataModule, Split
from lightning_gancompress.data.datasets import SampleDataset
from lightning_gancompress.data.holdout import held_out
from lightning_gancompress.data.options import check_share
from lightning_gancompress.data.transforms import ImageError
from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks.role import Role

LIMIT = (
    1.5  # images in [-1, 1] may overshoot, by resampling say; those in [0, 255] or standardised go farther
)


@dataclass(eq=False, repr=False)
class DatasetDataModule(GANDataModule):
    """Any data set that can be indexed, with items of any number of channels.

    An item is a source ``(C, H, W)`` in [-1, 1], a pair (source, target), or a dict with ``source`` and maybe
    ``target``; targets in [-1, 1] too. Batches: ``{"source", ["target"]: (B, C, H, W), "index": (B,) position
    in the split, "path": list of split/position}``.

    An item may be augmented with random numbers of torch, numpy or Python: they are seeded by epoch and
    position in training, and by position alone in search and evaluation, where an item must always be the
    same.

    Args:
        train: What to train on.
        val: What to validate on; ``test`` where it is missing, and without either a share of ``train``.
        test: What to test on; ``val`` where it is missing.
        predict: Sources for prediction; targets are passed over.
        holdout: Share of `train` that is kept for validation and test, where there is neither `val` nor
            `test`; 0 validates on the training images.
    """

    train: Dataset  # type: ignore[type-arg]  # of Dataset[Any], jsonargparse 4 takes no arguments
    val: Dataset | None = None  # type: ignore[type-arg]
    test: Dataset | None = None  # type: ignore[type-arg]
    predict: Dataset | None = None  # type: ignore[type-arg]
    _: KW_ONLY
    holdout: float = 0.1

    predict_folder = "predict"  # that of the paths of predicted images

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(holdout=self.holdout)
        val = self.test if self.val is None else self.val
        test = self.val if self.test is None else self.test
        given = {"train": self.train, "val": val, "test": test, "predict": self.predict}
        self._given = {name: dataset for name, dataset in given.items() if dataset is not None}
        for name, dataset in self._given.items():
            _check_map_style(name, dataset)

    @cached_property
    def _first_images(self) -> dict[str, Tensor]:
        """Source, and target if there are any, of the first training item.

        Raises:
            UserError: It is another when it is read again.
        """
        first, again = (ItemDataset(self._given["train"], "train", range(1))[0] for _ in range(2))
        images: dict[str, Tensor] = {key: first[key] for key in ("source", "target") if key in first}
        if not all(torch.equal(image, again[key]) for key, image in images.items()):
            raise UserError(
                "train[0] is not the same when it is read again, and the search needs that: draw random "
                "numbers from torch, numpy.random or random, which are seeded for every item, and not from "
                "generators of your own."
            )
        return images

    @property
    def crop_size(self) -> int | tuple[int, int]:
        """Side of the first source, or its height and width, in pixels."""
        _, height, width = self._first_images["source"].shape
        return height if height == width else (height, width)

    def datasets(self, split: Split, augment: bool = False) -> dict[Role, SampleDataset]:
        """The data set of a split, with the random numbers of training or those of evaluation.

        Raises:
            UserError: There is nothing in it.
        """
        given = self._given.get(split, self._given["train"])
        positions: Sequence[int] = range(len(given))  # type: ignore[arg-type]
        if "val" not in self._given and self.holdout:
            held = held_out([f"train[{position}]" for position in positions], self.holdout)
            positions = [position for position in positions if (position in held) != (split == "train")]
        if not positions:
            raise UserError(f"The data set for {split} is empty: give one with images.")
        return {
            GENERATOR: ItemDataset(
                given, split, positions, self.seed if augment else None, self._first_images
            )
        }

    def predict_dataset(self) -> SampleDataset:
        """Sources alone."""
        if "predict" not in self._given:
            raise UserError("predict needs images: set data.predict to a data set of sources.")
        given = self._given["predict"]
        sources = {"source": self._first_images["source"]}
        return ItemDataset(given, "predict", range(len(given)), like=sources)  # type: ignore[arg-type]


class ItemDataset(SampleDataset):
    """Items of a user's data set as ``{"source", ["target"]: (C, H, W), "index": int, "path": str}``.

    Args:
        dataset: The user's.
        name: Of the split; begins each ``path``.
        positions: Which items, in order.
        seed: None for evaluation; else seeds the item's random numbers, together with epoch and position.
        like: Images whose keys and channels all items share.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        name: str,
        positions: Sequence[int],
        seed: int | None = None,
        like: dict[str, Tensor] | None = None,
    ) -> None:
        self.dataset, self.name, self.positions, self.seed = dataset, name, positions, seed
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
    """Draw the random numbers of these seeds, and leave the generators as they were."""
    with isolate_rng(include_cuda=False):
        seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA as well
        np.random.seed(seed)
        random.seed(seed)
        yield


def read_item(item: Any, place: str) -> dict[str, Tensor]:
    """Source and maybe target in an item of a user's data set, as float32.

    Args:
        item: A tensor, one or two of them, or a dict with them.
        place: Where it was, for messages.

    Raises:
        ImageError: It is something else, or an image is no image in [-1, 1].
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
    values = pixels.numpy(force=True)  # numpy wakes no threads, which would wait for each other
    low, high = float(values.min()), float(values.max())
    if not (low >= -LIMIT and high <= LIMIT):  # so that nan fails as well
        raise ImageError(
            f"{name} has values from {low:.4g} to {high:.4g}, where [-1, 1] is expected: scale "
            "it, by x / 127.5 - 1 if it goes from 0 to 255."
        )
    return pixels


def _check_map_style(name: str, dataset: Any) -> None:
    if isinstance(dataset, IterableDataset) or not all(
        hasattr(dataset, method) for method in ("__len__", "__getitem__")
    ):
        raise UserError(
            f"The data set for {name} is a {type(dataset).__name__}, which can't be indexed: give one with "
            "__len__ and __getitem__, since the search groups the items by their positions."
        )
