"""Generators that ONNX Runtime runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_gancompress.data.pictures import to_uint8
from lightning_gancompress.errors import UserError
from lightning_gancompress.export import onnx_session
from lightning_gancompress.networks.images import LARGEST_SIDE, MOST_CHANNELS, read_preprocessing
from lightning_gancompress.translation.model import ImageModel, Size, in_batches

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


class OnnxModel(ImageModel):
    """An ONNX file with one input and one output of images: of `export`, or alike.

    Its images are (B, C, H, W), or of 8 bits and (B, H, W, C) where `export` has built the preprocessing in.

    Args:
        path: The file.
        device: `cpu` or `cuda`; `auto` is CUDA where ONNX Runtime has it.
        threads: CPU threads; 0 for ONNX Runtime's default.
    """

    runtime = "onnx"

    def __init__(self, path: Path, device: str = "auto", threads: int = 0) -> None:
        self.session = onnx_session(path, threads, cuda=_on_cuda(device))
        self._input, output = _images(path, "input", self.session.get_inputs()), self.session.get_outputs()
        _images(path, "output", output)
        self._dtype = _TYPES[self._input.type]
        self._last = _channels_last(path, self._input.shape, self._dtype == np.uint8)
        batch, channels, *sides = _first(self._input.shape) if self._last else self._input.shape
        self._batch = batch if isinstance(batch, int) and batch > 0 else None
        metadata = self.session.get_modelmeta().custom_metadata_map
        record = read_record(path, metadata.get("preprocessing", "{}"))
        super().__init__(path, record, _whole(path, channels, MOST_CHANNELS), _fixed(path, sides))
        if record.get("in_channels", self.in_channels) != self.in_channels:
            raise UserError(
                f"{path} reads images of {self.in_channels} channels, and its preprocessing is for "
                f"{record['in_channels']}: export it again."
            )

    def run(self, images: Tensor) -> Tensor:
        """Map images, as many at once as the file takes."""
        return in_batches(self._run, images, self._batch)

    def _run(self, images: Tensor) -> Tensor:
        array: Any = (to_uint8(images) if self._dtype == np.uint8 else images).numpy(force=True)
        array = array.transpose(0, 2, 3, 1) if self._last else array
        given = {self._input.name: np.ascontiguousarray(array, self._dtype)}
        output = torch.from_numpy(self.session.run(None, given)[0])
        output = output.permute(0, 3, 1, 2) if self._last else output
        return output.float() / 127.5 - 1 if output.dtype == torch.uint8 else output.float()


def _on_cuda(device: str) -> bool:
    if device == "cpu":
        return False
    from onnxruntime import get_available_providers  # the session says if it is missing

    there = "CUDAExecutionProvider" in get_available_providers()
    if device == "auto":
        return there
    if device != "cuda" or not there:
        raise UserError(
            f"device is {device!r}, and ONNX Runtime runs on cpu, or on cuda where the package "
            "onnxruntime-gpu is installed: set it to auto."
        )
    return True


def _images(path: Path, what: str, nodes: Sequence[Any]) -> Any:
    """The only input or output of images."""
    found = ", ".join(f"{node.name} {node.type} {node.shape}" for node in nodes[:3]) or "none"
    if len(nodes) == 1 and nodes[0].type in _TYPES and len(nodes[0].shape) == 4:
        return nodes[0]
    raise UserError(
        f"{path} is no generator of images: its {what} should be one batch of images, (batch, "
        f"channels, height, width), and is {found[:200]}."
    )


def _channels_last(path: Path, shape: Sequence[Any], pixels: bool) -> bool:
    return pixels and shape[1] not in (1, 3) and shape[3] in (1, 3)


def _first(shape: Sequence[Any]) -> list[Any]:
    """A shape (B, H, W, C) with the channels before the sides."""
    return [shape[0], shape[3], shape[1], shape[2]]


def _whole(path: Path, value: Any, most: int) -> int:
    if isinstance(value, int) and 1 <= value <= most:
        return value
    raise UserError(
        f"{path} has an input with a dimension of {str(value)[:60]}, where images have 1 to {most}."
    )


def _fixed(path: Path, sides: Sequence[Any]) -> Size | None:
    """Height and width, if they are numbers and no names."""
    if not all(isinstance(side, int) for side in sides):
        return None
    return _whole(path, sides[0], LARGEST_SIDE), _whole(path, sides[1], LARGEST_SIDE)


def read_record(path: Path, text: str) -> dict[str, Any]:
    """The record of the preprocessing in the metadata of a file, as JSON.

    Raises:
        UserError: It is damaged.
    """
    try:
        return read_preprocessing(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} has damaged metadata ({error}): export it again.") from error
