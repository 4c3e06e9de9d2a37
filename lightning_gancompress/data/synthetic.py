"""Generated facades as data sets, for the quick starts, tests and notebooks."""

import json
import os
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from PIL import Image

from lightning_gancompress.data.contract import RunSeed, Split
from lightning_gancompress.data.datasets import Direction, Files
from lightning_gancompress.data.facades import render_facade
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.layout import Layout
from lightning_gancompress.data.listing import describe_folder
from lightning_gancompress.data.paired import PairedDataModule
from lightning_gancompress.data.unpaired import UnpairedDataModule
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import discard, draft_of
from lightning_gancompress.options import Count, Pixels, Range, Share
from lightning_gancompress.tasks.role import Role

VERSION = 1  # of the pictures; to be raised when the renderer changes
MANIFEST = "facades.json"


class FacadeFolder:
    """A folder of generated facades. Nothing is ever replaced or removed.

    Args:
        root: The folder; created if it is missing. If it holds facades of other settings, a folder within it.
        counts: Pictures per split.
        size: Pixels per side.
        seed: Seed of the pictures.
        paired: Whether a folder per split has photo | labels side by side; else ``splitA`` has the labels of
            some buildings and ``splitB`` the photos of others.
    """

    def __init__(self, root: Path, counts: dict[str, int], size: int, seed: int, paired: bool = True) -> None:
        self.root, self.counts, self.size, self.seed, self.paired = root, counts, size, seed, paired
        self.manifest = {"version": VERSION, "size": size, "seed": seed, "counts": counts}
        if not paired:
            self.manifest["paired"] = False

    @property
    def folder(self) -> Path:
        """The folder of these settings."""
        found = read_manifest(self.root)
        if found == self.manifest or not is_manifest(found):
            return self.root
        kind, counts = "facades" if self.paired else "domains", "-".join(map(str, self.counts.values()))
        return self.root / f"{kind}-v{VERSION}-{self.size}px-seed{self.seed}-{counts}"

    def prepare(self) -> None:
        """Write the pictures, unless the folder holds them already.

        Raises:
            UserError: The folder holds something else, or can't be written.
        """
        folder = self.folder
        if read_manifest(folder) == self.manifest:
            return
        if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
            raise UserError(
                f"Generated facades need a folder of their own, but {describe_folder(folder)}: set "
                "data.root to a new folder."
            )
        draft = draft_of(folder)
        try:
            self.write(draft)
            draft.rename(folder)
        except OSError as error:
            # another process may have written them meanwhile, or others to the root
            if self.folder != folder:
                self.prepare()
            elif read_manifest(folder) != self.manifest:
                raise UserError(f"Facades can't be written to {folder}: {error}.") from error
        finally:
            discard(draft)

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
        root: Folder to write to, created if it is missing; if it holds facades of other settings, a folder
            within it.
        n_train: Training pairs, or images of each domain.
        n_val: The same for validation.
        n_test: The same for the test.
        size: Pixels per side.
        load_size: Pixels to which training images are resized before the crop; None keeps `size`.
        seed: Seed of the pictures, their order and augmentation; None has the pictures of 0, in the order
            of the run's seed.
    """

    root: str = "data/facades_synthetic"
    n_train: Count = 200
    n_val: Count = 24
    n_test: Count = 24
    size: Annotated[int, Range(32, 2**16)] = 64
    _: KW_ONLY
    batch_size: Count = 4
    load_size: Pixels | None = None
    crop_size: Pixels = field(init=False)  # that of the pictures
    paired: ClassVar[bool]

    def __post_init__(self) -> None:
        self.crop_size = self.size
        super().__post_init__()
        counts = {"train": self.n_train, "val": self.n_val, "test": self.n_test}
        seed = 0 if self.seed is None or isinstance(self.seed, RunSeed) else self.seed
        self.facades = FacadeFolder(self.folder, counts, self.size, seed, self.paired)

    def prepare_data(self) -> None:
        """Write the pictures, unless the folder holds them already."""
        self.facades.prepare()
        self.folder = self.facades.folder
        self._files.clear()

    def files(self, split: Split) -> dict[Role, Files]:
        """The files of each sample of a split, where the pictures of these settings lie."""
        self.folder = self.facades.folder
        return super().files(split)


@dataclass(eq=False, repr=False)
class SyntheticFacades(FacadesDataModule, PairedDataModule):
    """Generated facades: pairs of label maps and photos with texture, light and noise; no download.

    Written once as `root/{train,val,test}/*.png` with A (photo) | B (labels) side by side.

    Args:
        direction: BtoA translates labels to photos.
    """

    _: KW_ONLY
    direction: Direction = "BtoA"
    layout: Layout = field(default="side_by_side", init=False)
    source_folder: str | None = field(default=None, init=False)
    target_folder: str | None = field(default=None, init=False)
    source_suffix: str | None = field(default=None, init=False)
    target_suffix: str | None = field(default=None, init=False)
    holdout: Share = field(default=0.1, init=False)
    paired = True


@dataclass(eq=False, repr=False)
class SyntheticUnpairedFacades(FacadesDataModule, UnpairedDataModule):
    """The facades of `SyntheticFacades` as two domains: label maps, and photos of other buildings.

    Written once as `root/{train,val,test}{A,B}/*.png`, A are label maps.
    """

    root: str = "data/facades_unpaired"
    _: KW_ONLY
    source_folder: str | None = field(default=None, init=False)
    target_folder: str | None = field(default=None, init=False)
    holdout: Share = field(default=0.1, init=False)
    paired = False
