"""Shared code of the shipped networks: base class, norms, and checks of input images."""

import functools
import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.jit import is_scripting as is_scripting  # type: ignore[attr-defined]

from lightning_gancompress.errors import UserError
from lightning_gancompress.options import check

Norm = Literal["instance", "instance_affine", "batch", "none"]


class Network(nn.Module):
    """A network that checks the arguments of its constructor and keeps them in `init_args`."""

    init_args: dict[str, Any]
    size_multiple = 1  # of which height and width are multiples

    def __init_subclass__(cls) -> None:
        """Wrap the constructor, keeping its signature, which is the config schema."""
        construct = cls.__init__
        signature = inspect.signature(construct)

        @functools.wraps(construct)
        def __init__(self: "Network", *args: Any, **kwargs: Any) -> None:
            bound = signature.bind(self, *args, **kwargs)
            check(construct, bound.arguments)
            bound.apply_defaults()
            construct(self, *args, **kwargs)
            self.init_args = {k: v for k, v in bound.arguments.items() if k != "self"}

        cls.__init__ = __init__  # type: ignore[method-assign, assignment]


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Return an instance norm, affine or without parameters, an affine batch norm, or an identity."""
    if norm == "none":
        return nn.Identity()
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels, affine=norm == "instance_affine")


def has_bias(norm: Norm) -> bool:
    """Whether a convolution before such a norm has a bias, as in upstream's networks."""
    return norm in ("instance", "instance_affine")


def check_image(
    network: nn.Module, image: Tensor, channels: int, smallest: int = 1, multiple: int = 1
) -> None:
    """Check the shape of an input image.

    Args:
        network: The network, for the message.
        image: Input (B, C, H, W).
        channels: Required C.
        smallest: Least height and width, in pixels.
        multiple: Height and width must be multiples of it, or the output would have another size.

    Raises:
        UserError: When channels or size do not fit.
    """
    if torch.compiler.is_compiling():
        return  # a comparison of sizes would fix them in the exported graph
    name = type(network).__name__
    if image.ndim != 4 or image.shape[1] != channels:
        remedy = "give it a batch of images"
        if image.ndim == 4:
            remedy = f"set its in_channels to {image.shape[1]}, or change those of the data "
            remedy += "(data.in_channels, data.labels)"
        raise UserError(
            f"{name} reads images of shape (batch, {channels}, height, width), not {tuple(image.shape)}: "
            f"{remedy}."
        )
    height, width = image.shape[2:]
    if min(height, width) < smallest or height % multiple or width % multiple:
        needs = [f"a multiple of {multiple}"] * (multiple > 1) + [f"at least {smallest}"] * (smallest > 1)
        raise UserError(
            f"{name} can't work on images of {height}x{width} pixels: height and width must be "
            f"{' and '.join(needs)}. Set data.crop_size to such a number, with a "
            "data.preprocess that crops."
        )
