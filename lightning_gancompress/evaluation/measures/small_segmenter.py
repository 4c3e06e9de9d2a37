"""A small segmentation network, trained on the real pairs of label maps and photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gancompress.data.labels import Labels
from lightning_gancompress.data.transforms import collate
from lightning_gancompress.errors import UserError
from lightning_gancompress.metrics.segmentation import IGNORED, Colours, SmallUnet, decode, normalised

BATCH = 8
LR = 2e-3  # of Adam


class Look(NamedTuple):
    """How label maps are decoded and photos normalised.

    Attributes:
        colours: Colours of the classes in label maps, RGB, 0..255.
        ignored: Colours of pixels that are ignored.
        mean: Channel means of the network's inputs, of pixels in [0, 1].
        std: Channel standard deviations of the same.
        input_size: Height and width to which photos are resized, in pixels; None keeps them.
        labels: How the data encodes numbers of classes; None where its label maps are colour pictures.
    """

    colours: Colours
    ignored: Colours
    mean: Sequence[float]
    std: Sequence[float]
    input_size: Sequence[int] | None
    labels: Labels | None = None

    def classes(self, source: Tensor) -> Tensor:
        """Classes of label maps (B, C, H, W) as generators read them, (B, H, W) int64."""
        return decode(
            source if self.labels is None else self.labels.picture(source), self.colours, self.ignored
        )

    def photos(self, source: Tensor, target: Tensor | None) -> Tensor:
        """The photos (B, 3, H, W) of pairs.

        Raises:
            UserError: There are no targets, or sources or targets do not have the channels of such pairs.
        """
        return require_pairs(source if self.labels is None else self.labels.picture(source), target)


def fresh(classes: int) -> nn.Module:
    """A new small network, always the same; does not change the state of random number generators."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallUnet(classes)


def train(
    network: nn.Module, pairs: Any, num_workers: int, look: Look, epochs: int, device: torch.device
) -> None:
    """Train a network to segment real photos, deterministically, and move it to the CPU afterwards.

    Args:
        network: Maps normalised photos (B, 3, H, W) to scores (B, classes, h, w).
        pairs: Data set of `source` and `target`; item `epoch * len + n` is the n-th pair, augmented anew.
        num_workers: Workers of the loader.
        look: How label maps are decoded and photos normalised.
        epochs: Passes over the pairs.
        device: Device of the training.
    """
    random = torch.Generator().manual_seed(0)
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), LR)
    steps = epochs * -(-len(pairs) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for epoch in range(epochs):
        codes = torch.randperm(len(pairs), generator=random) + epoch * len(pairs)
        loader: DataLoader[Any] = DataLoader(
            pairs,
            BATCH,
            sampler=codes.tolist(),
            num_workers=num_workers,
            collate_fn=collate,
            generator=random,
        )
        for batch in loader:
            optimizer.zero_grad()
            classification_loss(network, batch, look, device).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    network.cpu()


def classification_loss(
    network: nn.Module, batch: Mapping[str, Any], look: Look, device: torch.device
) -> Tensor:
    """Cross entropy of the network's scores, resized to the label maps, against their classes."""
    photos = look.photos(batch["source"], batch.get("target"))
    photos = normalised(photos.to(device), look.mean, look.std, look.input_size)
    labels = look.classes(batch["source"].to(device))
    scores = F.interpolate(network(photos), labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(scores, labels, ignore_index=IGNORED)


def require_pairs(source: Tensor, target: Tensor | None) -> Tensor:
    """Return the photos (B, 3, H, W) of pairs.

    Raises:
        UserError: There are no targets, or sources or targets do not have 3 channels.
    """
    images = {"source": source} | ({} if target is None else {"target": target})
    channels = {key: image.shape[1] for key, image in images.items()}
    if channels != {"source": 3, "target": 3}:
        raise UserError(
            f"SegmentationScore needs pairs of a colour-coded label map (source) and an RGB photo (target), "
            f"and the channels of this data are {channels}: leave the callback out, or mend the data."
        )
    return images["target"]
