"""The data module of paired images."""

from dataclasses import KW_ONLY, dataclass
from itertools import chain

from lightning_gancompress.data.contract import GENERATOR, PreprocessingRecord, Split
from lightning_gancompress.data.datasets import Direction, Files, PairDataset
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.labels import Labels, reader_of, require_pictures
from lightning_gancompress.data.layout import (
    Layout,
    domain_layouts,
    find_pairs,
    pairs_in,
    require_side_by_side,
)
from lightning_gancompress.data.options import FileChannels
from lightning_gancompress.data.transforms import ImageReader
from lightning_gancompress.tasks.role import Role


@dataclass(eq=False, repr=False)
class PairedDataModule(ImageDataModule):
    """Pairs of images in the layouts, with the preprocessing and defaults, of pytorch-CycleGAN-and-pix2pix.

    Args:
        root: Folder with `train`, `val` and `test`, each holding images A | B side by side, or two folders
            each: `trainA` and `trainB`, `train/A` and `train/B`, or `A/train` and `B/train`, paired by file
            name.
        direction: AtoB translates A (the left half) to B.
        in_channels: 1 makes the source greyscale, 3 RGB.
        labels: The sources, by `direction`, are label maps, which are encoded and never interpolated; None
            for pictures.
        out_channels: As in_channels, for the target.
        target_labels: As labels, for the target, to translate photos to label maps; `palette` or `colors`.
        layout: Where A and B are: `side_by_side` in each picture, or in `folders` of their own; `auto` takes
            what it finds, if that can mean one thing only.
    """

    _: KW_ONLY
    direction: Direction = "AtoB"
    out_channels: FileChannels = 3
    target_labels: Labels | None = None
    layout: Layout = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_pictures(self.target_labels, "target_labels", "a generator makes pictures")
        self.targets = reader_of(self.out_channels, self.target_labels, "target_labels")
        self._judged = False

    @property
    def readers(self) -> list[ImageReader]:
        """How sources and targets are read."""
        return [self.sources, self.targets]

    @property
    def preprocessing(self) -> PreprocessingRecord:
        """The preprocessing of images before a generator reads them."""
        return {"direction": self.direction, **super().preprocessing}

    def find(self, split: Split, name: str) -> dict[Role, Files]:
        """Pairs of files (A, B).

        Raises:
            UserError: The layout is not clear.
        """
        if folders := find_pairs(self.folder, name, self.layout):
            if folders[0] == folders[1] and self.layout == "auto":
                self._require_side_by_side()
            return {GENERATOR: pairs_in(folders)}
        return {}

    def _require_side_by_side(self) -> None:
        """Judge the pictures of all splits once."""
        if not self._judged:
            names = dict.fromkeys(chain(*self.splits.values()))
            found = ((name, find_pairs(self.folder, name)) for name in names)
            require_side_by_side(self.folder, [name for name, both in found if both and both[0] == both[1]])
            self._judged = True

    def layouts(self, split: str) -> str:
        """The layouts in which `find` looks for a split, as text."""
        return f"images A | B side by side, {domain_layouts(split)}"

    def dataset(self, role: Role, files: Files, seed: int | None) -> PairDataset:
        """The data set of a role; ``seed`` is None for no augmentation."""
        return PairDataset(files, self.options, self.direction, (self.sources, self.targets), seed)
