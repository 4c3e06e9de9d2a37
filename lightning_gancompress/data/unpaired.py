"""The data module of two domains of images without pairs."""

import os
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from lightning_gancompress.data.contract import Split
from lightning_gancompress.data.datasets import Files, ImageDataset
from lightning_gancompress.data.holdout import part_of
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.labels import Labels, reader_of, require_pictures
from lightning_gancompress.data.layout import (
    UNDIVIDED,
    domain_layouts,
    find_domains,
    own_folders,
    require_undivided,
)
from lightning_gancompress.data.listing import describe_folder, list_images
from lightning_gancompress.data.options import FileChannels
from lightning_gancompress.data.transforms import ImageReader
from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Share
from lightning_gancompress.tasks.role import Role

Domain = Literal["A", "B"]
DOMAINS: dict[Role, Domain] = {Role("generator_AtoB"): "A", Role("generator_BtoA"): "B"}  # of the sources


@dataclass(eq=False, repr=False)
class UnpairedDataModule(ImageDataModule):
    """Two domains of images in the layouts, with the preprocessing, of pytorch-CycleGAN-and-pix2pix.

    In training A and B are sampled, cropped and flipped independently. An epoch has as many images as the
    larger domain; the smaller one is repeated.

    Args:
        root: Folder with `trainA`, `trainB`, `testA`, `testB`; or `train_A` and so on, `train/A` and so on,
            or `A/train` and so on. Of `A` and `B` alone a share is held out.
        in_channels: 1 makes the images of A greyscale, 3 RGB.
        out_channels: The same for B.
        labels: The images of A are label maps, which are never interpolated: `palette` or `colors`; None for
            pictures.
        target_labels: The same for B.
        predict_domain: The domain of the images of `predict_folder`.
        source_folder: Folder of A if it has another name, such as `horses`: within each split, around the
            splits, or with `{split}` in its name (`{split}_horses`).
        target_folder: The same for B; both are given or none.
        holdout: Share of each domain that is held out for validation, and again for the test, if there are no
            folders of splits; the same images for the same names. 0 has all images in each.
    """

    _: KW_ONLY
    out_channels: FileChannels = 3
    target_labels: Labels | None = None
    predict_domain: Domain = "A"
    source_folder: str | None = None
    target_folder: str | None = None
    holdout: Share = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, labels in (("labels", self.labels), ("target_labels", self.target_labels)):
            require_pictures(labels, option, "without pairs a generator makes pictures of each domain")
        self.targets = reader_of(self.out_channels, self.target_labels, "target_labels")
        self.own_folders = own_folders(self.source_folder, self.target_folder)

    @property
    def readers(self) -> list[ImageReader]:
        """How sources and targets are read."""
        return [self.sources, self.targets]

    @property
    def predict_reader(self) -> ImageReader:
        """How the images of `predict_folder` are read."""
        return self._reader_of(self.predict_domain)

    def _reader_of(self, domain: Domain) -> ImageReader:
        return self.sources if domain == "A" else self.targets

    def find(self, split: Split, name: str) -> dict[Role, Files]:
        """Files of A and of B.

        Raises:
            UserError: One domain has no images, or the folder holds pairs side by side.
        """
        if folders := find_domains(self.folder, name, self.own_folders):
            return {role: self._domain(split, domain, folders) for role, domain in DOMAINS.items()}
        if list_images(self.folder / name):
            raise UserError(
                f"{self.folder / name} holds images, but no folders A and B: use PairedDataModule if "
                f"they are pairs A | B side by side, or sort them into {name}A and {name}B."
            )
        return {}

    def undivided(self, split: Split) -> dict[Role, Files]:
        """The share of a split of each domain, where no folders divide them."""
        names = dict.fromkeys(chain(*self.splits.values()))
        if any(find_domains(self.folder, name, self.own_folders) for name in names):
            return {}
        if not (folders := find_domains(self.folder, UNDIVIDED, self.own_folders)):
            return {}
        require_undivided(folders)
        found: dict[Role, Files] = {}
        for role, domain in DOMAINS.items():
            files = self._domain(split, domain, folders)
            part = part_of([os.path.relpath(file, self.folder) for (file,) in files], self.holdout, split)
            found[role] = [files[position] for position in part]
        return found

    def _domain(self, split: Split, domain: Domain, folders: tuple[Path, Path]) -> Files:
        folder, other = folders if domain == "A" else reversed(folders)
        if not (files := list_images(folder)):
            raise UserError(
                f"Domain {domain} has no {split} images: there are some in {other}, but "
                f"{describe_folder(folder)}, and {describe_folder(self.folder)}: put images of {domain} into "
                f"{folder}."
            )
        return [(file,) for file in files]

    def layouts(self, split: str) -> str:
        """The layouts in which `find` looks for a split, as text."""
        return f"images in {domain_layouts(split, self.own_folders)}"

    def dataset(self, role: Role, files: Files, seed: int | None) -> ImageDataset:
        """The data set of a role; ``seed`` is None for no augmentation."""
        domain = DOMAINS[role]
        return ImageDataset(files, self.options, self._reader_of(domain), seed, domain)
