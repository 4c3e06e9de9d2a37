"""Label files of test images, in full resolution."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_gancompress.data.labels import read_indices
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path


class LabelFiles:
    """Finds and reads the label file of each test image; for their names see `SegmentationScore`.

    Args:
        folder: Folder of the label files, searched recursively.
        table: Text file of image and label file per line; None if the names correspond.
    """

    def __init__(self, folder: Path, table: str | None = None) -> None:
        self.folder = folder
        self.table: dict[str, str] = {}
        self._paths: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*rainIds.png")):
            self._paths[path.name].append(path)
        if not self._paths:
            raise UserError(f"labels: there is no *_trainIds.png in {folder} or below: check the folder.")
        if table is not None:
            try:
                lines = [line.split() for line in user_path(table).read_text().splitlines() if line.strip()]
                self.table = {Path(image).stem: Path(file).name for image, file, *_ in lines}
            except (OSError, ValueError) as error:
                raise UserError(
                    f"label_table: {table} can't be used ({error}): give a text file with an image and its "
                    "label file per line."
                ) from error

    def find(self, image: str) -> Path:
        """Path of the label file of an image.

        Raises:
            UserError: The folder has no such file, or several.
        """
        scene = Path(image).stem.removesuffix("_leftImg8bit")
        endings = ("_trainIds", "_gtFine_trainIds", "_gtFine_labelTrainIds")
        names = [self.table[scene]] if scene in self.table else [f"{scene}{end}.png" for end in endings]
        for paths in (self._paths[name] for name in names if name in self._paths):
            if len(paths) > 1:
                raise UserError(
                    f"labels: the label file of the test image {image} can be {paths[0]} or {paths[1]}: name "
                    "the folder of the test's label files."
                )
            return paths[0]
        raise UserError(
            f"labels: {self.folder} has none of {', '.join(names)} for the test image {image}: check the "
            "folder, or name the label file of each image in a label_table."
        )

    def read(self, image: str) -> Tensor:
        """Labels (h, w) int64 of an image: the class of each pixel, 255 for none."""
        return torch.from_numpy(np.array(read_indices(self.find(image)))).long()
