"""Measuring generators: image errors while training, and everything about them at test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_gancompress.density import (
    Encoder,
    cache_key,
    density_coverage,
    load_table,
    neighbourhood_ise,
    precision_recall,
    save_table,
)
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.costs import (
    Runtime,
    measure_costs,
    measure_latencies,
    measure_memory,
    require_runtimes,
)
from lightning_gancompress.evaluation.measure import Measure, merge
from lightning_gancompress.metrics import (
    Feature,
    InceptionMetrics,
    Lpips,
    Resize,
    distances,
    l1,
    psnr,
    ssim,
)
from lightning_gancompress.reporting.table import write_report
from lightning_gancompress.tasks import Task

METRICS = {"l1": l1, "psnr": psnr, "ssim": ssim}
TRAINING = 2**40  # added to the positions of training images, to tell them from the test's
NEIGHBOURS = 5  # of the density metrics, as in the search and in Naeem et al. 2020


class Evaluation(Callback):
    """Measure how close the generated images come to their targets, and what the generators cost.

    Validation logs `val/l1` (of pixels in [-1, 1]), `val/psnr` and `val/ssim` of the trained generator, where
    there are pairs, and `val/teacher_l1`, the student's distance to the teacher. Test measures every
    generator, adds FID, KID, and density, coverage, precision and recall against the real images, the
    student's local density beside the teacher's, MACs, parameters, file size, memory and latency, and what
    every `Measure` among the callbacks found; it writes `<default_root_dir>/test/results.json` and
    `table.md`. For CycleGAN all of it is done per direction: `val/AtoB/teacher_l1`, `results_AtoB.json`.
    Each image counts once, however many processes share the work and however they pad their shares.

    Args:
        fid_weights: torch-fidelity's Inception weight file; None downloads it when it is needed.
        fid_feature: Inception's layer for FID and KID: 2048 is FID proper, 64, 192 and 768 are earlier ones;
            None measures neither.
        fid_reals: The real images that FID and KID compare with: those of the test split, or all, as papers
            on CycleGAN compression do.
        fid_resize: How images reach Inception's 299 pixels; `pytorch-fid` is the code that most papers use.
        density_encoder: Feature space of density, coverage, precision, recall and neighbourhood ISE; None is
            Inception's, where `fid_feature` is set.
        lpips_weights: File of torchvision's AlexNet or VGG-16, to measure LPIPS as well.
        cache_dir: Where Inception's features of the real images are kept for other tests; None is
            `<default_root_dir>/cache`.
        latency: Whether to time the generators, one image at a time.
        latency_runtimes: What runs them: torch as it is, after `torch.compile`, ONNX Runtime.
        latency_device: Where torch runs them.
        latency_threads: CPU threads for that.
        latency_repetitions: Timed calls of each.
    """

    def __init__(
        self,
        fid_weights: str | None = None,
        fid_feature: Feature | None = None,
        fid_reals: Literal["test", "train+test"] = "test",
        fid_resize: Resize = "torch-fidelity",
        density_encoder: Encoder | None = None,
        lpips_weights: str | None = None,
        cache_dir: str | None = None,
        latency: bool = True,
        latency_runtimes: list[Runtime] | None = None,
        latency_device: str = "cpu",
        latency_threads: int = 1,
        latency_repetitions: int = 20,
    ) -> None:
        if fid_weights is not None and fid_feature is None:
            raise UserError(
                f"fid_weights is {fid_weights}, but fid_feature is not set: set it to 64, 192, 768 or 2048."
            )
        self.fid_weights, self.fid_feature, self.fid_reals = fid_weights, fid_feature, fid_reals
        self.fid_resize, self.density_encoder, self.lpips_weights = fid_resize, density_encoder, lpips_weights
        self.cache_dir = cache_dir
        self.latency, self.latency_threads, self.latency_device = latency, latency_threads, latency_device
        self.latency_runtimes: list[Runtime] = latency_runtimes or ["torch"]
        self.latency_repetitions = latency_repetitions
        # outside any module, so that Inception never enters a checkpoint
        self._inception: InceptionMetrics | None = None
        self._lpips: Lpips | None = None
        self._reals: dict[str, Tensor] = {}  # Inception's features that an earlier test has left, by role
        self._encoded: dict[str, list[Tensor]] = {}  # by role and generator, of the encoder of densities
        self._values: dict[str, dict[str, list[Tensor]]] = {}  # by role and metric
        self._samples: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load networks that measure before a test, so that missing weights are reported at once."""
        if stage != "test":
            return
        device = trainer.strategy.root_device
        if self.latency:
            require_runtimes(self.latency_runtimes)
        if self.fid_feature is not None:
            self._inception = InceptionMetrics(self.fid_feature, self.fid_weights, device, self.fid_resize)
        if self.lpips_weights is not None:
            self._lpips = Lpips(self.lpips_weights, device)
        if self.density_encoder is not None:
            self.density_encoder.to(device)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free them."""
        self._inception = self._lpips = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier images."""
        self._values = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the trained generators' images."""
        if not trainer.sanity_checking:
            self._measure(trainer, pl_module, outputs, batch, trained_only=True)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means over all images of all ranks."""
        for role in list(self._values):
            *_, name = generators(pl_module, role)
            for key, values in self._gather(pl_module, role)[0].items():
                log_name = f"val/{prefix(role)}{key.removeprefix(f'{name}/')}"
                pl_module.log(log_name, values.mean(), sync_dist=True)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier images, and look for the real ones' features."""
        self._values, self._samples, self._encoded = {}, {}, {}
        self._reals = {
            role: features
            for role in task_of(pl_module).compressed
            if (features := self._cached_reals(trainer, role)) is not None
        }

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure every generator's images."""
        self._measure(trainer, pl_module, outputs, batch)
        for role, images in outputs.items():
            if role not in self._samples:
                self._samples[role] = images["source"][:1].float().cpu()
            for name in generators(pl_module, role):
                if self._inception is not None:
                    self._inception.update(f"{role}/{name}", images[name])
                if self.density_encoder is not None:
                    with torch.no_grad():
                        points = self.density_encoder(images["source"].float(), images[name].float()).cpu()
                    self._encoded.setdefault(f"{role}/{name}", []).append(points)
        self._see_real(trainer, pl_module, batch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means and write the reports."""
        if self.fid_reals == "train+test":
            self._see_training_images(trainer, pl_module)
        for role in [role for role in task_of(pl_module).compressed if role in self._values]:
            values, keep = self._gather(pl_module, role)
            results: dict[str, Any] = {"images": len(keep), "networks": {}}
            for key, value in values.items():
                name, _, metric = key.rpartition("/")
                part = results["networks"].setdefault(name, {}) if name else results
                part[metric] = float(value.mean())
            merge(results, self._distances(trainer, pl_module, role, keep))
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, Measure):
                    merge(results, callback.findings(trainer, pl_module, role))
            for key, figure in flatten(results):
                pl_module.log(f"test/{prefix(role)}{key}", figure, sync_dist=True)
            if trainer.is_global_zero:
                self._report(trainer, pl_module, role, results)
        if self._inception is not None:
            self._inception.reset()

    def _see_real(self, trainer: Trainer, pl_module: LightningModule, batch: Any, offset: int = 0) -> None:
        """Note the features of the real images in a batch; `offset` keeps splits apart."""
        task = task_of(pl_module)
        for role, images in task.targets(batch).items() if self._inception is not None else ():
            if role in task.compressed and role not in self._reals:
                assert self._inception is not None
                self._inception.update(f"{role}/target", images)
                index = task.target_index(batch)[role]
                self._number(
                    trainer, f"{role}/target", index if index is None else index + offset, len(images)
                )

    def _see_training_images(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Real images of the training split, as evaluation sees them; every rank sees them all."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if self._inception is None or set(self._reals) >= set(task_of(pl_module).compressed):
            return
        for batch in datamodule.plain_train_loader():
            self._see_real(trainer, pl_module, batch, offset=TRAINING)

    def _cached_reals(self, trainer: Trainer, role: Any) -> Tensor | None:
        """Features of a generator's real images from an earlier test, the same on all ranks."""
        key = self._reals_key(trainer, role)
        found = None if key is None else load_table(self._cache(trainer), key)
        return trainer.strategy.broadcast(found)

    def _reals_key(self, trainer: Trainer, role: Any) -> str | None:
        """What the features of the real images depend on; None where the data can't be told apart."""
        datamodule: Any = getattr(trainer, "datamodule", None)
        if self._inception is None or not hasattr(datamodule, "fingerprint"):
            return None
        prints = [datamodule.fingerprint(split) for split in self.fid_reals.split("+")]
        inception = self._inception
        return cache_key("reals", role, prints, inception.feature, inception.resize, inception.weights_sha256)

    def _cache(self, trainer: Trainer) -> Path:
        return Path(self.cache_dir or Path(trainer.default_root_dir) / "cache")

    def _real_features(self, trainer: Trainer, pl_module: LightningModule, role: Any) -> Tensor | None:
        """Features of a generator's real images, from the cache or of this test, which leaves them there."""
        group = f"{role}/target"
        if role in self._reals or group not in self._values:
            return self._reals.get(role)
        assert self._inception is not None
        _, keep = self._gather(pl_module, group)
        features = gather_rows(self._inception.features(group), pl_module.device)[keep]
        key = self._reals_key(trainer, role)
        if key is not None and trainer.is_global_zero:
            save_table(self._cache(trainer), key, features)
        return features

    def _distances(
        self, trainer: Trainer, pl_module: LightningModule, role: Any, keep: Tensor
    ) -> dict[str, Any]:
        """Distances between sets: FID, KID and densities against real images and against the teacher's."""
        found: dict[str, Any] = {"networks": {}}
        points: dict[str, Tensor] = {}
        if self._inception is not None:
            real = self._real_features(trainer, pl_module, role)
            for name in generators(pl_module, role):
                features = self._inception.features(f"{role}/{name}")
                points[name] = gather_rows(features, pl_module.device)[keep]
                if real is not None:
                    found["networks"][name] = distances(points[name], real) | manifold(real, points[name])
            if real is not None:
                found["fid_reals"] = self.fid_reals
                found["fid"] = {
                    "feature": self._inception.feature,
                    "resize": self._inception.resize,
                    "weights_sha256": self._inception.weights_sha256,
                    "reals": self.fid_reals,
                    "n_real": len(real),
                    "n_fake": len(keep),
                }
        if self.density_encoder is not None:
            points = {
                name: gather_rows(torch.cat(self._encoded[f"{role}/{name}"]), pl_module.device)[keep]
                for name in generators(pl_module, role)
            }
        if "teacher" in points and "student" in points and len(keep) > NEIGHBOURS:
            found |= density(points["teacher"], points["student"])
            encoder = "Inception" if self.density_encoder is None else type(self.density_encoder).__name__
            found["density"] = {"encoder": encoder, "k": NEIGHBOURS}
        return found

    def _measure(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[Any, dict[str, Tensor]],
        batch: Any,
        trained_only: bool = False,
    ) -> None:
        """Note one value per image for every metric of the generators."""
        views = task_of(pl_module).views(batch)
        for role, images in outputs.items():
            names = list(generators(pl_module, role))[-1 if trained_only else 0 :]
            metrics = METRICS | ({"lpips": self._lpips} if self._lpips is not None else {})
            values = {
                f"{name}/{key}": metric(images[name], images["target"])
                for name in names
                for key, metric in (metrics.items() if "target" in images else ())
            }
            if "teacher" in images and "student" in images:
                for key, metric in metrics.items() if not trained_only else [("l1", l1)]:
                    values[f"teacher_{key}"] = metric(images["student"], images["teacher"])
            for key, value in values.items():
                self._note(role, key, value)
            self._number(trainer, role, views[role].get("index"), len(images["source"]))

    def _number(self, trainer: Trainer, group: str, index: Tensor | None, count: int) -> None:
        """Note the positions of images; data that does not number them has only different ones."""
        if index is None:
            seen = sum(map(len, self._values.get(group, {}).get("index", [])))
            index = (torch.arange(count) + seen) * trainer.world_size + trainer.global_rank
        self._note(group, "index", index)

    def _note(self, group: str, key: str, value: Tensor) -> None:
        self._values.setdefault(group, {}).setdefault(key, []).append(value.detach().cpu())

    def _gather(self, pl_module: LightningModule, group: str) -> tuple[dict[str, Tensor], Tensor]:
        """Values (N,) per metric of all ranks' images, each image once, and their rows in the gathering."""
        gathered = {
            key: gather_rows(torch.cat(parts), pl_module.device)
            for key, parts in self._values.pop(group).items()
        }
        keep = first_of_each(gathered.pop("index"))
        return {key: values[keep].double() for key, values in gathered.items()}, keep

    def _report(self, trainer: Trainer, pl_module: LightningModule, role: Any, found: dict[str, Any]) -> None:
        networks, sample, phase = (
            generators(pl_module, role),
            self._samples[role],
            cast(Any, pl_module).phase.name,
        )
        results: dict[str, Any] = {
            "phase": phase,
            "images": found["images"],
            "size": list(sample.shape[2:]),
            "networks": {name: measure_costs(network, sample) for name, network in networks.items()},
        }
        if phase != "search":  # under masks a network is no faster and no smaller yet, and can't be copied
            for name, network in networks.items():
                results["networks"][name]["activation_bytes"] = measure_memory(network, sample)
            if self.latency:
                merge(
                    results,
                    measure_latencies(
                        networks,
                        sample,
                        self.latency_runtimes,
                        self.latency_device,
                        self.latency_threads,
                        self.latency_repetitions,
                    ),
                )
        merge(results, found)
        write_report(Path(trainer.default_root_dir, "test"), results, role.suffix)


def generators(pl_module: LightningModule, role: Any) -> dict[str, nn.Module]:
    """The generators of a module of this package, the trained one last."""
    return cast("dict[str, nn.Module]", cast(Any, pl_module).generators(role))


def task_of(pl_module: LightningModule) -> Task:
    """The task of a module of this package."""
    return cast(Task, cast(Any, pl_module).task)


def prefix(role: Any) -> str:
    """What stands before a metric's name: nothing for Pix2Pix, `AtoB/` for `generator_AtoB`."""
    return str(role.log_prefix)


def density(teacher: Tensor, student: Tensor) -> dict[str, float]:
    """How well the student keeps the teacher's local density, from features (N, D) of both.

    Returns:
        `teacher_density`, `teacher_coverage`, `teacher_precision` and `teacher_recall` (1 is best), and
        `teacher_ise` (0 is best), the mean integrated squared error within the neighbourhoods.
    """
    teacher, student = (normalize(features, dim=1) for features in (teacher, student))
    found = {f"teacher_{key}": value for key, value in manifold(teacher, student).items()}
    return found | {"teacher_ise": neighbourhood_ise(teacher, student, NEIGHBOURS)}


def manifold(reference: Tensor, samples: Tensor) -> dict[str, float]:
    """Density, coverage, precision and recall of features (N, D) and (M, D), where there are enough."""
    if min(len(reference), len(samples)) <= NEIGHBOURS:
        return {}
    found, coverage = density_coverage(reference, samples, NEIGHBOURS)
    precision, recall = precision_recall(reference, samples, NEIGHBOURS)
    return {"density": found, "coverage": coverage, "precision": precision, "recall": recall}


def flatten(results: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """What was measured, without counts and protocols: `student/l1`, `teacher_l1` and the like."""
    for name, values in results["networks"].items():
        yield from ((f"{name}/{key}", value) for key, value in values.items() if isinstance(value, float))
    yield from ((key, value) for key, value in results.items() if isinstance(value, float))


def gather_rows(rows: Tensor, device: torch.device) -> Tensor:
    """The rows (n, ...) of all ranks below each other, on the CPU; n may differ between them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    return torch.cat([part.cpu() for part in gather_all_tensors(rows.to(device))])


def first_of_each(index: Tensor) -> Tensor:
    """Positions of the first occurrence of every value, in the order of the values."""
    order = index.argsort(stable=True)
    values = index[order]
    new = torch.ones_like(values, dtype=torch.bool)
    new[1:] = values[1:] != values[:-1]
    return order[new]
