"""Data modules: pairs of images, folders of images, and generated facades."""

from lightning_gancompress.data.datasets import FolderImages, Pairs
from lightning_gancompress.data.paired import PairedDataModule
from lightning_gancompress.data.sampler import EpochSampler, ShardSampler
from lightning_gancompress.data.synthetic import SyntheticFacades
from lightning_gancompress.data.transforms import ImageError, Preprocessing

__all__ = [
    "EpochSampler",
    "FolderImages",
    "ImageError",
    "PairedDataModule",
    "Pairs",
    "Preprocessing",
    "ShardSampler",
    "SyntheticFacades",
]
