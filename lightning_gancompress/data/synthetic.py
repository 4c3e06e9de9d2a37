"""Generated facades as data sets, for the quick starts, tests and notebooks."""

import json
import os
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from lightning_gancompress.data.datasets import Direction
from lightning_gancompress.data.facades import render_facade
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.layout import describe_folder
from lightning_gancompress.data.options import check_least
from lightning_gancompress.data.paired import PairedDataModule
from lightning_gancompress.data.unpaired import UnpairedDataModule
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import discard, draft_of

VERSION = 1  # of the pictures; to be raised when the renderer changes
MANIFEST = "facades.json"


class FacadeFolder:
    """A folder of generated facades: one within `root` for each choice of settings.

    Nothing is ever replaced or removed.

    Args:
        root: Folder of generated facades alone; created if it is missing.
        counts: Pictures per split.
        size: Pixels per side.
        seed: Seed of the pictures.
        paired: Whether a folder per split has photo | labels side by side; else ``splitA`` has the labels of
            some buildings and ``splitB`` the photos of others.
    """

    def __init__(self, root: Path, counts: dict[str, int], size: int, seed: int, paired: bool = True) -> None:
        if size < 32:
            raise UserError(f"size is {size}, too small to draw a facade: use at least 32 pixels.")
        self.root, self.counts, self.size, self.seed, self.paired = root, counts, size, seed, paired
        self.manifest = {"version": VERSION, "size": size, "seed": seed, "counts": counts}
        if not paired:
            self.manifest["paired"] = False

    @property
    def folder(self) -> Path:
        """The folder of these settings; `root` itself where an earlier release has written them there."""
        if read_manifest(self.root) == self.manifest:
            return self.root
        kind, counts = "facades" if self.paired else "domains", "-".join(map(str, self.counts.values()))
        return self.root / f"{kind}-v{VERSION}-{self.size}px-seed{self.seed}-{counts}"

    def prepare(self) -> None:
        """Write the pictures, unless the folder holds them already.

        Raises:
            UserError: The root holds something else, or can't be written.
        """
        folder = self.folder
        if read_manifest(folder) == self.manifest:
            return
        self._require_own()
        draft = draft_of(folder)
        try:
            self.write(draft)
            draft.rename(folder)
        except OSError as error:
            # another process may have written the folder meanwhile
            if read_manifest(folder) != self.manifest:
                raise UserError(f"Facades can't be written to {folder}: {error}.") from error
        finally:
            discard(draft)
            with suppress(OSError):  # it holds facades
                self.root.rmdir()

    def _require_own(self) -> None:
        """Raise a UserError if the root holds anything but generated facades."""
        if not os.path.lexists(self.root):
            return
        own = self.root.is_dir() and all(
            path.name.startswith(".draft-") or is_manifest(read_manifest(path))
            for path in self.root.iterdir()
        )
        if not own and not is_manifest(read_manifest(self.root)):
            raise UserError(
                f"Generated facades need a folder of their own, but {describe_folder(self.root)}: set "
                "data.root to a new folder."
            )

    def write(self, folder: Path) -> None:
        """Render all splits into a folder."""
        index = 0
        for split, count in self.counts.items():
            for name in [split] if self.paired else [f"{split}A", f"{split}B"]:
                (folder / name).mkdir(parents=True)
                for _ in range(count):
                    photo, label = render_facade(self.size, self.seed, index)
                    if self.paired:
                        picture = side_by_side(photo, label)
                    else:
                        picture = label if name.endswith("A") else photo
                    picture.save(folder / name / f"{index:04}.png", compress_level=1)
                    index += 1
        (folder / MANIFEST).write_text(json.dumps(self.manifest, indent=2))


def read_manifest(folder: Path) -> Any:
    """The content of a folder's manifest; None without one."""
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError):
        return None


def is_manifest(content: Any) -> bool:
    """Whether the content of a file is that of a manifest, of any settings."""
    return isinstance(content, dict) and {"version", "size", "seed", "counts"} <= content.keys()


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Join two images of one size."""
    pair = Image.new("RGB", (2 * left.width, left.height))
    pair.paste(left, (0, 0))
    pair.paste(right, (left.width, 0))
    return pair


@dataclass(eq=False, repr=False)
class FacadesDataModule(ImageDataModule):
    """Generated facades, with texture, light and noise; no download.

    They are written once; the same seed gives the same pictures.

    Args:
        root: Folder to write to, created if it is missing; within it each choice of settings has its own.
        n_train: Training pairs, or images of each domain.
        n_val: The same for validation.
        n_test: The same for the test.
        size: Pixels per side.
        load_size: Pixels to which training images are resized before the crop; None keeps `size`.
        seed: Seed of the pictures, their order and augmentation.
    """

    root: str = "data/facades_synthetic"
    n_train: int = 200
    n_val: int = 24
    n_test: int = 24
    size: int = 64
    _: KW_ONLY
    batch_size: int = 4
    load_size: int | None = None
    crop_size: int = field(init=False)  # that of the pictures
    paired: ClassVar[bool]

    def __post_init__(self) -> None:
        self.crop_size = self.size
        check_least(1, n_train=self.n_train, n_val=self.n_val, n_test=self.n_test)
        super().__post_init__()
        counts = {"train": self.n_train, "val": self.n_val, "test": self.n_test}
        self.facades = FacadeFolder(self.folder, counts, self.size, self.seed, self.paired)
        self.folder = self.facades.folder

    def prepare_data(self) -> None:
        """Write the pictures, unless the folder holds them already."""
        self.facades.prepare()
        self._files.clear()


@dataclass(eq=False, repr=False)
class SyntheticFacades(FacadesDataModule, PairedDataModule):
    """Generated facades: pairs of label maps and photos with texture, light and noise; no download.

    Written once as `{train,val,test}/*.png` in a folder of `root`, with A (photo) | B (labels) side by side.

    Args:
        direction: BtoA translates labels to photos.
    """

    _: KW_ONLY
    direction: Direction = "BtoA"
    paired = True


@dataclass(eq=False, repr=False)
class SyntheticUnpairedFacades(FacadesDataModule, UnpairedDataModule):
    """The facades of `SyntheticFacades` as two domains: label maps, and photos of other buildings.

    Written once as `{train,val,test}{A,B}/*.png` in a folder of `root`, A are label maps.
    """

    root: str = "data/facades_unpaired"
    paired = False
