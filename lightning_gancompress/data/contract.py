"""The contract of data modules: the content of batches, and the methods that other code calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, TypedDict

import numpy as np
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler

from lightning_gancompress.data.datasets import SampleDataset, ZipDataset
from lightning_gancompress.data.sampler import (
    EpochSampler,
    ResumableLoader,
    ShardSampler,
    ZipSampler,
    rank_and_world,
    require_batch,
)
from lightning_gancompress.data.transforms import collate
from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Count, Seed, Workers, check_fields
from lightning_gancompress.tasks.role import Role

Split = Literal["train", "val", "test"]

GENERATOR = Role("generator")
FINGERPRINTED = 64  # items that a fingerprint reads: a data set may be slow
CHANNELS = {"source": "in_channels", "A": "in_channels", "target": "out_channels", "B": "out_channels"}


class RunSeed(int):
    """A seed that comes from the run, not from the user."""


class PreprocessingRecord(TypedDict, total=False):
    """The preprocessing of a generator's images, as checkpoints record it. Sizes in pixels."""

    direction: Literal["AtoB", "BtoA"]
    preprocess: str
    load_size: int | list[int]
    crop_size: int | list[int]  # side of the networks' input, or its height and width
    resample: str
    in_channels: int
    out_channels: int
    labels: dict[str, Any]  # if sources are label maps: the options of `data.labels.Labels`
    target_labels: dict[str, Any]
    range: list[float]


