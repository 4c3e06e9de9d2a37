"""Export to `torch.export` programs, and the numerical check of exported files."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.files import user_path, write_files
from lightning_gancompress.networks import copy_network
from lightning_gancompress.options import Amount, checked


@checked
def export_torch(
    network: nn.Module,
    path: str | Path,
    sample: Tensor,
    *,
    tolerance: Amount = 1e-4,
    preprocessing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `network` as a `.pt2` program that `torch.export.load(path).module()` runs without this package.

    The batch size is dynamic, height and width are fixed: torch restricts a program to sizes for which it
    takes the same path, which excludes for example a single pixel in the middle of a U-Net.

    Args:
        network: Maps one (B, C, H, W) image batch to another; it is copied, not changed.
        path: File to write, atomically.
        sample: An input (B, C, H, W) of the shape to export; its values don't matter.
        tolerance: Largest accepted absolute difference of the program's output from the network's.
        preprocessing: How images become its input, in plain types; written as JSON under the name
            `preprocessing` of torch's `extra_files`.

    Returns:
        The facts of `describe`.

    Raises:
        UserError: The network can't be traced, the file differs from it, or can't be written.
    """
    path = user_path(path)
    reference = inference_copy(network)
    buffer = io.BytesIO()
    extra = {"preprocessing": json.dumps(preprocessing)} if preprocessing else {}
    torch.export.save(trace(reference, sample), buffer, extra_files=extra)
    buffer.seek(0)
    difference = max_difference(reference, torch.export.load(buffer).module(), sample)
    check(difference, tolerance, path)
    write_files({path: buffer.getvalue()})
    return describe(path, "torch", sample, difference)


def inference_copy(network: nn.Module) -> nn.Module:
    """A frozen float32 copy on the CPU, in eval mode."""
    return copy_network(network).cpu().float().eval().requires_grad_(False)


def trace(network: nn.Module, sample: Tensor, dynamic_size: bool = False) -> ExportedProgram:
    """Trace a network with dynamic batch size, and with `dynamic_size` also dynamic height and width."""
    _require_image(network, torch.zeros(1, *sample.shape[1:]))
    _, channels, height, width = sample.shape
    # torch treats a size of one as constant: so two images, and two pixels in the middle of a U-Net
    scale = 2 if dynamic_size else 1
    example = torch.zeros(2, channels, scale * height, scale * width)
    # AUTO infers the sizes that a network accepts, such as multiples of 64; named dimensions must state them
    shape = {0: Dim("batch"), **({2: Dim.AUTO, 3: Dim.AUTO} if dynamic_size else {})}
    try:
        with quiet():
            return torch.export.export(network, (example,), dynamic_shapes=(shape,), strict=False)
    except Exception as error:  # the tracer's exceptions share no base class
        hint = " at more than one size (without dynamic_size it may)" if dynamic_size else ""
        msg = f"{type(network).__name__} can't be traced for export{hint}: {first_line(error)}"
        raise UserError(msg) from error


@torch.inference_mode()
def _require_image(network: nn.Module, image: Tensor) -> None:
    """Let the network itself complain of a wrong shape, or do it for one that doesn't know how."""
    name, shape = type(network).__name__, "x".join(map(str, image.shape))
    try:
        output = network(image)
    except UserError:
        raise
    except Exception as error:  # whatever a user's forward raises
        raise UserError(
            f"{name} fails on an image batch of {shape} ({first_line(error)}): give another size."
        ) from error
    if not isinstance(output, Tensor):
        raise UserError(
            f"{name} returns a {type(output).__name__}, and only networks that return one image batch can be "
            "exported: wrap it in a module that picks the image."
        )


def max_difference(
    network: nn.Module, run: Callable[[Tensor], Tensor], sample: Tensor, dynamic_size: bool = False
) -> float:
    """Largest absolute difference of `run` from `network` on `random_images`; NaN if an output has NaN."""
    return image_differences(network, run, random_images(sample, dynamic_size))[1]


def random_images(sample: Tensor, dynamic_size: bool = False) -> list[Tensor]:
    """Images in [-1, 1]: batches of one and three, and with `dynamic_size` also of twice the height."""
    generator = torch.Generator().manual_seed(0)
    _, channels, height, width = sample.shape
    shapes = [(1, channels, height, width), (3, channels, height, width)]
    if dynamic_size:
        shapes.append((1, channels, 2 * height, width))
    return [torch.rand(shape, generator=generator) * 2 - 1 for shape in shapes]


@torch.inference_mode()
def image_differences(
    network: nn.Module, run: Callable[[Tensor], Tensor], images: Sequence[Tensor]
) -> tuple[float, float]:
    """Mean and largest absolute difference of `run` from `network` on image batches; NaN if one has NaN."""
    means, largest = [], []
    for image in images:
        try:
            output = run(image)
        except Exception as error:  # any runtime's error
            msg = f"The exported {type(network).__name__} fails on {tuple(image.shape)}: {first_line(error)}"
            raise UserError(msg) from error
        difference = (output - network(image)).abs()
        means.append(difference.mean())
        largest.append(difference.max())
    return float(torch.stack(means).mean()), float(torch.stack(largest).max())  # Python's max may drop NaN


def check(difference: float, tolerance: float, path: str | Path) -> None:
    """Raise a `UserError` if the difference is above the tolerance or NaN."""
    if not difference <= tolerance:
        remedy = (
            "check that the weights are finite"
            if math.isnan(difference)
            else "choose another format, or in Python a larger tolerance if outputs are far beyond [-1, 1]"
        )
        raise UserError(
            f"{Path(path).name} was not written: its output differs from the network's by {difference:.3g}, "
            f"more than the tolerance {tolerance:.3g}: {remedy}."
        )


def describe(
    path: str | Path, form: str, sample: Tensor, difference: float, dynamic_size: bool = False
) -> dict[str, Any]:
    """Facts about an exported file: path, format, bytes, input shape, dynamic dimensions, difference."""
    return {
        "path": str(path),
        "format": form,
        "bytes": Path(path).stat().st_size,
        "input_shape": [1, *sample.shape[1:]],
        "dynamic": ["batch", "height", "width"] if dynamic_size else ["batch"],
        "max_difference": difference,
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Context that suppresses logs and prints of the tracer; it raises its errors as well."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
