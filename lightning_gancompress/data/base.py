"""What all data modules share: loaders of training, search and evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import chain
from operator import is_
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lightning_gancompress.data.datasets import Samples, Together
from lightning_gancompress.data.sampler import EpochSampler, ResumableLoader, ShardSampler, ZipSampler
from lightning_gancompress.data.transforms import collate
from lightning_gancompress.errors import UserError

Split = Literal["train", "val", "test"]


class GANDataModule(LightningDataModule, ABC):
    """One data set per generator role: the images which that generator translates.

    Derived classes say what a split holds (`datasets`) and what is to be known about it.

    Attributes:
        neighbourhoods: Per generator role its table, ``(N, k + 1)`` int64 over its training images; None
            outside of the search. Then training images come unaugmented, and those of a role with a table
            in groups of ``members``.
    """

    def __init__(
        self, *, batch_size: int, search_batch_size: int, eval_batch_size: int, num_workers: int, seed: int
    ) -> None:
        super().__init__()
        if min(batch_size, search_batch_size, eval_batch_size) < 1:
            raise UserError(
                f"batch_size {batch_size}, search_batch_size {search_batch_size} and eval_batch_size "
                f"{eval_batch_size} must be positive."
            )
        self.batch_size, self.search_batch_size = batch_size, search_batch_size
        self.eval_batch_size, self.num_workers, self.seed = eval_batch_size, num_workers, seed
        self.neighbourhoods: dict[str, Tensor] | None = None
        self.members = 4
        self._train_loader: tuple[tuple[Any, ...], DataLoader[Any]] | None = None

    # -- what derived classes say ----------------------------------------------------------------------

    @property
    @abstractmethod
    def crop_size(self) -> int | tuple[int, int]:
        """Side of the images that the networks see, or height and width, in pixels."""

    @property
    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """What a user of the generator must do to an image first, in plain types. Sizes in pixels."""

    @abstractmethod
    def fingerprint(self, split: Split = "train") -> str:
        """Digest of the images of a split and what is done to them."""

    @abstractmethod
    def datasets(self, split: Split, augment: bool = False) -> Mapping[str, Samples]:
        """Per generator role the data set of a split, augmented or as evaluation sees it.

        Raises:
            UserError: There is nothing in it.
        """

    @abstractmethod
    def predict_dataset(self) -> Samples:
        """Sources to translate.

        Raises:
            UserError: Nobody said which.
        """

    # -- loaders ---------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Look for the splits of a stage, so that a missing one is reported before anything else starts."""
        stages: dict[str, list[Split]] = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}
        for split in stages.get(stage, []):
            self.datasets(split)

    def first_batch(self) -> dict[str, Any]:
        """The first training sample of every role, as evaluation sees it, in one batch."""
        samples = [dataset[0] for dataset in self.datasets("train").values()]
        return collate([{key: value for sample in samples for key, value in sample.items()}])

    def _seeds(self) -> list[int]:
        """One per role: order and views of one domain say nothing about those of the other."""
        return [self.seed, int(np.random.SeedSequence(self.seed).generate_state(1)[0])]

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
        """This rank's share of the sources to translate, in order."""
        return self._share_loader(self.predict_dataset())

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
