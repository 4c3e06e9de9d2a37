"""Metrics of pairs of images and of sets of images. Imports no Lightning."""

from lightning_gancompress.data.pictures import to_uint8
from lightning_gancompress.metrics.fid import Feature, InceptionFeatures, Resize, distances
from lightning_gancompress.metrics.image import l1, psnr, ssim
from lightning_gancompress.metrics.lpips import Lpips

__all__ = ["Feature", "InceptionFeatures", "Lpips", "Resize", "distances", "l1", "psnr", "ssim", "to_uint8"]
