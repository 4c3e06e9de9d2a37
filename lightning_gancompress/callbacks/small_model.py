"""The callback that saves the small generator as a plain state dict with a description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_gancompress.checkpoints import save_small
from lightning_gancompress.errors import UserError
from lightning_gancompress.metadata import SAFETENSORS
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.pruning import count_params
from lightning_gancompress.run_folder import ours
from lightning_gancompress.tasks import Side
from lightning_gancompress.version import __version__


class SmallModel(Callback):
    """Writes `<default_root_dir>/generator.safetensors` when a compression ends.

    It holds the network's tensors and its description. `generator.pth` and `generator.json` hold the same,
    for programs that read files of torch. CycleGAN gets files per compressed direction, such as
    `generator_AtoB.safetensors`.
    `lightning_gancompress.load_generator` reads them back without Lightning.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a folder where a network of the user's would be replaced."""
        if stage != "fit" or not isinstance(pl_module, CompressionModule):
            return
        for role in pl_module.task.compressed:
            for ending in (".pth", SAFETENSORS):
                path = Path(trainer.default_root_dir) / f"{role}{ending}"
                if path.exists() and not ours(path):
                    raise UserError(
                        f"{path} has no description of this project's and would be replaced: choose another "
                        "trainer.default_root_dir."
                    )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the small generators at the end of `fit`, also of a run that was stopped before its end."""
        if not isinstance(pl_module, CompressionModule) or pl_module.phase.name != "finetune":
            return
        if not trainer.is_global_zero:
            return
        for role in pl_module.task.compressed:
            path = Path(trainer.default_root_dir) / f"{role}.pth"
            network, spec = pl_module.student[role], pl_module.networks.specs[f"student.{role}"]
            preprocessing = pl_module.task.preprocessing(role, pl_module.preprocessing(role))
            provenance = self._provenance(pl_module)
            for file in (path, path.with_suffix(SAFETENSORS)):
                save_small(network, spec, file, preprocessing=preprocessing, provenance=provenance)
            rank_zero_info(f"Small generator: {file} ({count_params(network) / 1e6:.4g} M parameters)")

    @staticmethod
    def _provenance(module: CompressionModule) -> dict[str, Any]:
        return {
            "teacher": str(module.phases.loader.files),
            "budget": module.pruning.budgets[Side.GENERATOR],
            "convention": module.pruning.convention,
            "policy": type(module.policy).__name__,
            "epochs": round(module.epochs_done, 2),
            "of_epochs": module.total_epochs,
            "gan_mode": module.task.gan_mode,
            "lightning_gancompress": __version__,
            "torch": str(torch.__version__),
        }
