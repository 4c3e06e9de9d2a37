"""Label files of full resolution, found by the names of test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_gancompress.data.transforms import read_image
from lightning_gancompress.errors import UserError


class LabelFiles:
    """The label file of each test image: see `SegmentationScore`.

    Args:
        folder: Where they are, at any depth.
        table: Text file that names them by image, None where their names tell.
    """

    def __init__(self, folder: Path, table: str | None = None) -> None:
        self.folder = folder
        self.table: dict[str, str] = {}
        self._paths = {path.name: path for path in sorted(folder.rglob("*rainIds.png"))}
        if not self._paths:
            raise UserError(f"labels: there is no *_trainIds.png in {folder} or below: check the folder.")
        if table is not None:
            try:
                lines = [line.split() for line in Path(table).read_text().splitlines() if line.strip()]
                self.table = {Path(image).stem: Path(file).name for image, file, *_ in lines}
            except (OSError, ValueError) as error:
                raise UserError(
                    f"label_table: {table} can't be used ({error}): give a text file with an image and its "
                    "label file per line."
                ) from error

    def find(self, image: str) -> Path:
        """Path of the label file of an image.

        Raises:
            UserError: There is none.
        """
        scene = Path(image).stem.removesuffix("_leftImg8bit")
        endings = ("_trainIds", "_gtFine_trainIds", "_gtFine_labelTrainIds")
        names = [self.table[scene]] if scene in self.table else [f"{scene}{end}.png" for end in endings]
        for name in names:
            if name in self._paths:
                return self._paths[name]
        raise UserError(
            f"labels: {self.folder} has none of {', '.join(names)} for the test image {image}: check the "
            "folder, or name the label file of each image in a label_table."
        )

    def read(self, image: str) -> Tensor:
        """Labels (h, w) of an image."""
        return torch.from_numpy(np.array(read_image(self.find(image)).convert("L"))).long()
