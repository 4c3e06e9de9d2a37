"""The data module of images without targets."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from lightning_gancompress.data.contract import GENERATOR, Split
from lightning_gancompress.data.datasets import Files, ImageDataset
from lightning_gancompress.data.holdout import held_out
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.layout import find_domains
from lightning_gancompress.data.listing import list_images
from lightning_gancompress.errors import UserError
from lightning_gancompress.options import Share
from lightning_gancompress.tasks.role import Role


@dataclass(eq=False, repr=False)
class FolderDataModule(ImageDataModule):
    """Source images alone, to compress a network against its own outputs.

    Args:
        root: Folder with images, or with folders `train`, `val` and `test` of images.
        holdout: Share of the images that is held out for validation and test if there are no folders for
            these; the same images for the same file names. 0 validates on the training images.
    """

    _: KW_ONLY
    holdout: Share = 0.1

    def find(self, split: Split, name: str) -> dict[Role, Files]:
        """Files of the split's folder, or its share of all.

        Raises:
            UserError: The folder holds two domains, or too few images to hold some out.
        """
        if any(list_images(self.folder / other) for other in self.splits["val"]):
            paths = list_images(self.folder / name)
        else:
            paths = self._share(list_images(self.folder / "train") or self._all_images(), split)
        return {GENERATOR: [(path,) for path in paths]} if paths else {}

    def _all_images(self) -> list[Path]:
        if domains := find_domains(self.folder, "train"):
            raise UserError(
                f"{self.root} holds images of two domains: set data.root to the folder of one, such as "
                f"{domains[0]}, or use UnpairedDataModule."
            )
        return list_images(self.folder)

    def _share(self, paths: list[Path], split: Split) -> list[Path]:
        """The images of a split: those held out by a digest of their names, or for training the others."""
        if not self.holdout:
            return paths
        held = held_out([str(path.relative_to(self.folder)) for path in paths], self.holdout)
        return [path for position, path in enumerate(paths) if (position in held) != (split == "train")]

    def layouts(self, split: str) -> str:
        """The layouts in which `find` looks for a split, as text."""
        return "images in it, or images without such folders"

    def dataset(self, role: Role, files: Files, seed: int | None) -> ImageDataset:
        """The data set of a role; ``seed`` is None for no augmentation."""
        return ImageDataset(files, self.options, self.sources, seed)
