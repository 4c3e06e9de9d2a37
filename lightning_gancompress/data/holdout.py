"""The holdout: samples that are kept from training if there is no validation split."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

from lightning_gancompress.errors import UserError

Part = Literal["train", "val", "test"]


def held_out(names: Sequence[str], share: float) -> set[int]:
    """Positions of the samples that are kept from training: the same for the same names, and at least one.

    Args:
        names: Unique names of all samples.
        share: Share in [0, 1) to hold out; 0 holds nothing out.

    Raises:
        UserError: There is only one sample.
    """
    if not share or not names:
        return set()
    if len(names) < 2:
        raise UserError(
            f"{names[0]} is the only image, so none can be held out for validation: add images or set "
            "holdout to 0."
        )
    mixed = sorted(range(len(names)), key=lambda position: sha256(names[position].encode()).digest())
    return set(mixed[: max(1, round(share * len(names)))])


def part_of(names: Sequence[str], share: float, part: Part) -> list[int]:
    """Positions of the samples of a part: `share` of all for validation, as many for the test, or the rest.

    Args:
        names: Unique names of all samples; the same names are divided in the same way.
        share: Share in [0, 0.5); 0 has all samples in each part.
        part: The part.

    Raises:
        UserError: There are too few samples, or none are left for training.
    """
    if not share:
        return list(range(len(names)))
    if len(names) < 3 or share >= 0.5:
        raise UserError(
            f"data.holdout is {share}, of {len(names)} images in no folders of splits, which leaves none to "
            "train on: lower it, add images, or set it to 0 to validate and test on the training images."
        )
    val = held_out(names, share)
    rest = [position for position in range(len(names)) if position not in val]
    again = held_out([names[position] for position in rest], min(0.5, len(val) / len(rest)))
    test = {rest[position] for position in again}
    return {"val": sorted(val), "test": sorted(test), "train": [p for p in rest if p not in test]}[part]
