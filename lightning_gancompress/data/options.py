"""Types of options of image files."""

from typing import Annotated, Any

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
