"""Filters for hints and warnings that do not concern the user."""

from __future__ import annotations

import logging
import warnings

_HINTS = ("💡", "TPU available", "Seed set to")
_WARNINGS = (
    ".*isinstance.treespec, LeafSpec",  # Lightning 2.6 under torch 2.15
    "Found .* module.s. in eval mode at the start of training",  # the teacher
    ".*does not have many workers",  # the data module's to choose
    "The number of training batches .* is smaller than the logging interval",  # it counts on over epochs
    ".*recommended to use `self.log.*sync_dist=True",  # the values are equal on all ranks
    # the data module counts batches in the trainer's progress; Lightning guesses from optimizer steps
    "You're resuming from a checkpoint that ended before the epoch ended",
    # of pytorch issue 91252, which needs a new loader every epoch; here one serves them all
    ".*persistent_workers=True.* can lead to instability",
)


def quieten() -> None:
    """Filter Lightning's hints about other products, and warnings about intended behaviour.

    Called by the command line and by `compress`; importing the package sets no filters.
    """
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").addFilter(worth_reading)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message)


def worth_reading(record: logging.LogRecord) -> bool:
    """Whether a log record concerns this run."""
    return not record.getMessage().startswith(_HINTS)
