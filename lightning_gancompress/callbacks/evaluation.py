"""Measuring generators: image errors while training, and everything about them at test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_gancompress.callbacks.report import measure_costs, measure_latencies, write_report
from lightning_gancompress.density import density_coverage, neighbourhood_ise
from lightning_gancompress.errors import UserError
from lightning_gancompress.metrics import Feature, InceptionMetrics, distances, l1, psnr, ssim

METRICS = {"l1": l1, "psnr": psnr, "ssim": ssim}
NEIGHBOURS = 5  # of the density metrics, as in the search and in Naeem et al. 2020


class Evaluation(Callback):
    """Measure how close the generated images come to their targets, and what the generators cost.

    Validation logs `val/l1` (of pixels in [-1, 1]), `val/psnr` and `val/ssim` of the trained generator, and
    `val/teacher_l1`, the student's distance to the teacher. Test measures every generator, adds FID, KID and
    the student's local density beside the teacher's, MACs, parameters, file size and latency, and writes
    `<default_root_dir>/test/results.json` and `table.md`.
    Each image counts once, however many processes share the work and however they pad their shares.

    Args:
        fid_weights: torch-fidelity's Inception weight file; None downloads it when it is needed.
        fid_feature: Inception's layer for FID and KID: 2048 is FID proper, 64, 192 and 768 are earlier ones;
            None measures neither.
        latency: Whether to time the generators, one image at a time on the CPU.
        latency_threads: CPU threads for that.
        latency_repetitions: Timed calls of each.
    """

    def __init__(
        self,
        fid_weights: str | None = None,
        fid_feature: Feature | None = None,
        latency: bool = True,
        latency_threads: int = 1,
        latency_repetitions: int = 20,
    ) -> None:
        if fid_weights is not None and fid_feature is None:
            raise UserError(
                f"fid_weights is {fid_weights}, but fid_feature is not set: set it to 64, 192, 768 or 2048."
            )
        self.fid_weights, self.fid_feature = fid_weights, fid_feature
        self.latency, self.latency_threads = latency, latency_threads
        self.latency_repetitions = latency_repetitions
        # outside any module, so that Inception never enters a checkpoint
        self._inception: InceptionMetrics | None = None
        self._values: dict[str, list[Tensor]] = {}
        self._sample: Tensor | None = None

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
        """Measure the trained generator's images."""
        if not trainer.sanity_checking and dataloader_idx == 0:
            names = list(generators(pl_module))
            self._measure(trainer, outputs, batch, names[-1:])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means over all images of all ranks."""
        if not self._values:
            return
        *_, name = generators(pl_module)
        for key, values in self._gather(pl_module)[0].items():
            pl_module.log(f"val/{key.removeprefix(f'{name}/')}", values.mean(), sync_dist=True)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier images."""
        self._values, self._sample = {}, None

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
        if dataloader_idx:
            return
        names = list(generators(pl_module))
        if self._sample is None:
            self._sample = outputs["source"][:1].float().cpu()
        self._measure(trainer, outputs, batch, names)
        if self._inception is not None:
            for name in ("target", *names):
                self._inception.update(name, outputs[name])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means and write the report."""
        if not self._values:
            return
        values, keep = self._gather(pl_module)
        means = {key: float(value.mean()) for key, value in values.items()}
        if self._inception is not None:
            features = {
                name: gather_rows(self._inception.features(name), pl_module.device)[keep]
                for name in ("target", *generators(pl_module))
            }
            self._inception.reset()
            for name in generators(pl_module):
                found = distances(features[name], features["target"])
                means |= {f"{name}/{key}": value for key, value in found.items()}
            if "teacher" in features and len(keep) > NEIGHBOURS:
                means |= density(features["teacher"], features[name])
        for key, value in means.items():
            pl_module.log(f"test/{key}", value, sync_dist=True)
        if trainer.is_global_zero:
            self._report(trainer, pl_module, means, len(keep))

    def _measure(
        self, trainer: Trainer, outputs: dict[str, Tensor], batch: Any, names: Sequence[str]
    ) -> None:
        """Note one value per image for every metric of the generators `names`."""
        values = {
            f"{n}/{key}": metric(outputs[n], outputs["target"])
            for n in names
            for key, metric in METRICS.items()
        }
        if "teacher" in outputs and names[-1] != "teacher":
            values["teacher_l1"] = l1(outputs[names[-1]], outputs["teacher"])
        index = batch.get("index") if isinstance(batch, dict) else None
        if index is None:  # data that does not number its images: take them all for different ones
            seen = sum(map(len, self._values.get("index", [])))
            index = (torch.arange(len(outputs["target"])) + seen) * trainer.world_size + trainer.global_rank
        for key, value in {"index": index, **values}.items():
            self._values.setdefault(key, []).append(value.detach().cpu())

    def _gather(self, pl_module: LightningModule) -> tuple[dict[str, Tensor], Tensor]:
        """Values (N,) per metric of all ranks' images, each image once, and their rows in the gathering."""
        gathered = {
            key: gather_rows(torch.cat(parts), pl_module.device) for key, parts in self._values.items()
        }
        self._values = {}
        keep = first_of_each(gathered.pop("index"))
        return {key: values[keep].double() for key, values in gathered.items()}, keep

    def _report(
        self, trainer: Trainer, pl_module: LightningModule, means: dict[str, float], images: int
    ) -> None:
        assert self._sample is not None
        networks, phase = generators(pl_module), cast(Any, pl_module).phase
        results: dict[str, Any] = {
            "phase": phase,
            "images": images,
            "size": list(self._sample.shape[2:]),
            "networks": {name: measure_costs(network, self._sample) for name, network in networks.items()},
        }
        if self.latency and phase != "search":  # under masks a network is no faster yet, and can't be copied
            times = measure_latencies(networks, self._sample, self.latency_threads, self.latency_repetitions)
            for name, time in times.pop("networks").items():
                results["networks"][name]["latency_ms"] = time
            results["latency"] = times
        for key, value in means.items():
            name, _, metric = key.rpartition("/")
            (results["networks"][name] if name else results)[metric] = value
        write_report(Path(trainer.default_root_dir, "test"), results)


def generators(pl_module: LightningModule) -> dict[str, nn.Module]:
    """The generators of a module of this package, the trained one last."""
    return cast("dict[str, nn.Module]", cast(Any, pl_module).generators())


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
