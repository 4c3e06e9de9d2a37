"""The data module of paired images."""

from dataclasses import KW_ONLY, dataclass
from itertools import chain

from lightning_gancompress.data.contract import GENERATOR, PreprocessingRecord, Split
from lightning_gancompress.data.datasets import Direction, Files, PairDataset
from lightning_gancompress.data.halves import Verdict, judge_halves
from lightning_gancompress.data.holdout import part_of
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.labels import Labels, reader_of, require_pictures
from lightning_gancompress.data.layout import (
    UNDIVIDED,
    Layout,
    Naming,
    domain_layouts,
    find_pairs,
    own_folders,
    require_side_by_side,
    require_undivided,
)
from lightning_gancompress.data.listing import list_images
from lightning_gancompress.data.options import FileChannels
from lightning_gancompress.data.pairing import Sides, pairs_in, sides_of
from lightning_gancompress.data.transforms import ImageReader
from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Share
from lightning_gancompress.tasks.role import Role


@dataclass(eq=False, repr=False)
class PairedDataModule(ImageDataModule):
    """Pairs of images, with the preprocessing and defaults of pytorch-CycleGAN-and-pix2pix.

    A and B are paired by name, whatever their endings. Names that all end in something of their own, as in
    `house.jpg` and `house_L.png`, are recognised.

    Args:
        root: Folder with `train`, `val` and `test`, each holding images A | B side by side, two folders, or
            both in one. The folders are `A` and `B`, or have names such as `images` and `labels`, `input` and
            `target`; they lie in those of the splits, around these (`images/train`), or have their names
            before theirs (`trainA`, `train_images`). Without splits a share of all is held out.
        direction: AtoB translates A (the left half) to B. Images, photos, inputs and sources are A.
        in_channels: 1 makes the source greyscale, 3 RGB.
        labels: The sources, by `direction`, are label maps, which are encoded and never interpolated; None
            for pictures.
        out_channels: As in_channels, for the target.
        target_labels: As labels, for the target, to translate photos to label maps; `palette` or `colors`.
        layout: Where A and B are: `side_by_side` in each picture, or in `folders` of their own; `auto` takes
            what it finds, if that can mean one thing only.
        source_folder: Folder of the sources, whatever `direction` says, for folders of other names: within
            each split, around the splits, or with `{split}` in its name (`{split}annot`).
        target_folder: The same for the targets; both are given or none.
        source_suffix: What the names of the sources end in, such as `_L` or `.png`, if it is not recognised.
        target_suffix: The same for the targets.
        holdout: Share of the pairs that is held out for validation, and again for the test, if there are no
            folders of splits; the same pairs for the same names. 0 has all pairs in each.
    """

    _: KW_ONLY
    direction: Direction = "AtoB"
    out_channels: FileChannels = 3
    target_labels: Labels | None = None
    layout: Layout = "auto"
    source_folder: str | None = None
    target_folder: str | None = None
    source_suffix: str | None = None
    target_suffix: str | None = None
    holdout: Share = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_pictures(self.target_labels, "target_labels", "a generator makes pictures")
        self.targets = reader_of(self.out_channels, self.target_labels, "target_labels")
        folders = own_folders(self.source_folder, self.target_folder)
        suffixes = self.source_suffix or "", self.target_suffix or ""
        if self.direction == "BtoA":
            folders, suffixes = folders and folders[::-1], suffixes[::-1]
        self.naming = Naming(folders, suffixes)
        if self.layout == "side_by_side" and self.naming != Naming():
            raise UserError(
                "data.layout is side_by_side, which has sources and targets in the same files: leave "
                "source_folder, target_folder, source_suffix and target_suffix out, or layout."
            )
        self._verdict: Verdict | None = None

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
            UserError: The layout is not clear, or an image has no partner.
        """
        sides = self._sides(name)
        return {GENERATOR: pairs_in(sides)} if sides else {}

    def undivided(self, split: Split) -> dict[Role, Files]:
        """The share of a split, where no folders divide the pairs."""
        if any(find_pairs(self.folder, name, self.layout, self.naming) for name in self._split_names):
            return {}
        if not (sides := self._sides(UNDIVIDED)):
            return {}
        require_undivided(side.folder for side in sides)
        pairs = pairs_in(sides)
        names = [str(a.relative_to(sides[0].folder).with_suffix("")) for a, _ in pairs]
        return {GENERATOR: [pairs[position] for position in part_of(names, self.holdout, split)]}

    @property
    def _split_names(self) -> list[str]:
        return list(dict.fromkeys(chain(*self.splits.values())))

    def _sides(self, name: str) -> Sides | None:
        """A and B of a split; those in the same folder are told apart by their looks or their names."""
        sides = find_pairs(self.folder, name, self.layout, self.naming)
        if sides is None or sides[0] != sides[1] or self.layout != "auto":
            return sides
        names = [UNDIVIDED]
        if name != UNDIVIDED:
            found = ((name, find_pairs(self.folder, name, "auto", self.naming)) for name in self._split_names)
            names = [name for name, both in found if both and both[0] == both[1]]
        if self._verdict is None:  # of all splits together
            self._verdict = judge_halves(list(chain(*(list_images(self.folder / name) for name in names))))
        if self._verdict != "pairs" and (apart := sides_of(sides[0].folder)):
            return apart
        require_side_by_side(self.folder, names, self._verdict)
        return sides

    def layouts(self, split: str) -> str:
        """The layouts in which `find` looks for a split, as text."""
        if self.naming.folders is not None:
            return domain_layouts(split, self.naming.folders)
        return (
            f"images A | B side by side, {domain_layouts(split)}, or such folders called images and labels "
            "(data.source_folder and data.target_folder name others)"
        )

    def dataset(self, role: Role, files: Files, seed: int | None) -> PairDataset:
        """The data set of a role; ``seed`` is None for no augmentation."""
        return PairDataset(files, self.options, self.direction, (self.sources, self.targets), seed)
