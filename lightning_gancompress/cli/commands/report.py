"""The command `report`."""

from __future__ import annotations

from lightning_gancompress.options import checked
from lightning_gancompress.reporting.page import write_page


@checked
def report(folder: str) -> None:
    """Write the page of a compression again, from the files of its run.

    Args:
        folder: Folder of the run, with `checkpoints/last.ckpt`.
    """
    print(f"Wrote {write_page(folder)}")
