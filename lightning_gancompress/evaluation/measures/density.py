"""The student's local density compared with the teacher's, in a feature space of images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import normalize

from lightning_gancompress.density import Encoder, density_coverage, neighbourhood_ise, precision_recall
from lightning_gancompress.evaluation.measure import Findings, Measure, Rows, Seen, Translated
from lightning_gancompress.evaluation.metrics import COVERAGE, DENSITY, ISE, PRECISION, RECALL

NEIGHBOURS = 5  # as in the search and in Naeem et al. 2020


class LocalDensity(Measure):
    """Compares the student's local density with the teacher's, in the feature space of an encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move the encoder to the device."""
        self.encoder.to(trainer.strategy.root_device)

    def rows(self, trainer: Trainer, pl_module: LightningModule, images: Translated) -> Rows:
        """Features `(B, D)` of every generator's images."""
        with torch.no_grad():
            return {
                name: self.encoder(images.source.float(), image.float())
                for name, image in images.generated.items()
            }

    def findings(self, trainer: Trainer, pl_module: LightningModule, seen: Seen) -> Findings:
        """The figures of `beside_teacher`."""
        return beside_teacher(seen.rows, type(self.encoder).__name__)


def beside_teacher(features: Mapping[str, Tensor], encoder: str) -> Findings:
    """Compare the local density of the features (N, D) of `student` with those of `teacher`.

    Returns:
        `teacher_density`, `teacher_coverage`, `teacher_precision` and `teacher_recall` (1 is best), and
        `teacher_ise` (0 is best), the mean integrated squared error within the neighbourhoods; the same of
        exported files. Empty without a teacher and another, or for N up to `NEIGHBOURS`.
    """
    others = {name: normalize(own, dim=1) for name, own in features.items() if name != "teacher"}
    if "teacher" not in features or not others or len(features["teacher"]) <= NEIGHBOURS:
        return Findings()
    teacher = normalize(features["teacher"], dim=1)
    findings = Findings.beside_teacher(
        {
            name: manifold(teacher, own) | {ISE: neighbourhood_ise(teacher, own, NEIGHBOURS)}
            for name, own in others.items()
        }
    )
    findings.facts = {DENSITY: {"encoder": encoder, "k": NEIGHBOURS}}
    return findings


def manifold(reference: Tensor, samples: Tensor) -> dict[str, float]:
    """Density, coverage, precision and recall of features (N, D) and (M, D); empty if too few."""
    if min(len(reference), len(samples)) <= NEIGHBOURS:
        return {}
    density, coverage = density_coverage(reference, samples, NEIGHBOURS)
    precision, recall = precision_recall(reference, samples, NEIGHBOURS)
    return {DENSITY: density, COVERAGE: coverage, PRECISION: precision, RECALL: recall}
