"""Mean IoU of generated photos under a segmentation network, against their label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_gancompress.checkpoints.files import read_state_dict
from lightning_gancompress.data.contract import PlainData, data_of
from lightning_gancompress.data.labels import labels_in
from lightning_gancompress.density import cache_folder, cache_key
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.evaluable import evaluable
from lightning_gancompress.evaluation.measure import Findings, Measure, Rows, Seen, Translated
from lightning_gancompress.evaluation.measures.label_files import LabelFiles
from lightning_gancompress.evaluation.measures.small_segmenter import Look, fresh, train
from lightning_gancompress.evaluation.metrics import MIOU, PIXEL_ACCURACY
from lightning_gancompress.files import replacing, require_writable, user_path
from lightning_gancompress.metrics.segmentation import (
    CITYSCAPES,
    CITYSCAPES_IGNORED,
    IGNORED,
    Colours,
    Segmenter,
    load_weights,
    mean_iou,
    pixel_accuracy,
)
from lightning_gancompress.options import Count, Fraction, Items, Pixels, Positive, checked
from lightning_gancompress.tasks.role import Role

Protocol = Literal["field", "quick"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VERSION = 1  # of the training of small networks; to be raised when its result changes
REAL = "real"


class SegmentationScore(Measure):
    """Measures at test how well a segmentation network finds the classes of the label map in the photo.

    For generators that read colour-coded label maps, and data with pairs. The results hold `miou` and
    `pixel_accuracy` of each generator, in [0, 1], and as `ceiling` the mIoU of the real photos. Figures are
    comparable only for the same network, protocol and palette.

    `quick` decodes the labels from the source, at its own size. `field` is the protocol of papers on GAN
    compression (GAN Compression, Li et al. 2020, and later ones): log-probabilities of the image are
    resized to label files of full resolution. The label file of a test image `X.jpg` or `X_leftImg8bit.png`
    is the one in `labels` or below named `X_trainIds.png`, `X_gtFine_trainIds.png` or
    `X_gtFine_labelTrainIds.png`; if the names of images do not correspond, `label_table` names their files.

    Args:
        network: Maps normalised images to scores per class; None trains a small U-Net on the training pairs.
        weights: State dict of `network`.
        mean: Channel means of `network`'s inputs, of pixels in [0, 1]; None is ImageNet's.
        std: Channel standard deviations of the same.
        input_size: Height and width, in pixels, to which images are resized for `network`; None keeps them.
        protocol: Source and size of the labels.
        palette: Colours of the classes in the label maps: `cityscapes`, whose void colours are ignored, or a
            list of RGB values, 0..255. Where `data.labels` reads numbers of classes, those are the classes.
        labels: Folder of the label files of `field`: greyscale, a pixel's value its class, 255 for none.
        label_table: Text file with an image and its label file per line, the first two words, such as
            `12 gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_trainIds.png`; folders are ignored. GAN
            Compression's `val_table.txt` is one.
        epochs: Training epochs of the small U-Net.
        cache_dir: Folder where it is cached; None is `<default_root_dir>/cache`.
    """

    @checked
    def __init__(
        self,
        network: nn.Module | None = None,
        weights: str | None = None,
        mean: Annotated[list[Fraction], Items(3, 3)] | None = None,
        std: Annotated[list[Positive], Items(3, 3)] | None = None,
        input_size: Annotated[list[Pixels], Items(2, 2)] | None = None,
        protocol: Protocol = "quick",
        palette: Literal["cityscapes"] | list[list[int]] = "cityscapes",
        labels: str | None = None,
        label_table: str | None = None,
        epochs: Count = 10,
        cache_dir: str | None = None,
    ) -> None:
        if (network is None) != (weights is None):
            raise UserError(
                f"network is {type(network).__name__} and weights is {weights}: a segmentation network and "
                "its file belong together; without both a small one is trained."
            )
        if protocol == "field" and labels is None:
            raise UserError("protocol is field, but labels is not set: name the folder of *_trainIds.png.")
        self.look = self._look = Look(
            *colours_of(palette), mean or IMAGENET_MEAN, std or IMAGENET_STD, input_size
        )
        self.network, self.weights = network, weights
        self.protocol: Protocol = protocol
        files = None if labels is None else LabelFiles(user_path(labels), label_table)
        self.labels = files if protocol == "field" else None
        self.epochs, self.cache_dir = epochs, cache_dir
        # not a submodule of the LightningModule, so that checkpoints don't hold it
        self._segmenter: Segmenter | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load or train the network before the test, in which gradients are disabled.

        Before a fit, check that a test will find its file.
        """
        if stage not in ("fit", "test"):
            return
        self.look = look_of(data_of(trainer).preprocessing, self._look)
        network = self.network
        if network is not None and self.weights is not None:
            load_weights(network, self.weights)
        if stage != "test":
            return
        if network is None:
            network = self._own_network(trainer, pl_module)
        device = trainer.strategy.root_device
        look = self.look
        self._segmenter = Segmenter(network, len(look.colours), look.mean, look.std, look.input_size, device)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the network."""
        self._segmenter = None

    def rows(self, trainer: Trainer, pl_module: LightningModule, images: Translated) -> Rows:
        """Confusion matrices `(B, classes, classes)` of real and generated photos against the labels."""
        assert self._segmenter is not None
        photos = {REAL: self.look.photos(images.source, images.target), **images.generated}
        labels = self._labels_of(images)
        return {name: self._segmenter.confusions(photo, labels) for name, photo in photos.items()}

    def findings(self, trainer: Trainer, pl_module: LightningModule, seen: Seen) -> Findings:
        """Mean IoU and pixel accuracy of the summed confusion matrices."""
        assert self._segmenter is not None
        totals = {name: matrices.sum(0) for name, matrices in seen.rows.items()}
        real = totals.pop(REAL)
        if not real.sum():
            raise UserError("mIoU: not a pixel of the labels is of any class: check palette and labels.")
        facts = {
            "network": type(self._segmenter.network).__name__,
            "weights_sha256": self._segmenter.weights_sha256,
            "protocol": self.protocol,
            "classes": len(self.look.colours),
            "images": seen.count,
            "ceiling": mean_iou(real),
            "ceiling_pixel_accuracy": pixel_accuracy(real),
        }
        rank_zero_info(f"mIoU: {facts['ceiling']:.4f} on the real photos, the ceiling for generated ones.")
        return Findings(
            networks={
                name: {MIOU: mean_iou(total), PIXEL_ACCURACY: pixel_accuracy(total)}
                for name, total in totals.items()
            },
            facts={MIOU: facts},
        )

    def _labels_of(self, images: Translated) -> list[Tensor]:
        """Labels (h, w) int64 of each image."""
        if self.labels is None:
            return list(self.look.classes(images.source))
        if images.path is None:
            raise UserError("protocol is field, but the data gives no paths of its images: use quick.")
        return [self.labels.read(path) for path in images.path]

    def _own_network(self, trainer: Trainer, pl_module: LightningModule) -> nn.Module:
        """A small network trained on the real pairs, or cached by an earlier test; the same on all ranks."""
        state: dict[str, Tensor] = {}
        if trainer.is_global_zero:
            state = self._trained(trainer, evaluable(pl_module).task.compressed[0])
        network = fresh(len(self.look.colours))
        network.load_state_dict(trainer.strategy.broadcast(state))
        return network

    def _trained(self, trainer: Trainer, role: Role) -> dict[str, Tensor]:
        data = data_of(trainer)
        if isinstance(data, PlainData):
            raise data.refusal(
                "has no pairs that could teach a segmentation network", "set network and weights, or "
            )
        key = cache_key(
            "segmentation", VERSION, str(role), *self.look, self.epochs, data.fingerprint("train")
        )
        path = cache_folder(self.cache_dir, trainer) / f"segmentation_{key}.pth"
        network = fresh(len(self.look.colours))
        try:
            load_weights(network, path)
        except UserError:  # not cached yet, or damaged
            require_writable(path.parent, "cache_dir of SegmentationScore")
            pairs = data.datasets("train", augment=True)[role]
            rank_zero_info(f"mIoU: training a network on {len(pairs)} pairs for {self.epochs} epochs.")
            train(network, pairs, data.num_workers, self.look, self.epochs, trainer.strategy.root_device)
            with replacing(path) as draft:
                torch.save(network.state_dict(), draft)
        return read_state_dict(path)


def look_of(preprocessing: Mapping[str, Any], look: Look) -> Look:
    """The look of data whose label maps are numbers of classes; of all others `look` itself.

    Raises:
        UserError: A palette was given as well, or there are too many classes.
    """
    labels = labels_in(preprocessing)
    if labels is None or not labels.indexed:
        return look
    if look.colours is not CITYSCAPES:
        raise UserError(
            f"palette has {len(look.colours)} colours, but data.labels reads numbers of {labels.classes} "
            "classes: leave palette out."
        )
    if len(labels.colours) > IGNORED:
        raise UserError(
            f"data.labels.classes is {labels.classes}: SegmentationScore tells at most {IGNORED} apart."
        )
    return look._replace(colours=labels.colours, ignored=((0, 0, 0),), labels=labels)


def colours_of(palette: Literal["cityscapes"] | Sequence[Sequence[int]]) -> tuple[Colours, Colours]:
    """Colours of a palette's classes, and colours that are ignored.

    Raises:
        UserError: The palette is no list of at least two RGB values.
    """
    if palette == "cityscapes":
        return CITYSCAPES, CITYSCAPES_IGNORED
    rgb = [tuple(colour) for colour in palette]
    if not 2 <= len(rgb) <= IGNORED or any(
        len(colour) != 3 or min(colour) < 0 or max(colour) > 255 for colour in rgb
    ):
        raise UserError(
            f"palette is {palette}: give cityscapes, or a list of 2 to {IGNORED} colours [R, G, B] of 0..255."
        )
    return rgb, ()
