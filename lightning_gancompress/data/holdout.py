"""The holdout: samples that are kept from training if there is no validation split."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from lightning_gancompress.errors import UserError


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
