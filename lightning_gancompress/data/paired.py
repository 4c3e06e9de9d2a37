"""The data module of paired images."""

from __future__ import annotations

from lightning_gancompress.data.contract import GENERATOR, PreprocessingRecord, Split
from lightning_gancompress.data.datasets import Direction, Files, Pairs
from lightning_gancompress.data.images import ImageDataModule
from lightning_gancompress.data.layout import domain_layouts, find_pairs
from lightning_gancompress.data.transforms import Preprocess, Preprocessing
from lightning_gancompress.tasks.role import Role


class PairedDataModule(ImageDataModule):
    """Pairs of images in the layouts, with the preprocessing and defaults, of pytorch-CycleGAN-and-pix2pix.

    Batches: ``{"source", "target": (B, C, H, W) in [-1, 1], "index": (B,) position in the split,
    "path": list}``.

    Args:
        root: Folder with ``train``, ``val`` and ``test``, each holding images A | B side by side, or two
            folders each: ``trainA`` and ``trainB``, ``train/A`` and ``train/B``, or ``A/train`` and
            ``B/train``, paired by file name.
        direction: AtoB translates A (the left half) to B.
        batch_size: Training images per step and process.
        search_batch_size: The same while neighbourhoods are sampled; a multiple of their members.
        load_size: Pixels to which training images are resized before the crop.
        crop_size: Pixels of what the networks see.
        preprocess: As the option of the same name there; ``none`` only rounds sizes to a multiple of 4.
        flip: Whether half of the training images are mirrored.
        in_channels: 1 makes the source greyscale, 3 RGB.
        out_channels: The same for the target.
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
        direction: Direction = "AtoB",
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
        self.direction = direction

    @property
    def preprocessing(self) -> PreprocessingRecord:
        """What a user of the generator must do to an image first, in plain types. Sizes in pixels."""
        return {"direction": self.direction, **super().preprocessing}

    def find(self, split: Split) -> dict[Role, Files]:
        """Pairs of files (A, B)."""
        found = (find_pairs(self.root, name) for name in self.splits[split])
        return next(({GENERATOR: pairs} for pairs in found if pairs), {})

    def layouts(self, split: str) -> str:
        """Where `find` looks for a split, in words."""
        return f"images A | B side by side, {domain_layouts(split)}"

    def dataset(self, role: Role, files: Files, seed: int | None) -> Pairs:
        """Make the data set of a role; ``seed`` is None for images as evaluation sees them."""
        channels = self.channels["in_channels"], self.channels["out_channels"]
        return Pairs(files, self.view, self.direction, channels, seed)
