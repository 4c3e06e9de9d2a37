"""Callbacks: the pruning policies, what is measured and drawn, and what keeps a run."""

from lightning_gancompress.callbacks.collaborative import CollaborativePruning
from lightning_gancompress.callbacks.evaluation import Evaluation
from lightning_gancompress.callbacks.html_report import HtmlReport
from lightning_gancompress.callbacks.images import ImageGrid
from lightning_gancompress.callbacks.last_checkpoint import LastCheckpoint
from lightning_gancompress.callbacks.prediction import PredictionWriter
from lightning_gancompress.callbacks.progress import ProgressLines
from lightning_gancompress.callbacks.pruning import (
    BatchNormScale,
    L1Magnitude,
    PruningPolicy,
    RandomChannels,
    UniformWidth,
)
from lightning_gancompress.callbacks.segmentation import SegmentationScore
from lightning_gancompress.callbacks.small_model import SmallModel

__all__ = [
    "BatchNormScale",
    "CollaborativePruning",
    "Evaluation",
    "HtmlReport",
    "ImageGrid",
    "L1Magnitude",
    "LastCheckpoint",
    "PredictionWriter",
    "ProgressLines",
    "PruningPolicy",
    "RandomChannels",
    "SegmentationScore",
    "SmallModel",
    "UniformWidth",
]
