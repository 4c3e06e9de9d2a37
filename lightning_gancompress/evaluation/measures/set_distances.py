"""Distances between sets of images: FID, KID, density and coverage against the real images."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_gancompress.data.contract import PlainData, Split, data_of
from lightning_gancompress.data.ledger import Ledger
from lightning_gancompress.density import are_features, cache_folder, cache_key, load_table, save_table
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.evaluable import (
    evaluable,
    images_of_test,
    images_of_whole_test,
    training_batches,
)
from lightning_gancompress.evaluation.measure import Findings, Measure, Rows, Seen, Translated
from lightning_gancompress.evaluation.measures.density import NEIGHBOURS, beside_teacher, manifold
from lightning_gancompress.evaluation.metrics import FID
from lightning_gancompress.files import require_writable
from lightning_gancompress.metrics import Feature, InceptionFeatures, Resize, distances
from lightning_gancompress.tasks.role import Role

Reals = Literal["test", "train+test"]
REAL = "real"


class SetDistances(Measure):
    """FID, KID, density, coverage, precision and recall in Inception's features.

    Args:
        feature: Width of Inception's layer.
        weights: torch-fidelity's weight file; None downloads it.
        resize: How images are resized to Inception's 299 pixels.
        reals: Splits of the real images.
        cache_dir: Folder where features of the real images are cached; None is `<default_root_dir>/cache`.
        local_density: Whether to compare the student's local density with the teacher's in these features.
    """

    def __init__(
        self,
        feature: Feature,
        weights: str | None,
        resize: Resize,
        reals: Reals,
        cache_dir: str | None,
        local_density: bool,
    ) -> None:
        self.feature, self.weights, self.resize, self.reals = feature, weights, resize, reals
        self.cache_dir, self.local_density = cache_dir, local_density
        # not a submodule of the LightningModule, so that checkpoints don't hold it
        self._inception: InceptionFeatures | None = None
        self._cached: dict[Role, Tensor] = {}  # features of all real images, from the cache
        self._trained: dict[Role, Tensor] | None = None  # features of the training split

    @property
    def inception(self) -> InceptionFeatures:
        """Inception, during a test."""
        assert self._inception is not None
        return self._inception

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load Inception, so that missing weights are reported at once; before a fit only a given file."""
        if stage != "test":
            if self.weights is not None:
                InceptionFeatures(self.feature, self.weights)
            return
        device = trainer.strategy.root_device
        self._inception = InceptionFeatures(self.feature, self.weights, device, self.resize)
        if trainer.is_global_zero and not isinstance(data_of(trainer), PlainData):  # which is not cached
            folder = cache_folder(self.cache_dir, trainer)
            require_writable(folder, "cache_dir of Evaluation")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free Inception."""
        self._inception = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the features of the real images from the cache, the same on all ranks.

        Raises:
            UserError: The test has a single image.
        """
        _require_images(images_of_test(trainer))
        self._cached, self._trained = {}, None
        fits = partial(are_features, width=self.feature)
        for role in evaluable(pl_module).task.compressed:
            key = self._key(trainer, role)
            cached = None if key is None else load_table(cache_folder(self.cache_dir, trainer), key, fits)
            cached = trainer.strategy.broadcast(cached)
            if cached is not None:
                self._cached[role] = cached

    def rows(self, trainer: Trainer, pl_module: LightningModule, images: Translated) -> Rows:
        """Features `(B, D)` of every generator's images."""
        return {name: self.inception(image) for name, image in images.generated.items()}

    def real_rows(self, trainer: Trainer, pl_module: LightningModule, role: Role, images: Tensor) -> Rows:
        """Features `(B, D)` of real images, unless they are cached."""
        return {} if role in self._cached else {REAL: self.inception(images)}

    def findings(self, trainer: Trainer, pl_module: LightningModule, seen: Seen) -> Findings:
        """Distances of the generators to the real images, if any, and to the teacher's images."""
        teacher = seen.rows.get("teacher")
        findings = beside_teacher(seen.rows, "Inception") if self.local_density else Findings()
        if teacher is not None:
            others = {name: own for name, own in seen.rows.items() if name != "teacher"}
            findings.add(Findings.beside_teacher({k: distances(own, teacher) for k, own in others.items()}))
        real = self._real(trainer, pl_module, seen)
        if real is not None:
            for name, features in seen.rows.items():
                own = findings.networks.setdefault(name, {})
                own |= {**distances(features, real), **manifold(real, features)}
            findings.facts |= {"fid_reals": self.reals, FID: self._facts(len(real), seen.count)}
        return findings

    def _facts(self, n_real: int, n_fake: int) -> dict[str, object]:
        return {
            "feature": self.feature,
            "resize": self.resize,
            "weights_sha256": self.inception.weights_sha256,
            "reals": self.reals,
            "n_real": n_real,
            "n_fake": n_fake,
        }

    def _real(self, trainer: Trainer, pl_module: LightningModule, seen: Seen) -> Tensor | None:
        """Features `(M, D)` of the real images, from the cache or from this test, which caches them."""
        if seen.role in self._cached:
            return self._cached[seen.role]
        by_split = {"test": seen.real.get(REAL)}
        if self.reals == "train+test":
            by_split["train"] = self._training(trainer, pl_module).get(seen.role)
        present = [features for features in by_split.values() if features is not None]
        if not present:
            return None
        features = torch.cat(present)
        key = self._key(trainer, seen.role)
        if key is not None and trainer.is_global_zero:
            save_table(cache_folder(self.cache_dir, trainer), key, features)
        return features

    def _training(self, trainer: Trainer, pl_module: LightningModule) -> dict[Role, Tensor]:
        """Features of the training split's real images by role, computed once, by each rank for its share."""
        if self._trained is None:
            task = evaluable(pl_module).task
            ledger = Ledger[str](trainer.strategy.root_device, trainer.global_rank, trainer.world_size)
            for batch in training_batches(trainer):
                index = task.target_index(batch)
                for role, images in task.targets(batch).items():
                    if role in task.compressed and role not in self._cached:
                        rows = {REAL: self.inception(images)}
                        ledger.add(role, index[role], len(images), rows)
            self._trained = {Role(role): ledger.gather(role)[1][REAL] for role in ledger.groups}
        return self._trained

    def _key(self, trainer: Trainer, role: Role) -> str | None:
        """Cache key of the features of the real images; None if they can't be cached.

        That is if the data has no fingerprint, or the test skips images.
        """
        splits: list[Split] = ["train", "test"] if self.reals == "train+test" else ["test"]
        prints = [data_of(trainer).fingerprint(split) for split in splits]
        counts = images_of_whole_test(trainer)
        if None in prints or counts is None:
            return None
        weights = self.inception.weights_sha256
        return cache_key("reals", str(role), prints, counts, self.feature, self.resize, weights)


def _require_images(counts: list[int] | None) -> None:
    """Check the numbers of images of a test, if they are known, before any is translated."""
    least = min(counts or [], default=None)
    if least is None or least > NEIGHBOURS:
        return
    if least < 2:
        raise UserError(
            f"fid_feature: FID and KID need at least 2 images, and the test has {least}: test on more "
            "(data, trainer.limit_test_batches), or leave fid_feature out."
        )
    rank_zero_warn(
        f"Density, coverage, precision and recall need more than {NEIGHBOURS} images and are left out: the "
        f"test has {least}."
    )
