"""The data module of two domains of images without pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lightning_gancompress.data.contract import Split
from lightning_gancompress.data.datasets import Files, Images
from lightning_gancompress.data.images import ImageDataModule
from lightning_gancompress.data.layout import describe_folder, domain_layouts, find_domains, list_images
from lightning_gancompress.data.transforms import Preprocess, Preprocessing
from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks.role import Role

Domain = Literal["A", "B"]
# whose images a generator reads
DOMAINS: dict[Role, Domain] = {
    Role("generator_AtoB"): "A",
    Role("generator_BtoA"): "B",
}
CHANNELS = {"A": "in_channels", "B": "out_channels"}


class UnpairedDataModule(ImageDataModule):
    """Two domains of images in the layouts, with the preprocessing, of pytorch-CycleGAN-and-pix2pix.

    Training batches: ``{"A", "B": (B, C, H, W) in [-1, 1], "index_A", "index_B": (B,) positions in the split,
    "path_A", "path_B": list}``; A and B are drawn, cropped and flipped independently. An epoch lasts as long
    as the larger domain, the smaller one starts over. Evaluation has two loaders, the batches of the first
    hold A only, of the second B only.

    Args:
        root: Folder with ``trainA``, ``trainB``, ``testA``, ``testB``; or ``train_A`` and so on, ``train/A``
            and so on, or ``A/train`` and so on.
        batch_size: Training images of each domain per step and process.
        search_batch_size: The same while neighbourhoods are sampled; a multiple of their members.
        load_size: Pixels to which training images are resized before the crop.
        crop_size: Pixels of what the networks see.
        preprocess: As the option of the same name there; ``none`` only rounds sizes to a multiple of 4.
        flip: Whether half of the training images are mirrored.
        in_channels: 1 makes the images of A greyscale, 3 RGB.
        out_channels: The same for B.
        val_split: Folder name of the validation split; ``test_split`` where it is missing.
        test_split: Folder name of the test split; ``val_split`` where it is missing.
        max_train: Train on the first so many images of each domain only.
        num_workers: Processes that load images, per loader.
        seed: Of order and augmentation.
        eval_batch_size: Images per step in validation, test and prediction.
        predict_folder: Source images for prediction.
        predict_domain: Of these images.
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
        out_channels: int = 3,
        val_split: str = "val",
        test_split: str = "test",
        max_train: int | None = None,
        num_workers: int = 2,
        seed: int = 0,
        eval_batch_size: int = 8,
        predict_folder: str | None = None,
        predict_domain: Domain = "A",
    ) -> None:
        super().__init__(
            root,
            Preprocessing(preprocess, load_size, crop_size, flip),
            {"in_channels": in_channels, "out_channels": out_channels},
            batch_size=batch_size,
            search_batch_size=search_batch_size,
            eval_batch_size=eval_batch_size,
            splits=(val_split, test_split),
            max_train=max_train,
            num_workers=num_workers,
            seed=seed,
            predict_folder=predict_folder,
        )
        self.predict_domain = predict_domain

    @property
    def predict_channels(self) -> int:
        """Channels of the images of ``predict_folder``."""
        return self.channels[CHANNELS[self.predict_domain]]

    def find(self, split: Split) -> dict[Role, Files]:
        """Files of A and of B.

        Raises:
            UserError: One domain has none, or the folder holds pairs side by side.
        """
        for name in self.splits[split]:
            if folders := find_domains(self.root, name):
                return {role: self._domain(split, domain, folders) for role, domain in DOMAINS.items()}
            if list_images(self.root / name):
                raise UserError(
                    f"{self.root / name} holds images, but no folders A and B: use PairedDataModule if they "
                    f"are pairs A | B side by side, or sort them into {name}A and {name}B."
                )
        return {}

    def _domain(self, split: Split, domain: Domain, folders: tuple[Path, Path]) -> Files:
        folder, other = folders if domain == "A" else reversed(folders)
        if not (files := list_images(folder)):
            raise UserError(
                f"Domain {domain} has no {split} images: there are some in {other}, but "
                f"{describe_folder(folder)}, and {describe_folder(self.root)}: put images of {domain} into "
                f"{folder}."
            )
        return [(file,) for file in files]

    def layouts(self, split: str) -> str:
        """Where `find` looks for a split, in words."""
        return f"images in {domain_layouts(split)}"

    def dataset(self, role: Role, files: Files, seed: int | None) -> Images:
        """Make the data set of a role; ``seed`` is None for images as evaluation sees them."""
        domain = DOMAINS[role]
        return Images(files, self.view, self.channels[CHANNELS[domain]], seed, domain)
