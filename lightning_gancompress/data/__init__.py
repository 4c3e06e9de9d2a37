"""Data modules: pairs of images, two domains without pairs, one folder, generated facades, and tensors."""

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

Images, Pairs = ImageDataset, PairDataset  # their former names

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
    "read_source",
]
