"""The callback that saves the settings of a run in its folder and in its checkpoints."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lightning_gancompress.checkpoints.recorded_settings import KEY
from lightning_gancompress.files import replacing
from lightning_gancompress.run_folder import CONFIG_HEADER
from lightning_gancompress.version import __version__


class RunConfig(SaveConfigCallback):
    """Writes `config.yaml` into the folder of a training run, logs it, and puts it into the checkpoints.

    A different `config.yaml` from before the run was resumed is renamed to `config_1.yaml`, `config_2.yaml`,
    and so on. A file of the user's is left alone; then those names are taken. Reused, the file starts a new
    run: it does not say from which checkpoint this one was resumed.

    Args:
        parser: Parser of the settings.
        config: Parsed settings.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        if "ckpt_path" in config:
            config = config.clone()
            config.ckpt_path = None
        super().__init__(parser, config, save_to_log_dir=False)
        # plain types only: checkpoints are loaded with weights_only=True
        self.settings: dict[str, Any] = json.loads(parser.dump(config, "json", skip_unset=False))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save nothing yet: the run may still be refused, and a checkpoint is loaded later."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the settings of a run that begins or is resumed."""
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write and log the settings; called on rank zero."""
        path = Path(trainer.default_root_dir, self.config_filename)
        text = f"{CONFIG_HEADER}{__version__}, "
        text += f"lightning {version('lightning')}, torch {version('torch')}\n"
        text += self.parser.dump(self.config, "yaml", skip_unset=False)
        free = next(p for n in range(1, 10**6) if not (p := numbered(path, n)).exists())
        if path.exists() and not path.read_text(errors="replace").startswith(CONFIG_HEADER):
            path = free
        elif path.exists() and path.read_text() != text:
            path.rename(free)
        with replacing(path) as draft:
            draft.write_text(text)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.settings)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the settings into a checkpoint; `cli.configs` reads them."""
        checkpoint[KEY] = self.settings


def numbered(path: Path, number: int) -> Path:
    """The path with a number before its suffix."""
    return path.with_name(f"{path.stem}_{number}{path.suffix}")
