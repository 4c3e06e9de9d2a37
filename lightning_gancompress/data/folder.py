"""The data module of images without targets."""

from __future__ import annotations

from pathlib import Path

from lightning_gancompress.data.contract import GENERATOR, Split
from lightning_gancompress.data.datasets import Files, Images
from lightning_gancompress.data.holdout import check_holdout, held_out
from lightning_gancompress.data.images import ImageDataModule
from lightning_gancompress.data.layout import find_domains, list_images
from lightning_gancompress.data.transforms import Preprocess, Preprocessing
from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks.role import Role


class FolderDataModule(ImageDataModule):
    """Source images alone, for a network that is compressed against its own outputs.

    Batches: ``{"source": (B, C, H, W) in [-1, 1], "index": (B,) position in the split, "path": list}``.

    Args:
        root: Folder with images, or with folders ``train``, ``val`` and ``test`` of images.
        batch_size: Training images per step and process.
        search_batch_size: The same while neighbourhoods are sampled; a multiple of their members.
        load_size: Pixels to which training images are resized before the crop.
        crop_size: Pixels of what the network sees.
        preprocess: As the option of the same name in pytorch-CycleGAN-and-pix2pix; ``none`` only rounds
            sizes to a multiple of 4.
        flip: Whether half of the training images are mirrored.
        in_channels: 1 makes the images greyscale, 3 RGB.
        holdout: Share of the images that is kept from training for validation and test, where there are no
            folders for these; the same images for the same file names. 0 validates on the training images.
        val_split: Folder name of the validation split; ``test_split`` where it is missing.
        test_split: Folder name of the test split; ``val_split`` where it is missing.
        max_train: Train on the first so many images only.
        num_workers: Processes that load images, per loader.
        seed: Of order and augmentation.
        eval_batch_size: Images per step in validation, test and prediction.
        predict_folder: Source images for prediction.
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 1,
        search_batch_size: int = 8,
        load_size: int = 286,
        crop_size: int = 256,
        preprocess: Preprocess = "resize_and_crop",
        flip: bool = True,
        in_channels: int = 3,
        holdout: float = 0.1,
        val_split: str = "val",
        test_split: str = "test",
        max_train: int | None = None,
        num_workers: int = 2,
        seed: int = 0,
        eval_batch_size: int = 8,
        predict_folder: str | None = None,
    ) -> None:
        super().__init__(
            root,
            Preprocessing(preprocess, load_size, crop_size, flip),
            {"in_channels": in_channels},
            batch_size=batch_size,
            search_batch_size=search_batch_size,
            eval_batch_size=eval_batch_size,
            splits=(val_split, test_split),
            max_train=max_train,
            num_workers=num_workers,
            seed=seed,
            predict_folder=predict_folder,
        )
        check_holdout(holdout)
        self.holdout = holdout

    def find(self, split: Split) -> dict[Role, Files]:
        """Files of the split's folder, or its share of all.

        Raises:
            UserError: The folder holds two domains, or too few images to hold some out.
        """
        folders = {name: list_images(self.root / name) for name in ("train", *self.splits["val"])}
        found = next((files for name in self.splits[split] if (files := folders[name])), [])
        if not any(folders[name] for name in self.splits["val"]):
            found = self._share(folders["train"] or self._all_images(), split)
        return {GENERATOR: [(path,) for path in found]} if found else {}

    def _all_images(self) -> list[Path]:
        if domains := find_domains(self.root, "train"):
            raise UserError(
                f"{self.root} holds images of two domains: set data.root to the folder of one, such as "
                f"{domains[0]}, or use UnpairedDataModule."
            )
        return list_images(self.root)

    def _share(self, paths: list[Path], split: Split) -> list[Path]:
        """What of the images is for training or, held out by a digest of their names, for the rest."""
        if not self.holdout:
            return paths
        held = held_out([str(path.relative_to(self.root)) for path in paths], self.holdout)
        return [path for position, path in enumerate(paths) if (position in held) != (split == "train")]

    def layouts(self, split: str) -> str:
        """Where `find` looks for a split, in words."""
        return "images in it, or images without such folders"

    def dataset(self, role: Role, files: Files, seed: int | None) -> Images:
        """Make the data set of a role; ``seed`` is None for images as evaluation sees them."""
        return Images(files, self.view, self.channels["in_channels"], seed)
