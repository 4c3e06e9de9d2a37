"""A canvas for generated pictures: paints photo and label map with materials, light and shadow."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]
Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the image

LABELS = {
    "sky": (0, 0, 170),
    "ground": (0, 0, 70),
    "roof": (170, 0, 170),
    "plaster": (0, 60, 255),
    "brick": (120, 0, 255),
    "stone": (0, 110, 110),
    "window": (0, 180, 255),
    "door": (0, 255, 150),
    "shop": (170, 0, 0),
    "sill": (120, 255, 255),
    "moulding": (255, 150, 0),
    "cornice": (255, 60, 0),
    "shutter": (255, 230, 0),
    "balcony": (170, 255, 0),
}
PAINT = {
    "plaster": (0.86, 0.76, 0.56),
    "brick": (0.62, 0.31, 0.23),
    "stone": (0.60, 0.57, 0.52),
    "roof": (0.40, 0.24, 0.20),
    "ground": (0.42, 0.41, 0.40),
    "trim": (0.90, 0.87, 0.80),
    "shutter": (0.16, 0.34, 0.25),
    "wood": (0.36, 0.20, 0.11),
    "iron": (0.10, 0.10, 0.11),
    "glass": (0.16, 0.20, 0.25),
    "awning": (0.55, 0.12, 0.12),
}


class Canvas:
    """A label map of ``size`` pixels and a photo of twice that, painted together box by box."""

    def __init__(self, size: int, random: np.random.Generator) -> None:
        self.size, self.random = size, random
        self.label = np.zeros((size, size, 3), np.uint8)
        self.photo = np.zeros((2 * size, 2 * size, 3))
        self.tint = 1 + random.normal(0, 0.035, 3) + random.normal(0, 0.03)

    def pixels(self, box: Box) -> tuple[int, int, int, int]:
        """Label pixels of a box, at least one wide and high."""
        left, top = (min(max(round(edge * self.size), 0), self.size - 1) for edge in box[:2])
        # rounded from the length, not from the far edge, so that equal lengths give equal numbers of pixels
        width, height = (max(1, round((box[i + 2] - box[i]) * self.size)) for i in (0, 1))
        return left, top, min(left + width, self.size), min(top + height, self.size)

    def view(self, box: Box) -> Array:
        """The photo inside a box, ``(h, w, 3)`` in [0, 1], to paint on."""
        left, top, right, bottom = (2 * edge for edge in self.pixels(box))
        return self.photo[top:bottom, left:right]

    def paint(self, name: str, box: Box, colour: str, texture: str = "plain") -> Array:
        """Mark a box as a class, paint it, and return its photo for details."""
        left, top, right, bottom = self.pixels(box)
        self.label[top:bottom, left:right] = LABELS[name]
        view = self.view(box)
        view[:] = np.array(PAINT[colour]) * self.tint * self.texture(texture, *view.shape[:2])[..., None]
        return view

    def shadow(self, box: Box, depth: float) -> None:
        """Darken a box by the shadow of an overhang, with decreasing depth towards its lower edge."""
        view = self.view(box)
        view *= 1 - depth * np.linspace(1, 0.25, view.shape[0])[:, None, None]

    def edge(self, view: Array, light: float = 0.15) -> None:
        """Light the upper and left rim of a protruding object, and darken the lower and right one."""
        rim = max(1, self.size // 96)
        for side in (view[:rim], view[:, :rim]):
            side *= 1 + light
        for side in (view[-rim:], view[:, -rim:]):
            side *= 1 - 2 * light

    def clouds(self, height: int, width: int, cells: int) -> Array:
        """Smooth noise of unit deviation, ``(height, width)``, with about ``cells`` bumps per side."""
        coarse = self.random.normal(0, 1.5, (cells, cells)).astype(np.float32)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), float)

    def texture(self, kind: str, height: int, width: int) -> Array:
        """Brightness of a material around 1, ``(height, width)``."""
        grain = 1 + self.random.normal(0, 0.02, (height, width))
        if kind == "plaster":
            return grain + 0.025 * self.clouds(height, width, 5)
        if kind in ("brick", "stone", "tiles"):
            course, length, spread, joint = {
                "brick": (max(4, self.size // 24), 2.4, 0.10, 1.22),
                "stone": (max(8, self.size // 10), 2.2, 0.06, 0.72),
                "tiles": (max(4, self.size // 20), 0.9, 0.08, 0.70),
            }[kind]
            row = np.arange(height)[:, None] // course
            across = np.arange(width)[None, :] + (row % 2) * int(course * length) // 2
            column = across // int(course * length)
            tone = self.random.normal(1, spread, (row.max() + 1, column.max() + 1))
            seam = max(1, course // 5)
            joints = (np.arange(height)[:, None] % course < seam) | (across % int(course * length) < seam)
            return np.where(joints, joint, tone[row, column]) * grain
        return grain

    def develop(self) -> Image.Image:
        """Add daylight, weathering, lens and sensor, and reduce to ``size``."""
        side = 2 * self.size
        down, right = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
        light = 1.10 - 0.22 * down - 0.08 * right + 0.02 * self.clouds(side, side, 4)
        photo = self.photo * (light * self.random.normal(1, 0.04))[..., None]
        photo = photo.reshape(self.size, 2, self.size, 2, 3).mean((1, 3))
        photo += self.random.normal(0, 0.012, photo.shape)
        return Image.fromarray((photo.clip(0, 1) * 255).astype(np.uint8))
