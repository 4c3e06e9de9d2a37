"""The search for the channels to keep: the search phase and the pruning policies."""

from lightning_gancompress.search.baselines import (
    BatchNormScale,
    IsomorphicMagnitude,
    L1Magnitude,
    RandomChannels,
    UniformWidth,
)
from lightning_gancompress.search.collaborative import CollaborativePruning
from lightning_gancompress.search.phase import SearchPhase
from lightning_gancompress.search.policy import PruningPolicy, SearchPolicy

__all__ = [
    "BatchNormScale",
    "CollaborativePruning",
    "IsomorphicMagnitude",
    "L1Magnitude",
    "PruningPolicy",
    "RandomChannels",
    "SearchPhase",
    "SearchPolicy",
    "UniformWidth",
]
