"""Callbacks: pruning policies, evaluation, image grids, checkpoints, small models, reports."""

from lightning_gancompress.callbacks.best_checkpoint import BestCheckpoint
from lightning_gancompress.callbacks.found_channels import FoundChannels
from lightning_gancompress.callbacks.generator_ema import GeneratorEMA
from lightning_gancompress.callbacks.html_report import HtmlReport
from lightning_gancompress.callbacks.image_grid import ImageGrid
from lightning_gancompress.callbacks.last_checkpoint import LastCheckpoint
from lightning_gancompress.callbacks.monitors import Monitors
from lightning_gancompress.callbacks.prediction import PredictionWriter
from lightning_gancompress.callbacks.progress import ProgressBars, ProgressLines
from lightning_gancompress.callbacks.small_model import SmallModel
from lightning_gancompress.evaluation.evaluation import Evaluation
from lightning_gancompress.evaluation.measures.segmentation import SegmentationScore
from lightning_gancompress.search.baselines import (
    BatchNormScale,
    IsomorphicMagnitude,
    L1Magnitude,
    RandomChannels,
    UniformWidth,
)
from lightning_gancompress.search.collaborative import CollaborativePruning
from lightning_gancompress.search.policy import PruningPolicy, SearchPolicy

__all__ = [
    "BatchNormScale",
    "BestCheckpoint",
    "CollaborativePruning",
    "Evaluation",
    "FoundChannels",
    "GeneratorEMA",
    "HtmlReport",
    "ImageGrid",
    "IsomorphicMagnitude",
    "L1Magnitude",
    "LastCheckpoint",
    "Monitors",
    "PredictionWriter",
    "ProgressBars",
    "ProgressLines",
    "PruningPolicy",
    "RandomChannels",
    "SearchPolicy",
    "SegmentationScore",
    "SmallModel",
    "UniformWidth",
]
