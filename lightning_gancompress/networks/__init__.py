"""Generators and discriminators, and the specs to build them again. Imports no Lightning."""

from lightning_gancompress.networks.dry_run import dry_run
from lightning_gancompress.networks.images import blank_image, image_channels, pixels, require_image_alone
from lightning_gancompress.networks.init import Init, init_weights, renew
from lightning_gancompress.networks.layers import Norm
from lightning_gancompress.networks.mobile_resnet import MobileResnetGenerator
from lightning_gancompress.networks.parametrizations import (
    bake_parametrizations,
    copy_network,
    has_parametrizations,
)
from lightning_gancompress.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from lightning_gancompress.networks.resnet import ResnetGenerator
from lightning_gancompress.networks.spec import (
    BatchNorm,
    NetworkSpec,
    channel_widths,
    load_tensors,
    set_channel_widths,
    use_image_statistics,
)
from lightning_gancompress.networks.unet import UnetGenerator

__all__ = [
    "BatchNorm",
    "Init",
    "MobileResnetGenerator",
    "NetworkSpec",
    "Norm",
    "PatchDiscriminator",
    "PixelDiscriminator",
    "ResnetGenerator",
    "UnetGenerator",
    "bake_parametrizations",
    "blank_image",
    "channel_widths",
    "copy_network",
    "dry_run",
    "has_parametrizations",
    "image_channels",
    "init_weights",
    "load_tensors",
    "pixels",
    "renew",
    "require_image_alone",
    "set_channel_widths",
    "use_image_statistics",
]
