"""Generated facades: a colour-coded label map and a photo rendered from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from lightning_gancompress.data.canvas import LABELS, PAINT, Box, Canvas


def render_facade(size: int, seed: int, index: int) -> tuple[Image.Image, Image.Image]:
    """Render a facade, the same for the same arguments.

    Args:
        size: Pixels per side.
        seed: Seed of the data set.
        index: Index of the building in it.

    Returns:
        Photo and label map. A class has the same appearance on all buildings, up to light, tint, dirt and
        noise, so that a small network can learn to translate labels to photos.
    """
    random = np.random.default_rng((seed, index))
    canvas = Canvas(size, random)
    Building.invent(random).draw(canvas)
    return canvas.develop(), Image.fromarray(canvas.label)


@dataclass(frozen=True)
class Building:
    """The plan of a facade. Lengths are fractions of the image unless noted."""

    wall: str
    base: str
    left: float
    right: float
    top: float
    eaves: float
    base_top: float
    floors: int
    columns: int
    window_width: float  # of its cell
    window_height: float  # of its cell
    shutters: bool
    mouldings: bool
    courses: bool
    balconies: frozenset[tuple[int, int]]
    door: int
    shop: bool

    GROUND = 0.94

    @classmethod
    def invent(cls, random: np.random.Generator) -> Building:
        """Draw a plan at random."""

        def chance(p: float) -> bool:
            return bool(random.random() < p)

        floors, columns = int(random.integers(2, 5)), int(random.integers(3, 6))
        margin = 0.0 if chance(0.5) else float(random.uniform(0.03, 0.1))
        top = float(random.uniform(0.04, 0.14))
        shutters = columns < 5 and chance(0.45)
        wall = "brick" if chance(0.45) else "plaster"
        lattice = [(floor, column) for floor in range(floors) for column in range((columns + 1) // 2)]
        half = {place for place in lattice if chance(0.25)} if chance(0.7) else set()
        return cls(
            wall=wall,
            base="stone" if chance(0.7) else wall,
            left=margin,
            right=1 - margin,
            top=top,
            eaves=top + (0.03 if chance(0.25) else float(random.uniform(0.08, 0.14))),
            base_top=float(random.uniform(0.70, 0.76)),
            floors=floors,
            columns=columns,
            window_width=float(random.uniform(0.34, 0.42) if shutters else random.uniform(0.42, 0.6)),
            window_height=float(random.uniform(0.52, 0.64)),
            shutters=shutters,
            mouldings=chance(0.5),
            courses=chance(0.5),
            # the right half mirrors the left
            balconies=frozenset(half | {(floor, columns - 1 - column) for floor, column in half}),
            door=int(random.integers(columns)),
            shop=chance(0.4),
        )

    def draw(self, canvas: Canvas) -> None:
        """Paint the whole scene, from back to front."""
        self.draw_sky(canvas)
        self.draw_roof(canvas)
        canvas.paint(self.wall, (self.left, self.eaves, self.right, 1), self.wall, self.wall)
        canvas.paint(self.base, (self.left, self.base_top, self.right, 1), self.base, self.base)
        canvas.paint("ground", (0, self.GROUND, 1, 1), "ground")
        height = (self.base_top - self.eaves - 0.03) / self.floors
        for floor in range(self.floors):
            top = self.eaves + 0.03 + floor * height
            if self.courses and floor:
                self.draw_ledge(canvas, "cornice", (self.left, top - 0.006, self.right, top + 0.012))
            for column in range(self.columns):
                self.draw_cell(
                    canvas, self.cell(column, top, top + height), (floor, column) in self.balconies
                )
        self.draw_ledge(
            canvas, "cornice", (self.left, self.base_top - 0.012, self.right, self.base_top + 0.012)
        )
        self.draw_ledge(
            canvas, "cornice", (self.left, self.eaves - 0.012, self.right, self.eaves + 0.025), 0.05
        )
        for column in range(self.columns):
            self.draw_entrance(
                canvas, self.cell(column, self.base_top + 0.02, self.GROUND), column == self.door
            )

    def cell(self, column: int, top: float, bottom: float) -> Box:
        """The box of a window with the wall around it."""
        width = (self.right - self.left - 0.04) / self.columns
        left = self.left + 0.02 + column * width
        return left, top, left + width, bottom

    def draw_sky(self, canvas: Canvas) -> None:
        """Paint blue to haze, with clouds."""
        canvas.label[:] = LABELS["sky"]
        side = 2 * canvas.size
        haze = np.linspace(0, 1, side)[:, None, None]
        canvas.photo[:] = (1 - haze) * np.array((0.50, 0.68, 0.90)) + haze * np.array((0.85, 0.88, 0.92))
        clouds = sum(canvas.clouds(side, side, cells) * 3 / cells for cells in (3, 7, 16))
        canvas.photo += 0.14 * np.clip(clouds, 0, 1.2)[..., None]

    def draw_roof(self, canvas: Canvas) -> None:
        """Paint tiles, narrower towards the ridge if the roof is high enough."""
        steps = max(1, round((self.eaves - self.top) * canvas.size))
        sky = canvas.photo.copy()
        box = (self.left, self.top, self.right, self.eaves)
        canvas.paint("roof", box, "roof", "tiles")
        for step in range(steps):
            inset = 0.09 * (1 - step / steps) * (self.eaves - self.top > 0.05)
            top = self.top + step / canvas.size
            for left, right in ((0, self.left + inset), (self.right - inset, 1)):
                if right - left < 1 / canvas.size:
                    continue
                x0, y0, x1, _ = canvas.pixels((left, top, right, top))
                canvas.label[y0, x0:x1] = LABELS["sky"]
                canvas.photo[2 * y0 : 2 * y0 + 2, 2 * x0 : 2 * x1] = sky[2 * y0 : 2 * y0 + 2, 2 * x0 : 2 * x1]

    def draw_ledge(self, canvas: Canvas, name: str, box: Box, shadow: float = 0.02) -> None:
        """Paint a strip that protrudes from the wall, and its shadow below."""
        left, _, right, bottom = box
        canvas.shadow((left, bottom, right, bottom + shadow), 0.45)
        canvas.edge(canvas.paint(name, box, "trim"))

    def draw_cell(self, canvas: Canvas, cell: Box, balcony: bool) -> None:
        """Paint an upper window with shutters, moulding, sill and balcony."""
        left, top, right, bottom = cell
        width, height = right - left, bottom - top
        x0, x1 = left + width * (1 - self.window_width) / 2, left + width * (1 + self.window_width) / 2
        y0 = top + height * 0.22
        y1 = min(y0 + height * self.window_height, bottom - 0.03)
        if self.shutters:
            leaf = 0.42 * (x1 - x0)
            for a, b in ((x0 - leaf, x0), (x1, x1 + leaf)):
                canvas.shadow((a, y0, b + 0.012, y1 + 0.012), 0.3)
                view = canvas.paint("shutter", (a, y0, b, y1), "shutter")
                view *= np.where(np.arange(view.shape[0]) % 4 < 2, 1.15, 0.75)[:, None, None]
        self.draw_window(canvas, (x0, y0, x1, y1))
        if self.mouldings:
            self.draw_ledge(canvas, "moulding", (x0 - 0.014, y0 - 0.03, x1 + 0.014, y0 - 0.008), 0.014)
        self.draw_ledge(canvas, "sill", (x0 - 0.01, y1, x1 + 0.01, y1 + 0.016))
        if balcony:
            self.draw_balcony(
                canvas, (left + 0.06 * width, y1 - 0.42 * (y1 - y0), right - 0.06 * width, y1 + 0.02)
            )

    def draw_window(self, canvas: Canvas, box: Box, name: str = "window") -> None:
        """Paint a frame with panes that reflect the sky, and a curtain in 30 % of windows."""
        frame = canvas.paint(name, box, "trim")
        frame *= 1.04
        rim = max(1, canvas.size // 64)
        glass = frame[rim:-rim, rim:-rim]
        if not glass.size:
            return
        height, width = glass.shape[:2]
        down, right = np.mgrid[0:height, 0:width]
        mirror = 0.30 * np.clip(1 - down / height, 0, 1) + 0.12 * ((down + right) % (height + 1) < height / 4)
        glass[:] = np.array(PAINT["glass"]) + mirror[..., None] * np.array((0.75, 0.9, 1.1))
        if canvas.random.random() < 0.3:
            glass[height // 3 :] = 0.5 * glass[height // 3 :] + 0.36
        # the reveal's shadow, then the bars in front of the glass
        glass[: max(1, height // 8)] *= 0.45
        glass[:, : max(1, width // 10)] *= 0.6
        bar = max(1, rim // 2)
        for bars in (
            glass[:, width // 2 - bar : width // 2 + bar],
            glass[height // 3 : height // 3 + 2 * bar],
        ):
            bars[:] = np.array(PAINT["trim"]) * 0.95

    def draw_balcony(self, canvas: Canvas, box: Box) -> None:
        """Paint a slab with iron railings, with the facade visible between them."""
        left, _, right, bottom = box
        canvas.shadow((left + 0.01, bottom, right + 0.015, bottom + 0.05), 0.5)
        behind = canvas.view(box).copy() * 0.8
        view = canvas.paint("balcony", box, "iron")
        pitch = max(4, canvas.size // 20)
        gaps = np.arange(view.shape[1]) % pitch >= max(1, pitch // 3)
        rail = max(2, canvas.size // 40)
        view[rail:, gaps] = behind[rail:, gaps]
        view[-max(2, view.shape[0] // 6) :] = np.array(PAINT["stone"]) * 1.15

    def draw_entrance(self, canvas: Canvas, cell: Box, door: bool) -> None:
        """Paint a cell of the ground floor: the door, a shop, or a plain window."""
        left, top, right, bottom = cell
        width = right - left
        if door:
            x0, x1 = left + 0.24 * width, right - 0.24 * width
            self.draw_ledge(canvas, "moulding", (x0 - 0.02, top + 0.012, x1 + 0.02, top + 0.034))
            view = canvas.paint("door", (x0, top + 0.034, x1, bottom), "wood")
            canvas.edge(view, 0.25)
            middle, fifth = view.shape[1] // 2, view.shape[0] // 5
            view[:fifth] = np.array(PAINT["glass"]) * 1.7
            view[fifth : fifth + 2] *= 0.5
            view[fifth:, middle - 1 : middle + 1] *= 0.45
        elif self.shop:
            self.draw_window(
                canvas, (left + 0.06 * width, top + 0.05, right - 0.06 * width, bottom - 0.025), "shop"
            )
            awning = canvas.view((left + 0.03 * width, top + 0.03, right - 0.03 * width, top + 0.075))
            stripes = np.arange(awning.shape[1]) // max(3, canvas.size // 24) % 2
            awning[:] = np.where(stripes[None, :, None], np.array(PAINT["trim"]), np.array(PAINT["awning"]))
            awning *= np.linspace(1.05, 0.75, awning.shape[0])[:, None, None]
            canvas.shadow((left + 0.04 * width, top + 0.075, right - 0.03 * width, top + 0.105), 0.4)
        else:
            inset = width * (1 - self.window_width) / 2
            self.draw_window(canvas, (left + inset, top + 0.04, right - inset, bottom - 0.06))
            self.draw_ledge(
                canvas, "sill", (left + inset - 0.01, bottom - 0.06, right - inset + 0.01, bottom - 0.046)
            )
