"""The data module of the user's own data sets, whose items are tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from lightning_gancompress.data.contract import GENERATOR, GANDataModule, Split
from lightning_gancompress.data.datasets import SampleDataset
from lightning_gancompress.data.holdout import held_out
from lightning_gancompress.data.items import ItemDataset
from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Share
from lightning_gancompress.tasks.role import Role


@dataclass(eq=False, repr=False)
class DatasetDataModule(GANDataModule):
    """Data sets of your own that can be indexed, with images of any number of channels.

    An item is a source ``(C, H, W)`` in [-1, 1], a pair (source, target), or a dict with ``source`` and maybe
    ``target``; targets in [-1, 1] too. Batches: ``{"source", ["target"]: (B, C, H, W), "index": (B,) position
    in the split, "path": list of split/position}``.

    An item may be augmented with random numbers of torch, numpy or Python. They are seeded by epoch and
    position in training, and by position alone in search and evaluation, so that an item is always the same.

    Args:
        train: Training data set.
        val: Validation data set; None is ``test``, and without either a share of ``train``.
        test: Test data set; None is ``val``.
        predict: Sources for prediction; targets are ignored.
        holdout: Share of `train` that is held out for validation and test, if there is neither `val` nor
            `test`; 0 validates on the training images.
    """

    train: Dataset  # type: ignore[type-arg]  # of Dataset[Any], jsonargparse 4 takes no arguments
    val: Dataset | None = None  # type: ignore[type-arg]
    test: Dataset | None = None  # type: ignore[type-arg]
    predict: Dataset | None = None  # type: ignore[type-arg]
    holdout: Share = field(default=0.1, kw_only=True)  # not KW_ONLY: see GANDataModule

    predict_folder = "predict"  # with which the paths of predicted images begin

    def __post_init__(self) -> None:
        super().__post_init__()
        val = self.test if self.val is None else self.val
        test = self.val if self.test is None else self.test
        given = {"train": self.train, "val": val, "test": test, "predict": self.predict}
        self._given = {name: dataset for name, dataset in given.items() if dataset is not None}
        for name, dataset in self._given.items():
            _check_map_style(name, dataset)

    @cached_property
    def _first_images(self) -> dict[str, Tensor]:
        """Source, and target if any, (C, H, W) of the first training item.

        Raises:
            UserError: Reading the item twice gives different images.
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
        """The data set of a split, whose random numbers are those of training if `augment`.

        Raises:
            UserError: The split is empty.
        """
        given = self._given.get(split, self._given["train"])
        positions: Sequence[int] = range(len(given))  # type: ignore[arg-type]
        if "val" not in self._given and self.holdout:
            held = held_out([f"train[{position}]" for position in positions], self.holdout)
            positions = [position for position in positions if (position in held) != (split == "train")]
        if not positions:
            raise UserError(f"The data set for {split} is empty: give one with images.")
        seed = self.seed if augment else None
        return {GENERATOR: ItemDataset(given, split, positions, seed, self._first_images)}

    def predict_dataset(self) -> SampleDataset:
        """The data set of the sources to translate."""
        if "predict" not in self._given:
            raise UserError("predict needs images: set data.predict to a data set of sources.")
        given = self._given["predict"]
        sources = {"source": self._first_images["source"]}
        return ItemDataset(given, "predict", like=sources)


def _check_map_style(name: str, dataset: Any) -> None:
    if isinstance(dataset, IterableDataset) or not all(
        hasattr(dataset, method) for method in ("__len__", "__getitem__")
    ):
        raise UserError(
            f"The data set for {name} is a {type(dataset).__name__}, which can't be indexed: give one with "
            "__len__ and __getitem__, since the search groups the items by their positions."
        )
