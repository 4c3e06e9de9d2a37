"""LightningModules: teacher training and compression."""

from lightning_gancompress.modules.base import CHECKPOINT_KEY, GANModule
from lightning_gancompress.modules.compression import CompressionModule, Policy
from lightning_gancompress.modules.teacher import TeacherModule

__all__ = ["CHECKPOINT_KEY", "CompressionModule", "GANModule", "Policy", "TeacherModule"]
