"""Types of options of image files."""

from typing import Annotated, Any

from lightning_gancompress.options import Pixels

IMAGE_MODES = {1: "L", 3: "RGB"}  # of Pillow, by channels


class OfImageFiles:
    """Requires a number of channels that image files have."""

    def accepts(self, value: Any) -> bool:
        """Whether image files have so many channels."""
        return value in IMAGE_MODES

    def __str__(self) -> str:
        return (
            "out of 1 (greyscale) and 3 (RGB), or set data.labels for label maps, or use DatasetDataModule "
            "with a data set of your own"
        )


FileChannels = Annotated[int, OfImageFiles()]
Sides = Pixels | tuple[Pixels, Pixels]  # of a square, or height and width


def both(sides: Sides) -> tuple[int, int]:
    """Height and width of an option."""
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


def recorded(sides: Sides) -> int | list[int]:
    """A size as checkpoints record it, in plain types: the side of a square, or height and width."""
    height, width = both(sides)
    return height if height == width else [height, width]
