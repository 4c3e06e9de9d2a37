"""Data modules: pairs of images, two domains without pairs, one folder, generated facades, and tensors.

Importing the package loads nothing: images can be read for a network without Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_gancompress.data.contract import GANDataModule
    from lightning_gancompress.data.datasets import ImageDataset, PairDataset, SampleDataset
    from lightning_gancompress.data.folder import FolderDataModule
    from lightning_gancompress.data.image_folder import ImageDataModule
    from lightning_gancompress.data.items import ItemDataset
    from lightning_gancompress.data.labels import Labels, read_source
    from lightning_gancompress.data.paired import PairedDataModule
    from lightning_gancompress.data.reading import ImageError
    from lightning_gancompress.data.sampler import EpochSampler, ShardSampler, ZipSampler
    from lightning_gancompress.data.synthetic import SyntheticFacades, SyntheticUnpairedFacades
    from lightning_gancompress.data.tensors import DatasetDataModule
    from lightning_gancompress.data.transforms import Preprocessing
    from lightning_gancompress.data.unpaired import UnpairedDataModule

    Images, Pairs = ImageDataset, PairDataset

_HOMES = {
    "DatasetDataModule": "tensors",
    "EpochSampler": "sampler",
    "FolderDataModule": "folder",
    "GANDataModule": "contract",
    "ImageDataModule": "image_folder",
    "ImageDataset": "datasets",
    "ImageError": "reading",
    "ItemDataset": "items",
    "Labels": "labels",
    "PairDataset": "datasets",
    "PairedDataModule": "paired",
    "Preprocessing": "transforms",
    "SampleDataset": "datasets",
    "ShardSampler": "sampler",
    "SyntheticFacades": "synthetic",
    "SyntheticUnpairedFacades": "synthetic",
    "UnpairedDataModule": "unpaired",
    "ZipSampler": "sampler",
    "read_source": "labels",
}
_FORMER = {"Images": "ImageDataset", "Pairs": "PairDataset"}

__all__ = [
    "DatasetDataModule",
    "EpochSampler",
    "FolderDataModule",
    "GANDataModule",
    "ImageDataModule",
    "ImageDataset",
    "ImageError",
    "Images",
    "ItemDataset",
    "Labels",
    "PairDataset",
    "PairedDataModule",
    "Pairs",
    "Preprocessing",
    "SampleDataset",
    "ShardSampler",
    "SyntheticFacades",
    "SyntheticUnpairedFacades",
    "UnpairedDataModule",
    "ZipSampler",
    "load_all",
    "read_source",
]


def __getattr__(name: str) -> Any:
    own = _FORMER.get(name, name)
    if own not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[own]}"), own)


def load_all() -> None:
    """Import all classes, so that configurations can name them without their package."""
    for name in _HOMES:
        __getattr__(name)