@dataclass(eq=False, repr=False, kw_only=True)  # Python 3.10 can't resolve KW_ONLY among the annotations
class GANDataModule(LightningDataModule, ABC):
    """The data of a GAN's training, search and evaluation: one data set per generator.

    A derived class must implement `datasets`. It may implement `predict_dataset`, and override
    `preprocessing` and `fingerprint`, which otherwise read images.

    The options are dataclass fields, which derived classes inherit: the command line, YAML and Python have
    them flat (`data.batch_size`). In groups (`data.loading.batch_size`) a class would lose its own defaults
    as soon as one option of a group is given, and old configurations could not be read without knowing their
    class.

    A batch is a dict, whose keys depend on the task:

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
    In prediction, a batch may have `unreadable`, a list of messages about images that are missing from it.
    A torch data set of tensors becomes one by `ItemDataset`, which seeds its random numbers.

    Args:
        batch_size: Training images per step and process; of unpaired data, of each domain.
        search_batch_size: The same while neighbourhoods are sampled; a multiple of their members.
        eval_batch_size: Images per step in validation, test and prediction; images of mixed sizes come one
            by one.
        num_workers: Processes that load images, per loader.
        seed: Seed of order and augmentation; None is that of the run, which is known when a fit makes its
            training data: a derived class reads it in `datasets`. In other trainings None is 0.

    Attributes:
        predict_folder: Folder to which paths of predictions are relative, or the one image that is predicted;
            None keeps whole paths.
        neighbourhoods: Tables that were passed to `search_by`; None outside of a search. Read only.
    """

    batch_size: Count = 1
    search_batch_size: Count = 8
    eval_batch_size: Count = 8
    num_workers: Workers = 0
    seed: Seed | None = None
    predict_folder: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__init__()
        check_fields(self)
        if self.seed is None:
            self.seed = RunSeed()
        self.neighbourhoods: Mapping[Role, Tensor] | None = None
        self._members = 1
        self._train_loader: tuple[Trainer | None, DataLoader[Any]] | None = None
        self._val_sets: tuple[Trainer | None, Mapping[Role, SampleDataset]] | None = None

    # -- implemented by derived classes ----------------------------------------------------------------

    @abstractmethod
    def datasets(self, split: Split, augment: bool = False) -> Mapping[Role, SampleDataset]:
        """The data set of a split per generator; search and evaluation read it without augmentation.

        Raises:
            UserError: The split is empty.
        """

    def predict_dataset(self) -> SampleDataset:
        """Data set of the sources to translate.

        Raises:
            UserError: The data module has none.
        """
        raise UserError(
            f"data: {type(self).__name__} has nothing to predict: give it a predict_dataset method."
        )

    @property
    def preprocessing(self) -> PreprocessingRecord:
        """The preprocessing of images; by default size and channels of the first images."""
        first = self._first_images
        height, width = next(iter(first.values())).shape[1:]
        record: PreprocessingRecord = {"crop_size": height if height == width else [height, width]}
        for key, image in first.items():
            record[CHANNELS[key]] = len(image)  # type: ignore[literal-required]
        record["range"] = [-1.0, 1.0]
        return record

    def fingerprint(self, split: Split = "train") -> str:
        """Digest of a split's images and preprocessing; by default of evenly spaced images alone."""
        digest = sha256()
        for dataset in self.datasets(split).values():
            digest.update(repr((len(dataset), self.preprocessing)).encode())
            for index in np.unique(np.linspace(0, len(dataset) - 1, FINGERPRINTED).astype(int)).tolist():
                for image in _images(dataset[index]).values():
                    digest.update(image.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def validates_on_test(self) -> bool:
        """Whether validation reads images of the test, so that it may not choose the best epoch."""
        return False

    def images(self) -> str:
        """Digest of what tells the training images from others, wherever they lie; here their number."""
        return str({str(role): len(dataset) for role, dataset in self.datasets("train").items()})

    # -- called by modules, policies and measures ------------------------------------------------------

    def first_batch(self) -> dict[str, Any]:
        """The first training sample of every generator, without augmentation, as a batch of one."""
        samples = [dataset[0] for dataset in self.datasets("train").values()]
        return collate([{key: value for sample in samples for key, value in sample.items()}])

    @cached_property
    def _first_images(self) -> dict[str, Tensor]:
        """Images (C, H, W) of the first batch, by key."""
        return {key: images[0] for key, images in _images(self.first_batch()).items()}

    def plain_train_loader(self) -> Iterator[dict[str, Any]]:
        """This rank's share of all training images, in order, without augmentation, role by role.

        The shares are whole batches of those that one process would read.
        """
        for dataset in self.datasets("train").values():
            batch_size = self._eval_batch(dataset)
            yield from self._loader(dataset, ShardSampler(dataset, self.trainer, batch_size), batch_size)

    def follow(self, seed: int) -> None:
        """Take over the seed of a run from the next epoch on, unless the user has set `seed`."""
        if isinstance(self.seed, RunSeed):
            # torch's own have 64 bits, and those that options take, as numpy's, have 32
            self.seed, self._train_loader = RunSeed(seed % 2**32), None

    def search_by(self, neighbourhoods: Mapping[Role, Tensor], members: int) -> None:
        """Sample training batches by neighbourhoods from the next epoch on.

        Images are not augmented, and a batch holds `search_batch_size` of them.

        Args:
            neighbourhoods: Table ``(N, k + 1)`` int64 per generator of positions in its training split: row
                ``c`` holds ``c`` and its ``k`` nearest. Images of generators without a table are sampled
                independently.
            members: Images that are drawn from a row, consecutive in the batch.
        """
        self.neighbourhoods, self._members, self._train_loader = neighbourhoods, members, None

    def check_search(self, members: int) -> None:
        """Check before neighbourhoods are computed that `search_by` can draw so many `members` of each.

        Raises:
            UserError: There are too few images for a batch, or a batch is no whole number of neighbourhoods.
        """
        self._require_batch(self.search_batch_size, "search_batch_size", members)

    def end_search(self) -> None:
        """Sample shuffled and augmented images again."""
        if self.neighbourhoods is not None:
            self.neighbourhoods = self._train_loader = None

    # -- loaders ---------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Make the data sets of a stage, so that a missing split is reported before anything else starts."""
        for split in self.splits_of(stage):
            self.datasets(split)
        if stage == "fit":  # a search, with batches of another size, comes before the first of these
            self._require_batch(self.batch_size, "batch_size")

    def _require_batch(self, batch_size: int, option: str, members: int = 1) -> None:
        longest = max(map(len, self.datasets("train").values()))
        require_batch(longest, batch_size, rank_and_world(self.trainer)[1], option, members)

    def splits_of(self, stage: str) -> list[Split]:
        """The splits that a stage reads; a fit with `limit_val_batches` 0 needs no validation images."""
        if stage == "fit" and self.trainer is not None and self.trainer.limit_val_batches == 0:
            return ["train"]
        stages: dict[str, list[Split]] = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}
        return stages.get(stage, [])

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled and augmented images, or in a search neighbourhoods of images without augmentation.

        The loader is reused in the next epoch, with its workers, until `search_by` or `end_search` is called.
        """
        if self._train_loader is None or self._train_loader[0] is not self.trainer:
            self._train_loader = self.trainer, self._make_train_loader()
        return self._train_loader[1]

    def _make_train_loader(self) -> DataLoader[Any]:
        tables = self.neighbourhoods
        datasets = self.datasets("train", augment=tables is None)
        batch_size = self.batch_size if tables is None else self.search_batch_size
        for one in datasets.values():
            if (error := one.different()) is not None and batch_size > 1:
                raise error
        self._remember("train", datasets)
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
        """One seed per role, so that the domains are shuffled and augmented independently."""
        seed = self.seed or 0
        return [seed, int(np.random.SeedSequence(seed).generate_state(1)[0])]

    def _remember(self, split: Split, datasets: Mapping[Role, SampleDataset]) -> None:
        """Do nothing; a data module may cache what is read in every epoch."""

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """This rank's share of the validation images, in order; a loader per role, if there are several.

        The data sets are reused in the next epoch, with what they remember.
        """
        if self._val_sets is None or self._val_sets[0] is not self.trainer:
            self._val_sets = self.trainer, self.datasets("val")
            self._remember("val", self._val_sets[1])
        return self._share_loaders(self._val_sets[1])

    def test_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """This rank's share of the test images, in order; a loader per role, if there are several."""
        return self._share_loaders(self.datasets("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        """This rank's share of the sources to translate, in order."""
        return self._share_loader(self.predict_dataset())

    def _share_loaders(
        self, datasets: Mapping[Role, SampleDataset]
    ) -> DataLoader[Any] | list[DataLoader[Any]]:
        loaders = [self._share_loader(dataset) for dataset in datasets.values()]
        return loaders if len(loaders) > 1 else loaders[0]

    def _share_loader(self, dataset: SampleDataset) -> DataLoader[Any]:
        return self._loader(dataset, ShardSampler(dataset, self.trainer), self._eval_batch(dataset))

    def _eval_batch(self, dataset: SampleDataset) -> int:
        """`eval_batch_size`; 1 for images that can't share a batch."""
        return self.eval_batch_size if dataset.different() is None else 1

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
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            collate_fn=collate,
        )


class PlainData:
    """Data outside of the contract: loaders alone, or a data module that is no `GANDataModule`.

    Networks can be trained, pruned without neighbourhoods, and tested on it. Only a first batch is known of
    its images, so nothing that depends on them is cached.

    Args:
        datamodule: The user's data module, or None for loaders alone.
    """

    batch_size = search_batch_size = 2  # assumed when networks are tried: most norms need more than one image
    num_workers = 0
    seed: int | None = None
    predict_folder: str | None = None

    def __init__(self, datamodule: LightningDataModule | None) -> None:
        self.datamodule = datamodule
        self.preprocessing: PreprocessingRecord = {}

    def fingerprint(self, split: Split = "train") -> str | None:
        """None: the images can't be identified."""
        return None

    @property
    def validates_on_test(self) -> bool:
        """False: the loaders are the user's."""
        return False

    def images(self) -> str:
        """Empty: the images are not known."""
        return ""

    def first_batch(self) -> dict[str, Any] | None:
        """The first training sample as a batch of one; None if the loader is no plain `DataLoader`."""
        if self.datamodule is None:
            return None
        with isolate_rng(include_cuda=False):
            loader = self.datamodule.train_dataloader()
            if not isinstance(loader, DataLoader) or type(loader.batch_sampler) is not BatchSampler:
                return None
            if type(loader.sampler) not in (
                RandomSampler,
                SequentialSampler,
            ):  # others may yield no positions
                return None
            batch = loader.collate_fn([loader.dataset[0]])
        return batch if isinstance(batch, dict) else None

    def follow(self, seed: int) -> None:
        """Do nothing: the order of the images is the user's."""

    def end_search(self) -> None:
        """Do nothing."""

    def refusal(self, why: str, remedy: str = "") -> UserError:
        """The error for a use that needs a `GANDataModule`.

        Args:
            why: Predicate of the message, such as `can't be searched by neighbourhoods`.
            remedy: A remedy besides another data module, such as `set fid_reals to test, or `.
        """
        name = "a data loader" if self.datamodule is None else type(self.datamodule).__name__
        return UserError(
            f"data: {name} {why}: {remedy}use DatasetDataModule for a data set of your own, another one of "
            "lightning_gancompress.data, or one derived from its GANDataModule."
        )


def adapt(datamodule: LightningDataModule | None) -> GANDataModule | PlainData:
    """Return a `GANDataModule` itself, and wrap any other data module in `PlainData`."""
    return datamodule if isinstance(datamodule, GANDataModule) else PlainData(datamodule)


def data_of(trainer: Trainer | None) -> GANDataModule | PlainData:
    """The data of a trainer; `PlainData` for loaders alone, and without a trainer."""
    return adapt(getattr(trainer, "datamodule", None))  # Lightning sets it when it is given one


def as_loops_give(trainer: Trainer, batch: dict[str, Any]) -> dict[str, Any]:
    """A batch in the precision and on the device of a trainer, as its loops hand it to the module."""
    converted = trainer.precision_plugin.convert_input(batch)
    moved: dict[str, Any] = trainer.strategy.batch_to_device(converted, trainer.strategy.root_device)
    return moved


def _images(sample: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: sample[key] for key in CHANNELS if key in sample}
