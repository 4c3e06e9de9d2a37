"""Tasks: the networks and losses of Pix2Pix and CycleGAN. Imports no Lightning."""

from lightning_gancompress.tasks.cyclegan import CycleGAN
from lightning_gancompress.tasks.losses import GanMode, fool_loss, gan_loss
from lightning_gancompress.tasks.pix2pix import Pix2Pix
from lightning_gancompress.tasks.role import Role, Side
from lightning_gancompress.tasks.task import Batch, Images, Losses, Networks, Task

__all__ = [
    "Batch",
    "CycleGAN",
    "GanMode",
    "Images",
    "Losses",
    "Networks",
    "Pix2Pix",
    "Role",
    "Side",
    "Task",
    "fool_loss",
    "gan_loss",
]
