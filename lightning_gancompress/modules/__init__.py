"""LightningModules of teacher training and compression."""

from lightning_gancompress.modules.base import GANModule
from lightning_gancompress.modules.compression import CompressionModule
from lightning_gancompress.modules.teacher import TeacherModule

__all__ = ["CompressionModule", "GANModule", "TeacherModule"]
