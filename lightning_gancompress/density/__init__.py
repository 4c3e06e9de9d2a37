"""Local density: encoders, neighbourhoods, objectives and metrics."""

from lightning_gancompress.density.encoders import BackboneEncoder, CriticEncoder, Encoder, GeneratorEncoder
from lightning_gancompress.density.metrics import density_coverage, neighbourhood_ise, precision_recall
from lightning_gancompress.density.neighbourhoods import (
    are_features,
    cache_folder,
    cache_key,
    is_neighbourhoods,
    load_table,
    nearest_neighbours,
    require_neighbours,
    save_table,
)
from lightning_gancompress.density.objectives import Comparison, adversarial_density, kernel_density

__all__ = [
    "BackboneEncoder",
    "Comparison",
    "CriticEncoder",
    "Encoder",
    "GeneratorEncoder",
    "adversarial_density",
    "are_features",
    "cache_folder",
    "cache_key",
    "density_coverage",
    "is_neighbourhoods",
    "kernel_density",
    "load_table",
    "nearest_neighbours",
    "neighbourhood_ise",
    "precision_recall",
    "require_neighbours",
    "save_table",
]
