"""Data modules: pairs of images, two domains without pairs, and generated facades."""

from lightning_gancompress.data.base import ImageDataModule
from lightning_gancompress.data.datasets import Images, Pairs
from lightning_gancompress.data.paired import PairedDataModule
from lightning_gancompress.data.sampler import EpochSampler, ShardSampler, ZipSampler
from lightning_gancompress.data.synthetic import SyntheticFacades
from lightning_gancompress.data.transforms import ImageError, Preprocessing
from lightning_gancompress.data.unpaired import UnpairedDataModule

__all__ = [
    "EpochSampler",
    "ImageDataModule",
    "ImageError",
    "Images",
    "PairedDataModule",
    "Pairs",
    "Preprocessing",
    "ShardSampler",
    "SyntheticFacades",
    "UnpairedDataModule",
    "ZipSampler",
]
