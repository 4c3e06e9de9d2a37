"""Mean IoU of generated photos: do they show what the label maps ask for?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gancompress.checkpoints.files import read_state_dict
from lightning_gancompress.data.transforms import collate, read_image
from lightning_gancompress.density import cache_key
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.evaluation import first_of_each, gather_rows, generators, task_of
from lightning_gancompress.evaluation.measure import Measure
from lightning_gancompress.files import replacing
from lightning_gancompress.metrics.segmentation import (
    CITYSCAPES,
    CITYSCAPES_IGNORED,
    IGNORED,
    Colours,
    Segmenter,
    SmallUnet,
    decode,
    load_weights,
    mean_iou,
    normalised,
    pixel_accuracy,
)

Protocol = Literal["field", "quick"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VERSION = 1  # of the training below: raise it when trained networks change
BATCH = 8
LR = 2e-3  # of Adam


class SegmentationScore(Measure):
    """Measure at test how well a segmentation network finds the classes of the label map in the photo.

    For generators that read colour-coded label maps and whose data has pairs. Each one's `miou` and
    `pixel_accuracy`, in [0, 1], stand beside the `ceiling`: the mIoU of the real photos. Figures compare
    under one network, protocol and palette only.

    `quick` decodes the labels from the source, at its own size. `field` is what papers on GAN compression
    do (GAN Compression, Li et al. 2020, and those that follow it): log-probabilities of the image are
    resized to label files of full resolution. The label file of a test image `X.jpg` or `X_leftImg8bit.png`
    is the one in `labels` or below named `X_trainIds.png`, `X_gtFine_trainIds.png` or
    `X_gtFine_labelTrainIds.png`; where images have numbers for names, `label_table` names their files.

    Args:
        network: Maps normalised images to scores per class; None trains a small U-Net on the training pairs.
        weights: State dict of `network`.
        mean: Of the channels that `network` expects, of pixels in [0, 1]; ImageNet's by default.
        std: Likewise.
        input_size: Height and width, in pixels, to which images are resized for `network`; None leaves them.
        protocol: Which labels, at which size.
        palette: Colours of the classes in the label maps: those of Cityscapes, whose void colours don't
            count, or a list of RGB values, 0..255.
        labels: Folder of the label files of `field`: greyscale, a pixel's value its class, 255 for none.
        label_table: Text file with an image and its label file per line, the first two words, such as
            `12 gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_trainIds.png`; folders are left out of
            account. GAN Compression's `val_table.txt` is one.
        epochs: Of training the small U-Net.
        cache_dir: Where it is kept for other tests; None is `<default_root_dir>/cache`.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        weights: str | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        input_size: list[int] | None = None,
        protocol: Protocol = "quick",
        palette: Literal["cityscapes"] | list[list[int]] = "cityscapes",
        labels: str | None = None,
        label_table: str | None = None,
        epochs: int = 10,
        cache_dir: str | None = None,
    ) -> None:
        if (network is None) != (weights is None):
            raise UserError(
                f"network is {type(network).__name__} and weights is {weights}: a segmentation network and "
                "its file belong together; without both a small one is trained."
            )
        if protocol == "field" and labels is None:
            raise UserError("protocol is field, but labels is not set: name the folder of *_trainIds.png.")
        if input_size is not None and (len(input_size) != 2 or min(input_size) < 1):
            raise UserError(f"input_size is {input_size}: give height and width in pixels, [256, 512] say.")
        if epochs < 1:
            raise UserError(f"epochs is {epochs}: an untrained network finds nothing, use at least 1.")
        self.colours, self.ignored = colours_of(palette)
        self.network, self.weights, self.input_size = network, weights, input_size
        self.mean, self.std = mean or IMAGENET_MEAN, std or IMAGENET_STD
        self.protocol: Protocol = protocol
        self.labels = None if labels is None else LabelFiles(Path(labels), label_table)
        self.epochs, self.cache_dir = epochs, cache_dir
        # outside any module, so that the network never enters a checkpoint
        self._segmenter: Segmenter | None = None
        self._matrices: dict[str, dict[str, list[Tensor]]] = {}  # by role, then by generator or `real`

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load or train the network before a test; training needs gradients, which a test has not."""
        if stage != "test":
            return
        network = self.network
        if network is not None and self.weights is not None:
            load_weights(network, self.weights)
        elif network is None:
            network = self._own_network(trainer, pl_module)
        device = trainer.strategy.root_device
        self._segmenter = Segmenter(network, len(self.colours), self.mean, self.std, self.input_size, device)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free it."""
        self._segmenter = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier images."""
        self._matrices = {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Compare what the network sees in real and generated photos with the labels."""
        assert self._segmenter is not None
        for role, images in outputs.items():
            view = task_of(pl_module).views(batch)[role]
            require_pairs(images)
            labels = self._labels_of(images["source"], view)
            notes = self._matrices.setdefault(role, {})
            photos = {"real": images["target"], **{n: images[n] for n in generators(pl_module, role)}}
            for name, shown in photos.items():
                notes.setdefault(name, []).append(self._segmenter.confusions(shown, labels))
            index = view.get("index")
            if index is None:  # data that does not number images has only different ones
                seen = sum(map(len, notes.get("index", [])))
                index = (torch.arange(len(labels)) + seen) * trainer.world_size + trainer.global_rank
            notes.setdefault("index", []).append(index.cpu())

    def findings(self, trainer: Trainer, pl_module: LightningModule, role: str) -> dict[str, Any]:
        """Scores over all images of all ranks, each image once."""
        assert self._segmenter is not None
        notes = {
            name: gather_rows(torch.cat(parts), pl_module.device)
            for name, parts in self._matrices.pop(role).items()
        }
        keep = first_of_each(notes.pop("index"))
        totals = {name: matrices[keep].sum(0) for name, matrices in notes.items()}
        real = totals.pop("real")
        if not real.sum():
            raise UserError("mIoU: not a pixel of the labels is of any class: check palette and labels.")
        facts = {
            "network": type(self._segmenter.network).__name__,
            "weights_sha256": self._segmenter.weights_sha256,
            "protocol": self.protocol,
            "classes": len(self.colours),
            "images": len(keep),
            "ceiling": mean_iou(real),
            "ceiling_pixel_accuracy": pixel_accuracy(real),
        }
        rank_zero_info(f"mIoU: {facts['ceiling']:.4f} on the real photos, the ceiling for generated ones.")
        scores = {
            name: {"miou": mean_iou(total), "pixel_accuracy": pixel_accuracy(total)}
            for name, total in totals.items()
        }
        return {"networks": scores, "miou": facts}

    def _labels_of(self, source: Tensor, view: Any) -> list[Tensor]:
        """Labels (h, w) of each image."""
        if self.protocol == "field":
            assert self.labels is not None
            return [self.labels.read(path) for path in view["path"]]
        return list(decode(source, self.colours, self.ignored))

    def _own_network(self, trainer: Trainer, pl_module: LightningModule) -> nn.Module:
        """A small network trained on the real pairs, or one of an earlier test; the same on all ranks."""
        state: dict[str, Tensor] = {}
        if trainer.is_global_zero:
            state = self._trained(trainer, task_of(pl_module).compressed[0])
        network = fresh(len(self.colours))
        network.load_state_dict(trainer.strategy.broadcast(state))
        return network

    def _trained(self, trainer: Trainer, role: str) -> dict[str, Tensor]:
        datamodule: Any = getattr(trainer, "datamodule", None)
        if datamodule is None or not hasattr(datamodule, "datasets"):
            raise UserError(
                "SegmentationScore has no network, and no data module whose training pairs could teach one: "
                "set network and weights."
            )
        settings = ("segmentation", VERSION, role, self.colours, self.ignored, self.mean, self.std)
        key = cache_key(*settings, self.input_size, self.epochs, datamodule.fingerprint("train"))
        folder = Path(self.cache_dir or Path(trainer.default_root_dir) / "cache")
        path = folder / f"segmentation_{key}.pth"
        network = fresh(len(self.colours))
        try:
            load_weights(network, path)
        except UserError:  # there is none yet, or what is left of one
            self._train(network, datamodule, role, trainer.strategy.root_device)
            with replacing(path) as part:
                torch.save(network.state_dict(), part)
        return read_state_dict(path)

    def _train(self, network: nn.Module, datamodule: Any, role: str, device: torch.device) -> None:
        """Teach a network the classes in real photos."""
        dataset = datamodule.datasets("train", augment=True)[role]
        rank_zero_info(f"mIoU: training a network on {len(dataset)} pairs for {self.epochs} epochs.")
        random = torch.Generator().manual_seed(0)
        network.to(device).train()
        optimizer = torch.optim.Adam(network.parameters(), LR)
        steps = self.epochs * -(-len(dataset) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
        for epoch in range(self.epochs):
            codes = torch.randperm(len(dataset), generator=random) + epoch * len(dataset)
            loader: DataLoader[Any] = DataLoader(
                dataset,
                BATCH,
                sampler=codes.tolist(),
                num_workers=datamodule.num_workers,
                collate_fn=collate,
                generator=random,
            )
            for batch in loader:
                require_pairs(batch)
                labels = decode(batch["source"].to(device), self.colours, self.ignored)
                photos = normalised(batch["target"].to(device), self.mean, self.std, self.input_size)
                scores = F.interpolate(
                    network(photos), labels.shape[1:], mode="bilinear", align_corners=False
                )
                loss: Tensor = F.cross_entropy(scores, labels, ignore_index=IGNORED)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        network.cpu()


class LabelFiles:
    """The label file of each test image: see `SegmentationScore`.

    Args:
        folder: Where they are, at any depth.
        table: Text file that names them by image, None where their names tell.
    """

    def __init__(self, folder: Path, table: str | None = None) -> None:
        self.folder = folder
        self.table: dict[str, str] = {}
        self._paths = {path.name: path for path in sorted(folder.rglob("*rainIds.png"))}
        if not self._paths:
            raise UserError(f"labels: there is no *_trainIds.png in {folder} or below: check the folder.")
        if table is not None:
            try:
                lines = [line.split() for line in Path(table).read_text().splitlines() if line.strip()]
                self.table = {Path(image).stem: Path(file).name for image, file, *_ in lines}
            except (OSError, ValueError) as error:
                raise UserError(
                    f"label_table: {table} can't be used ({error}): give a text file with an image and its "
                    "label file per line."
                ) from error

    def find(self, image: str) -> Path:
        """Path of the label file of an image.

        Raises:
            UserError: There is none.
        """
        scene = Path(image).stem.removesuffix("_leftImg8bit")
        endings = ("_trainIds", "_gtFine_trainIds", "_gtFine_labelTrainIds")
        names = [self.table[scene]] if scene in self.table else [f"{scene}{end}.png" for end in endings]
        for name in names:
            if name in self._paths:
                return self._paths[name]
        raise UserError(
            f"labels: {self.folder} has none of {', '.join(names)} for the test image {image}: check the "
            "folder, or name the label file of each image in a label_table."
        )

    def read(self, image: str) -> Tensor:
        """Labels (h, w) of an image."""
        return torch.from_numpy(np.array(read_image(self.find(image)).convert("L"))).long()


def fresh(classes: int) -> nn.Module:
    """A new small network, always the same; the random numbers of the run stay as they are."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallUnet(classes)


def colours_of(palette: Literal["cityscapes"] | Sequence[Sequence[int]]) -> tuple[Colours, Colours]:
    """Colours of the classes of a palette, and those that don't count.

    Raises:
        UserError: It is no list of at least two RGB values.
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


def require_pairs(images: Any) -> None:
    """Refuse data without label maps beside photos."""
    channels = {key: images[key].shape[1] for key in ("source", "target") if key in images}
    if channels != {"source": 3, "target": 3}:
        raise UserError(
            f"SegmentationScore needs pairs of a colour-coded label map (source) and an RGB photo (target), "
            f"and the channels of this data are {channels}: leave the callback out, or mend the data."
        )
