"""Image errors: distances of generated images to their targets and of student's to teacher's images."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_gancompress.evaluation.measure import Findings, Measure, Rows, Seen, Translated
from lightning_gancompress.evaluation.metrics import L1, LPIPS, PSNR, SSIM, TEACHER
from lightning_gancompress.metrics import Lpips, l1, psnr, ssim

Error = Callable[[Tensor, Tensor], Tensor]
ERRORS: dict[str, Error] = {L1: l1, PSNR: psnr, SSIM: ssim}


class ImageErrors(Measure):
    """Mean L1, PSNR, SSIM and LPIPS to the target, where there are pairs, and between student and teacher.

    Args:
        lpips_weights: File of torchvision's AlexNet or VGG-16; None for no LPIPS.
    """

    def __init__(self, lpips_weights: str | None = None) -> None:
        self.lpips_weights = lpips_weights
        self._errors = ERRORS

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the network of LPIPS; before a fit only to see that it can be loaded."""
        if self.lpips_weights is not None:
            device = trainer.strategy.root_device if stage == "test" else "cpu"
            lpips = Lpips(self.lpips_weights, device)
            self._errors = ERRORS | {LPIPS: lpips} if stage == "test" else ERRORS

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the network of LPIPS."""
        self._errors = ERRORS

    def rows(self, trainer: Trainer, pl_module: LightningModule, images: Translated) -> Rows:
        """One value per image, generator and error."""
        rows: Rows = {}
        if images.target is not None:
            for name, image in images.generated.items():
                rows |= {f"{name}/{key}": error(image, images.target) for key, error in self._errors.items()}
        return rows | teacher_errors(images, self._errors)

    def findings(self, trainer: Trainer, pl_module: LightningModule, seen: Seen) -> Findings:
        """Means over all images."""
        findings = Findings()
        for key, values in seen.rows.items():
            name, _, metric = key.rpartition("/")
            figures = findings.networks.setdefault(name, {}) if name else findings.comparison
            figures[metric] = float(values.double().mean())
        return findings


class ValidationErrors(ImageErrors):
    """Errors of the trained generator alone, and its L1 to the teacher, for validation."""

    def rows(self, trainer: Trainer, pl_module: LightningModule, images: Translated) -> Rows:
        """One value per image and error."""
        trained = list(images.generated.values())[-1]
        errors = {} if images.target is None else {k: e(trained, images.target) for k, e in ERRORS.items()}
        return errors | teacher_errors(images, {L1: l1})


def teacher_errors(images: Translated, errors: dict[str, Error]) -> Rows:
    """Errors `(B,)` to the teacher's images: of the student, and by name of exported files."""
    teacher = images.generated.get("teacher")
    if teacher is None:
        return {}
    others = {name: image for name, image in images.generated.items() if name != "teacher"}
    return {
        f"{'' if name == 'student' else f'{name}/'}{TEACHER}{key}": error(image, teacher)
        for name, image in others.items()
        for key, error in errors.items()
    }
