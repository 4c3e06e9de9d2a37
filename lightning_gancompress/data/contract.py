"""The contract of the data: what modules, policies and measures may ask, and what a batch holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import chain
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler

from lightning_gancompress.data.datasets import SampleDataset, ZipDataset
from lightning_gancompress.data.options import check_least
from lightning_gancompress.data.sampler import EpochSampler, ResumableLoader, ShardSampler, ZipSampler
from lightning_gancompress.data.transforms import collate
from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks.role import Role

Split = Literal["train", "val", "test"]

GENERATOR = Role("generator")
FINGERPRINTED = 64  # items that a fingerprint reads: a data set may be slow
CHANNELS = {"source": "in_channels", "A": "in_channels", "target": "out_channels", "B": "out_channels"}


class PreprocessingRecord(TypedDict, total=False):
    """What is done to an image before a generator reads it, as checkpoints record it. Sizes in pixels."""

    direction: Literal["AtoB", "BtoA"]
    preprocess: str
    load_size: int
    crop_size: int | list[int]  # the side of what the networks see, or its height and width
    resample: str
    in_channels: int
    out_channels: int
    range: list[float]


@dataclass(eq=False, repr=False)
class GANDataModule(LightningDataModule, ABC):
    """The data that a GAN is trained, searched and measured on: one data set for each generator.

    A derived class must say what a split holds (`datasets`). It may say what is to predict
    (`predict_dataset`) and know its images better than by looking at them (`preprocessing`, `fingerprint`).

    The options are dataclass fields, which derived classes inherit: the command line, YAML and Python have
    them flat (`data.batch_size`). In groups (`data.loading.batch_size`) a class would lose its own defaults
    as soon as one option of a group is given, and a configuration of before could not be read without
    knowing its class.

    A batch is a dict, and what it holds is up to the task:

    =============  ==========================================  =========================================
    task           keys                                        values
    =============  ==========================================  =========================================
    Pix2Pix        `source`, and `target` where there are any  `(B, C, H, W)` float32 in [-1, 1]
    Pix2Pix        `index`                                     `(B,)` int64, the position in the split
    Pix2Pix        `path`                                      list of B names, one for each source
    CycleGAN       `A`, `B`                                    as `source`; training batches have both
    CycleGAN       `index_A`, `index_B`, `path_A`, `path_B`    as `index` and `path`, of each domain
    =============  ==========================================  =========================================

    Evaluation has one loader for each generator; for CycleGAN the batches of the first hold A alone, those
    of the second B. A data set holds the keys of its generator: `A`, `index_A`, `path_A`.
    A torch data set of tensors becomes one by `ItemDataset`, which seeds its random numbers.

    Args:
        batch_size: Training images per step and process, of each domain.
        search_batch_size: The same while neighbourhoods are sampled; a multiple of their members.
        eval_batch_size: Images per step in validation, test and prediction.
        num_workers: Processes that load images, per loader.
        seed: Of order and augmentation.

    Attributes:
        predict_folder: Folder that the paths of predicted images are relative to; None keeps them whole.
        neighbourhoods: What `search_by` was given; None outside of a search. To read only.
    """

    _: KW_ONLY
    batch_size: int = 1
    search_batch_size: int = 8
    eval_batch_size: int = 8
    num_workers: int = 0
    seed: int = 0
    predict_folder: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__init__()
        check_least(1, batch_size=self.batch_size, search_batch_size=self.search_batch_size)
        check_least(1, eval_batch_size=self.eval_batch_size)
        check_least(0, num_workers=self.num_workers, seed=self.seed)
        self.neighbourhoods: Mapping[Role, Tensor] | None = None
        self._members = 1
        self._train_loader: tuple[Trainer | None, DataLoader[Any]] | None = None

    # -- what derived classes say ----------------------------------------------------------------------

    @abstractmethod
    def datasets(self, split: Split, augment: bool = False) -> Mapping[Role, SampleDataset]:
        """The data set of a split for each generator, augmented or as search and evaluation see it.

        Raises:
            UserError: There is nothing in it.
        """

    def predict_dataset(self) -> SampleDataset:
        """Sources to translate.

        Raises:
            UserError: Nobody said which.
        """
        raise UserError(
            f"data: {type(self).__name__} has nothing to predict: give it a predict_dataset method."
        )

    @property
    def preprocessing(self) -> PreprocessingRecord:
        """What is done to an image before a generator reads it; by default what the first images tell."""
        first = self._first_images
        height, width = next(iter(first.values())).shape[1:]
        found: PreprocessingRecord = {"crop_size": height if height == width else [height, width]}
        for key, image in first.items():
            found[CHANNELS[key]] = len(image)  # type: ignore[literal-required]
        found["range"] = [-1.0, 1.0]
        return found

    def fingerprint(self, split: Split = "train") -> str:
        """Digest of the images of a split and what is done to them; by default of some, evenly spread."""
        digest = sha256()
        for dataset in self.datasets(split).values():
            digest.update(repr((len(dataset), self.preprocessing)).encode())
            for index in np.unique(np.linspace(0, len(dataset) - 1, FINGERPRINTED).astype(int)).tolist():
                for image in _images(dataset[index]).values():
                    digest.update(image.contiguous().numpy().tobytes())
        return digest.hexdigest()

    # -- what is asked of all --------------------------------------------------------------------------

    def first_batch(self) -> dict[str, Any]:
        """The first training sample of every generator, as evaluation sees it, in one batch."""
        samples = [dataset[0] for dataset in self.datasets("train").values()]
        return collate([{key: value for sample in samples for key, value in sample.items()}])

    @cached_property
    def _first_images(self) -> dict[str, Tensor]:
        """Those of the first batch, (C, H, W)."""
        return {key: images[0] for key, images in _images(self.first_batch()).items()}

    def plain_train_loader(self) -> Iterator[dict[str, Any]]:
        """Batches of all training images in order, as evaluation sees them, on every rank; role by role."""
        datasets = self.datasets("train").values()
        return chain.from_iterable(self._loader(dataset, None, self.eval_batch_size) for dataset in datasets)

    def search_by(self, neighbourhoods: Mapping[Role, Tensor], members: int) -> None:
        """Serve neighbourhoods from the next epoch on: unaugmented images, in steps of `search_batch_size`.

        Args:
            neighbourhoods: For each generator its table, ``(N, k + 1)`` int64 positions of its training
                images: row ``c`` holds ``c`` and its ``k`` nearest. Images of generators without a table
                come one by one.
            members: Images that are drawn from each row, and follow each other in a batch.
        """
        self.neighbourhoods, self._members, self._train_loader = neighbourhoods, members, None

    def end_search(self) -> None:
        """Serve shuffled and augmented images again."""
        if self.neighbourhoods is not None:
            self.neighbourhoods = self._train_loader = None

    # -- loaders ---------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Look for the splits of a stage, so that a missing one is reported before anything else starts."""
        stages: dict[str, list[Split]] = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}
        for split in stages.get(stage, []):
            self.datasets(split)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled and augmented images, or in a search plain ones by neighbourhoods.

        The loader is kept while nothing that it depends on changes: its workers survive the epoch.
        """
        if self._train_loader is None or self._train_loader[0] is not self.trainer:
            self._train_loader = self.trainer, self._make_train_loader()
        return self._train_loader[1]

    def _make_train_loader(self) -> DataLoader[Any]:
        tables = self.neighbourhoods
        datasets = self.datasets("train", augment=tables is None)
        batch_size = self.batch_size if tables is None else self.search_batch_size
        longest = max(map(len, datasets.values()))
        samplers = [
            EpochSampler(
                dataset, batch_size, seed, self.trainer, (tables or {}).get(role), self._members, longest
            )
            for (role, dataset), seed in zip(datasets.items(), self._seeds(), strict=False)
        ]
        dataset, sampler = ZipDataset(list(datasets.values())), ZipSampler(samplers)
        return self._loader(dataset, sampler, batch_size, train=True)

    def _seeds(self) -> list[int]:
        """One per role: order and augmentation of one domain say nothing about those of the other."""
        return [self.seed, int(np.random.SeedSequence(self.seed).generate_state(1)[0])]

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

    def _share_loader(self, dataset: SampleDataset) -> DataLoader[Any]:
        return self._loader(dataset, ShardSampler(dataset, self.trainer), self.eval_batch_size)

    def _loader(
        self,
        dataset: SampleDataset | ZipDataset,
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


class PlainData:
    """Data outside of the contract: loaders alone, or a data module that is no `GANDataModule`.

    Networks can be trained, pruned without neighbourhoods, and tested on it. Nothing is known of its images
    but a first batch, so nothing that depends on them is kept for other runs.

    Args:
        datamodule: The user's, or None for loaders alone.
    """

    batch_size = search_batch_size = 2  # a guess, to try networks with: more than one, as most norms need
    num_workers = 0
    predict_folder: str | None = None

    def __init__(self, datamodule: LightningDataModule | None) -> None:
        self.datamodule = datamodule
        self.preprocessing: PreprocessingRecord = {}

    def fingerprint(self, split: Split = "train") -> str | None:
        """None: the images can't be told from others."""
        return None

    def first_batch(self) -> dict[str, Any] | None:
        """The first training sample in a batch, where one costs no more than reading it; else None."""
        if self.datamodule is None:
            return None
        with isolate_rng(include_cuda=False):
            loader = self.datamodule.train_dataloader()
            if not isinstance(loader, DataLoader) or type(loader.batch_sampler) is not BatchSampler:
                return None
            if type(loader.sampler) not in (RandomSampler, SequentialSampler):  # it may yield other things
                return None
            batch = loader.collate_fn([loader.dataset[0]])
        return batch if isinstance(batch, dict) else None

    def end_search(self) -> None:
        """Nothing to end."""

    def refusal(self, why: str, remedy: str = "") -> UserError:
        """The error where these data won't do.

        Args:
            why: What they lack, such as `can't be searched by neighbourhoods`.
            remedy: What else helps, before another data module does: `set fid_reals to test, or `.
        """
        name = "a data loader" if self.datamodule is None else type(self.datamodule).__name__
        return UserError(
            f"data: {name} {why}: {remedy}use DatasetDataModule for a data set of your own, another one of "
            "lightning_gancompress.data, or one derived from its GANDataModule."
        )


def adapt(datamodule: LightningDataModule | None) -> GANDataModule | PlainData:
    """What may be asked of a data module: itself within the contract, else `PlainData`."""
    return datamodule if isinstance(datamodule, GANDataModule) else PlainData(datamodule)


def data_of(trainer: Trainer | None) -> GANDataModule | PlainData:
    """The data of a trainer; `PlainData` also where it was given loaders alone, or there is no trainer."""
    return adapt(getattr(trainer, "datamodule", None))  # Lightning sets it when it is given one


def _images(sample: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: sample[key] for key in CHANNELS if key in sample}
