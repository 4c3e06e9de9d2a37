"""A small segmentation network taught by real pairs of label maps and photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gancompress.data.transforms import collate
from lightning_gancompress.errors import UserError
from lightning_gancompress.metrics.segmentation import IGNORED, Colours, SmallUnet, decode, normalised

BATCH = 8
LR = 2e-3  # of Adam


class Look(NamedTuple):
    """How label maps and photos are read.

    Attributes:
        colours: Of the classes in label maps, RGB, 0..255.
        ignored: Colours that do not count.
        mean: Of the channels that the network expects, of pixels in [0, 1].
        std: Likewise.
        input_size: Height and width to which photos are resized; None leaves them.
    """

    colours: Colours
    ignored: Colours
    mean: Sequence[float]
    std: Sequence[float]
    input_size: Sequence[int] | None


def fresh(classes: int) -> nn.Module:
    """A new small network, always the same; the random numbers of the run stay as they are."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallUnet(classes)


def teach(
    network: nn.Module, pairs: Any, num_workers: int, look: Look, epochs: int, device: torch.device
) -> None:
    """Teach a network the classes in real photos, always the same way; it is on the CPU afterwards.

    Args:
        network: Normalised photos (B, 3, H, W) -> scores of classes, of the same or another size.
        pairs: Data set of `source` and `target`, whose item `epoch * len + n` is the n-th one augmented anew.
        num_workers: Of the loader.
        look: How pairs are read.
        epochs: Passes over them.
        device: Where it trains.
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
    """Cross entropy of the classes of the label maps, at their size."""
    photos = require_pairs(batch["source"], batch.get("target"))
    photos = normalised(photos.to(device), look.mean, look.std, look.input_size)
    labels = decode(batch["source"].to(device), look.colours, look.ignored)
    scores = F.interpolate(network(photos), labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(scores, labels, ignore_index=IGNORED)


def require_pairs(source: Tensor, target: Tensor | None) -> Tensor:
    """The photos of pairs.

    Raises:
        UserError: These are no label maps and photos.
    """
    pair = {"source": source} | ({} if target is None else {"target": target})
    channels = {key: images.shape[1] for key, images in pair.items()}
    if channels != {"source": 3, "target": 3}:
        raise UserError(
            f"SegmentationScore needs pairs of a colour-coded label map (source) and an RGB photo (target), "
            f"and the channels of this data are {channels}: leave the callback out, or mend the data."
        )
    return pair["target"]
