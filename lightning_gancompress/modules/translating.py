"""What modules of GANs show of their generators: translated images, for evaluation and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks import Role, Task


class TranslatingModule(LightningModule):
    """Translates the images of a batch; the callbacks measure, draw and write them.

    Args:
        task: How a batch reads for each generator, and which generators are compressed.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def generators(self, role: Role) -> dict[str, nn.Module]:
        """Generators of a role to evaluate, by name (such as `teacher`); the trained one comes last."""
        raise NotImplementedError

    def translations(self, batch: Mapping[str, Any]) -> dict[Role, dict[str, Tensor]]:
        """Images (B, C, H, W) per compressed role: `source`, `target` if any, then one per generator."""
        columns = {}
        for role, view in self.task.views(batch).items():
            if role in self.task.compressed:
                columns[role] = {name: view[name] for name in ("source", "target") if name in view}
                try:
                    columns[role] |= {n: net(view["source"]) for n, net in self.generators(role).items()}
                except UserError as error:
                    named = f"Image {view['path'][0]}: " if "path" in view else ""
                    raise UserError(f"{named}{error}") from error
        return columns

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Any:
        """The `translations` of a batch, for the callbacks that measure and draw."""
        return self.translations(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Any:
        """The `translations` of a batch, for the callbacks that measure and draw."""
        return self.translations(batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Translated images `(B, C, H, W)` in [-1, 1] with the paths of their sources, and what was left out.

        `left_out` are messages about images that could not be read, or are not of a size for the network.
        """
        left_out = list(batch.get("unreadable", ()))
        if "source" not in batch:  # none of them could be read
            return {"image": [], "path": [], "left_out": left_out}
        generator = self._translator()
        try:
            return {"image": generator(batch["source"]), "path": batch["path"], "left_out": left_out}
        except UserError as error:  # the size is not for this network; that of other images may be
            left_out += [f"Image {path}: {error}" for path in batch["path"]]
            return {"image": [], "path": [], "left_out": left_out}

    def forward(self, source: Tensor) -> Tensor:
        """Translate images (B, C, H, W) in [-1, 1] with the compressed generator, else the trained one.

        Raises:
            UserError: Two generators are compressed.
        """
        image: Tensor = self._translator()(source)
        return image

    def _translator(self) -> nn.Module:
        if len(self.task.compressed) > 1:
            raise UserError(
                "model.task.direction: both leaves open which generator should translate; choose AtoB "
                "or BtoA."
            )
        *_, generator = self.generators(self.task.compressed[0]).values()
        return generator
