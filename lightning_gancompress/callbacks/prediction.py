"""The callback that writes predicted images to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_gancompress.data.contract import data_of
from lightning_gancompress.data.pictures import to_picture
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.evaluable import output_folder
from lightning_gancompress.files import require_writable, user_path, write_files
from lightning_gancompress.options import checked
from lightning_gancompress.ranks import of_all_ranks
from lightning_gancompress.reporting.grid import png
from lightning_gancompress.training.phase import Phased
from lightning_gancompress.translation.names import PictureNames


class PredictionWriter(Callback):
    """Writes predicted images to `<default_root_dir>/predictions/` as PNG, named like their sources.

    Subfolders are kept. If two sources in a folder differ by the suffix only (`a.jpg`, `a.png`), it becomes
    part of the name (`a.jpg.png`). Of a name that would be too long the end is replaced by a digest. At the
    end it says how many pictures were written, how many of them in place of earlier ones, and which images
    were left out.

    Args:
        folder: Folder to write to, relative to `default_root_dir`; images by `best.ckpt` go to
            `predictions_best`.
    """

    @checked
    def __init__(self, folder: str = "predictions") -> None:
        self.folder = user_path(folder)
        self._names = PictureNames()
        self._written, self._replaced, self._left_out = 0, 0, list[str]()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count; say if the images are of a search that isn't over."""
        self._written, self._replaced, self._left_out = 0, 0, []
        if isinstance(pl_module, Phased) and pl_module.phase.name == "search":
            rank_zero_info("The search isn't over: the images are of the network under its masks.")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before a prediction that its images can be written."""
        if stage == "predict" and trainer.is_global_zero:
            require_writable(output_folder(trainer, str(self.folder)), "trainer.default_root_dir")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the images of a batch."""
        sources = data_of(trainer).predict_folder
        for image, path in zip(outputs["image"], outputs["path"], strict=True):
            if len(image) not in (1, 3):
                raise UserError(
                    f"An image of {len(image)} channels can't be written as PNG: predictions need 1 or 3."
                )
            target = output_folder(trainer, str(self.folder)) / self.name(Path(path), sources)
            if target.exists() and Path(path).exists() and target.samefile(path):
                raise UserError(
                    f"The prediction of {path} would replace it: choose another data.predict_folder, or "
                    f"another folder for the predictions than {self.folder}."
                )
            self._replaced += target.exists()
            write_files({target: png(to_picture(image))})
            self._written += 1
        self._left_out += outputs.get("left_out", ())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how many pictures of all ranks went where, and which images were left out, and why.

        Raises:
            UserError: All were left out.
        """
        everyone = of_all_ranks((self._written, self._replaced, self._left_out))
        written, replaced = sum(rank[0] for rank in everyone), sum(rank[1] for rank in everyone)
        left_out = [text for _, _, texts in everyone for text in texts]
        if left_out and not written:
            raise UserError(f"No image was translated: {left_out[0]}")
        for text in left_out:
            rank_zero_warn(f"Left out: {text}")
        rest = f", {replaced} in place of earlier ones" if replaced else ""
        rest += f", {len(left_out)} left out" if left_out else ""
        rank_zero_info(f"Predictions: {written} in {output_folder(trainer, str(self.folder))}{rest}.")

    def name(self, path: Path, sources: str | None) -> Path:
        """The file to write for the source `path`, relative to the folder of predictions.

        Args:
            path: The source image.
            sources: Folder of the sources, to which paths are relative, or the one source; paths outside it
                are kept whole, so that files never collide.
        """
        return self._names.name(path, None if sources is None else user_path(sources))
