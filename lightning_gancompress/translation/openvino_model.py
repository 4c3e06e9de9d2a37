"""Generators that OpenVINO runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_gancompress.errors import UserError
from lightning_gancompress.export.openvino import open_openvino
from lightning_gancompress.networks.images import LARGEST_SIDE, MOST_CHANNELS
from lightning_gancompress.translation.model import ImageModel, Size, in_batches
from lightning_gancompress.translation.onnx_model import read_record


class OpenVinoModel(ImageModel):
    """An `.xml` file of OpenVINO with one input and one output of float images (B, C, H, W).

    It runs in the precision that OpenVINO chooses: bfloat16 where the CPU has it, else float32.

    Args:
        path: The file; its `.bin` lies beside it.
        device: `cpu` or `auto`, which are the same.
        threads: CPU threads; 0 for OpenVINO's default.
    """

    runtime = "openvino"

    def __init__(self, path: Path, device: str = "auto", threads: int = 0) -> None:
        if device not in ("auto", "cpu"):
            raise UserError(f"device is {device!r}, and OpenVINO files run on cpu here: set it to auto.")
        self._compiled, record = open_openvino(path, threads)
        shape = _image_shape(path, self._compiled)
        self._batch = shape[0]
        sides = (shape[2], shape[3])
        fixed: Size | None = sides if all(sides) else None  # type: ignore[assignment]
        super().__init__(path, read_record(path, record), shape[1] or 3, fixed)

    @property
    def bytes(self) -> int:
        """Size of both files."""
        return super().bytes + self.path.with_suffix(".bin").stat().st_size

    def run(self, images: Tensor) -> Tensor:
        """Map images, as many at once as the file takes."""
        return in_batches(self._run, images, self._batch)

    def _run(self, images: Tensor) -> Tensor:
        array = np.ascontiguousarray(images.numpy(force=True), np.float32)
        # OpenVINO writes the next result to the same memory
        return torch.from_numpy(self._compiled([array])[0].copy()).float()


def _image_shape(path: Path, compiled: Any) -> Sequence[int | None]:
    """The shape of the only input; None where it is free."""
    for what, nodes in (("input", compiled.inputs), ("output", compiled.outputs)):
        if len(nodes) != 1 or len(nodes[0].partial_shape) != 4:
            found = ", ".join(f"{n.partial_shape}" for n in nodes[:3]) or "none"
            raise UserError(
                f"{path} is no generator of images: its {what} should be one batch of images, (batch, "
                f"channels, height, width), and is {found}."
            )
    shape = [n.get_length() if n.is_static else None for n in compiled.inputs[0].partial_shape]
    for size, most in zip(shape[1:], (MOST_CHANNELS, LARGEST_SIDE, LARGEST_SIDE), strict=True):
        if size is not None and not 1 <= size <= most:
            raise UserError(f"{path} has an input of {size}, where images have 1 to {most}.")
    return shape
