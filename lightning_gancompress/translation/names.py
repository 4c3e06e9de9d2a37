"""Names of files of translated pictures."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from lightning_gancompress.data.reading import endings
from lightning_gancompress.files import fitting


class PictureNames:
    """Names files of translated pictures like their sources.

    Subfolders are kept. If two sources in a folder differ by the suffix only (`a.jpg`, `a.png`), it becomes
    part of the name (`a.jpg.png`). Of a name that would be too long the end is replaced by a digest.
    """

    def __init__(self) -> None:
        self._taken: dict[Path, Counter[str]] = {}

    def name(self, path: Path, sources: Path | None) -> Path:
        """The PNG file to write for the source `path`, relative to the folder of results.

        Args:
            path: The source image.
            sources: Folder of the sources, to which paths are relative, or the one source; paths outside it
                are kept whole, so that files never collide.
        """
        root = sources.parent if sources is not None and sources.is_file() else sources
        path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links out of the folder
        parent = path.parent.relative_to(path.anchor)
        if root is not None and path.is_relative_to(folder := os.path.abspath(root)):  # noqa: PTH100
            parent = path.parent.relative_to(folder)
        if path.parent not in self._taken:
            names = [Path(name) for name in os.listdir(path.parent)] if path.parent.is_dir() else []  # noqa: PTH208
            images = [name for name in names if name.suffix.lower() in endings()]
            # a name is taken too: `a.jpg.png` beside `a.jpg` and `a.png`; case is one on many disks
            self._taken[path.parent] = Counter(
                word.lower() for image in images for word in (image.stem, image.name)
            )
        alone = self._taken[path.parent][path.stem.lower()] <= 1
        return parent / fitting(path.stem if alone else path.name, ".png")
