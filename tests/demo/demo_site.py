"""What the tests of the demo share: pictures, models, and requests."""

from __future__ import annotations

import http.client
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.networks import NetworkSpec

RECORD = {"preprocess": "resize_and_crop", "load_size": 32, "crop_size": 32, "in_channels": 3}


def picture(width: int = 48, height: int = 32, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def small_model(path: Path, ngf: int, record: Mapping[str, object] = RECORD, **arguments: object) -> Path:
    """A generator with random weights, as a file."""
    torch.manual_seed(ngf)
    spec = NetworkSpec(
        "lightning_gancompress.networks.ResnetGenerator",
        {"ngf": ngf, "n_blocks": 1, "init_gain": 0.3, **arguments},
    )
    save_small(spec.build(), spec, path, preprocessing=dict(record), provenance={})
    return path


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(self.content))


@dataclass(frozen=True)
class Site:
    """A demo that is served; requests of it."""

    port: int
    student: Path
    teacher: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str = ""
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            method = method or ("GET" if body is None else "POST")
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()
