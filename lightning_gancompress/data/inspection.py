"""A look at some images of a run before it begins."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lightning_gancompress.data.datasets import FileDataset, SampleDataset, SourceDataset
from lightning_gancompress.data.labels import VOID, LabelReader, is_grey
from lightning_gancompress.data.listing import evenly
from lightning_gancompress.data.options import IMAGE_MODES
from lightning_gancompress.data.reading import ImageError
from lightning_gancompress.data.transforms import ImageReader

INSPECTED = 16  # images of a split that are looked at
DARK = 64  # pictures have brighter pixels; index maps of more classes are rarely taken for pictures


def inspect(dataset: SampleDataset) -> list[str]:
    """Look at some images of a data set of files, evenly spread, before a run begins.

    Returns:
        A sentence for each side whose pictures seem to be index maps.

    Raises:
        ImageError: A label map of a training or an evaluation can't be used.
    """
    found: list[str] = []
    if not isinstance(dataset, FileDataset):
        return found
    for key, side in dataset.sides.items():
        largest = 0
        for index in evenly(range(len(dataset)), INSPECTED):
            try:
                image, path = dataset.images(index)[key]
                if isinstance(side, LabelReader):
                    side.check(image, path)
                    continue
            except ImageError:
                if isinstance(side, LabelReader) and not isinstance(dataset, SourceDataset):
                    raise
                continue  # told when it is read, of sources when all others are translated
            if (largest := max(largest, _brightest(side, image))) >= DARK:
                break
        if 0 < largest < DARK:
            found.append(
                f"The images of {key}, such as {path}, are nearly black, grey with values up to {largest}: "
                f"if they are label maps, set data.{side.option} to "
                f"{{encoding: palette, classes: {largest + 1}}}, or to one_hot."
            )
    return found


def _brightest(side: ImageReader, image: Image.Image) -> int:
    """The largest value of a grey picture, besides that of pixels without class; 255 for one with colours."""
    values = np.asarray(image.convert(IMAGE_MODES[side.channels]))
    return int(values[values != VOID].max(initial=0)) if is_grey(values) else VOID
