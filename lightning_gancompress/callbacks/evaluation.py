"""Measuring generators: image errors while training, and everything about them at test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_gancompress.callbacks.report import measure_costs, measure_latencies, write_report
from lightning_gancompress.density import density_coverage, neighbourhood_ise
from lightning_gancompress.errors import UserError
from lightning_gancompress.metrics import Feature, InceptionMetrics, distances, l1, psnr, ssim
from lightning_gancompress.tasks import Task, suffix

METRICS = {"l1": l1, "psnr": psnr, "ssim": ssim}
TRAINING = 2**40  # added to the positions of training images, to tell them from the test's
NEIGHBOURS = 5  # of the density metrics, as in the search and in Naeem et al. 2020


class Evaluation(Callback):
    """Measure how close the generated images come to their targets, and what the generators cost.

    Validation logs `val/l1` (of pixels in [-1, 1]), `val/psnr` and `val/ssim` of the trained generator, where
    there are pairs, and `val/teacher_l1`, the student's distance to the teacher. Test measures every
    generator, adds FID, KID and the student's local density beside the teacher's, MACs, parameters, file size
    and latency, and writes `<default_root_dir>/test/results.json` and `table.md`. For CycleGAN all of it is
    done per direction: `val/AtoB/teacher_l1`, `results_AtoB.json`.
    Each image counts once, however many processes share the work and however they pad their shares.

    Args:
        fid_weights: torch-fidelity's Inception weight file; None downloads it when it is needed.
        fid_feature: Inception's layer for FID and KID: 2048 is FID proper, 64, 192 and 768 are earlier ones;
            None measures neither.
        fid_reals: The real images that FID and KID compare with: those of the test split, or all, as papers
            on CycleGAN compression do.
        latency: Whether to time the generators, one image at a time on the CPU.
        latency_threads: CPU threads for that.
        latency_repetitions: Timed calls of each.
    """

    def __init__(
        self,
        fid_weights: str | None = None,
        fid_feature: Feature | None = None,
        fid_reals: Literal["test", "train+test"] = "test",
        latency: bool = True,
        latency_threads: int = 1,
        latency_repetitions: int = 20,
    ) -> None:
        if fid_weights is not None and fid_feature is None:
            raise UserError(
                f"fid_weights is {fid_weights}, but fid_feature is not set: set it to 64, 192, 768 or 2048."
            )
        self.fid_weights, self.fid_feature, self.fid_reals = fid_weights, fid_feature, fid_reals
        self.latency, self.latency_threads = latency, latency_threads
        self.latency_repetitions = latency_repetitions
        # outside any module, so that Inception never enters a checkpoint
        self._inception: InceptionMetrics | None = None
        self._values: dict[str, dict[str, list[Tensor]]] = {}  # by role and metric
        self._samples: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load Inception before a test, so that missing weights are reported at once."""
        if stage == "test" and self.fid_feature is not None:
            self._inception = InceptionMetrics(
                self.fid_feature, self.fid_weights, trainer.strategy.root_device
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free Inception."""
        self._inception = None

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
        """Forget earlier images."""
        self._values, self._samples = {}, {}

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
            if self._inception is not None:
                for name in generators(pl_module, role):
                    self._inception.update(f"{role}/{name}", images[name])
        self._see_real(trainer, pl_module, batch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means and write the reports."""
        if self.fid_reals == "train+test":
            self._see_training_images(trainer, pl_module)
        for role in [role for role in task_of(pl_module).wanted if role in self._values]:
            values, keep = self._gather(pl_module, role)
            means = {key: float(value.mean()) for key, value in values.items()}
            if self._inception is not None:
                means |= self._distances(self._inception, pl_module, role, keep)
            for key, value in means.items():
                pl_module.log(f"test/{prefix(role)}{key}", value, sync_dist=True)
            if trainer.is_global_zero:
                self._report(trainer, pl_module, role, means, len(keep))
        if self._inception is not None:
            self._inception.reset()

    def _see_real(self, trainer: Trainer, pl_module: LightningModule, batch: Any, offset: int = 0) -> None:
        """Note the features of the real images in a batch; `offset` keeps splits apart."""
        task = task_of(pl_module)
        for role, images in task.targets(batch).items() if self._inception is not None else ():
            if role in task.wanted:
                assert self._inception is not None
                self._inception.update(f"{role}/target", images)
                index = task.target_index(batch)[role]
                self._number(
                    trainer, f"{role}/target", index if index is None else index + offset, len(images)
                )

    def _see_training_images(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Real images of the training split, as evaluation sees them; every rank sees them all."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if self._inception is None:
            return
        for batch in datamodule.plain_train_loader():
            self._see_real(trainer, pl_module, batch, offset=TRAINING)

    def _distances(
        self, inception: InceptionMetrics, pl_module: LightningModule, role: str, keep: Tensor
    ) -> dict[str, float]:
        """FID and KID, where there are real images, and the student's local density beside the teacher's."""
        features = {
            name: gather_rows(inception.features(f"{role}/{name}"), pl_module.device)[keep]
            for name in generators(pl_module, role)
        }
        found: dict[str, float] = {}
        if f"{role}/target" in self._values:
            _, keep_real = self._gather(pl_module, f"{role}/target")
            real = gather_rows(inception.features(f"{role}/target"), pl_module.device)[keep_real]
            for name, rows in features.items():
                found |= {f"{name}/{key}": value for key, value in distances(rows, real).items()}
        if "teacher" in features and "student" in features and len(keep) > NEIGHBOURS:
            found |= density(features["teacher"], features["student"])
        return found

    def _measure(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, dict[str, Tensor]],
        batch: Any,
        trained_only: bool = False,
    ) -> None:
        """Note one value per image for every metric of the generators."""
        views = task_of(pl_module).views(batch)
        for role, images in outputs.items():
            names = list(generators(pl_module, role))[-1 if trained_only else 0 :]
            values = {
                f"{name}/{key}": metric(images[name], images["target"])
                for name in names
                for key, metric in (METRICS.items() if "target" in images else ())
            }
            if "teacher" in images and "student" in images:
                values["teacher_l1"] = l1(images["student"], images["teacher"])
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

    def _report(
        self, trainer: Trainer, pl_module: LightningModule, role: str, means: dict[str, float], images: int
    ) -> None:
        networks, sample, phase = generators(pl_module, role), self._samples[role], cast(Any, pl_module).phase
        results: dict[str, Any] = {
            "phase": phase,
            "images": images,
            "size": list(sample.shape[2:]),
            "networks": {name: measure_costs(network, sample) for name, network in networks.items()},
        }
        if any("/fid" in key for key in means):
            results["fid_reals"] = self.fid_reals
        if self.latency and phase != "search":  # under masks a network is no faster yet, and can't be copied
            times = measure_latencies(networks, sample, self.latency_threads, self.latency_repetitions)
            for name, time in times.pop("networks").items():
                results["networks"][name]["latency_ms"] = time
            results["latency"] = times
        for key, value in means.items():
            name, _, metric = key.rpartition("/")
            (results["networks"][name] if name else results)[metric] = value
        write_report(Path(trainer.default_root_dir, "test"), results, suffix(role))


def generators(pl_module: LightningModule, role: str) -> dict[str, nn.Module]:
    """The generators of a module of this package, the trained one last."""
    return cast("dict[str, nn.Module]", cast(Any, pl_module).generators(role))


def task_of(pl_module: LightningModule) -> Task:
    """The task of a module of this package."""
    return cast(Task, cast(Any, pl_module).task)


def prefix(role: str) -> str:
    """What stands before a metric's name: nothing for Pix2Pix, `AtoB/` for `generator_AtoB`."""
    return f"{suffix(role)[1:]}/" if suffix(role) else ""


def density(teacher: Tensor, student: Tensor) -> dict[str, float]:
    """How well the student keeps the teacher's local density, from Inception features (N, D) of both.

    Returns:
        `teacher_density` and `teacher_coverage` (1 is best), and `teacher_ise` (0 is best), the mean
        integrated squared error within the neighbourhoods.
    """
    teacher, student = (normalize(features, dim=1) for features in (teacher, student))
    found, coverage = density_coverage(teacher, student, NEIGHBOURS)
    ise = neighbourhood_ise(teacher, student, NEIGHBOURS)
    return {"teacher_density": found, "teacher_coverage": coverage, "teacher_ise": ise}


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
