"""Tasks: the networks and losses of Pix2Pix. No Lightning here."""

from lightning_gancompress.tasks.losses import GanMode, fool_loss, gan_loss
from lightning_gancompress.tasks.pix2pix import Batch, Images, Losses, Pix2Pix

__all__ = ["Batch", "GanMode", "Images", "Losses", "Pix2Pix", "fool_loss", "gan_loss"]
