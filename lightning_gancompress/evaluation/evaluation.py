"""The callback that measures generators: image errors in validation, all figures at test."""

from __future__ import annotations

from typing import Annotated, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_gancompress.density import Encoder
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.evaluable import evaluable, output_folder, phase_of, tested
from lightning_gancompress.evaluation.exported import ExportedFiles
from lightning_gancompress.evaluation.measure import Findings, Measure, Seen
from lightning_gancompress.evaluation.measures.costs import Costs, Device, Runtime
from lightning_gancompress.evaluation.measures.density import LocalDensity
from lightning_gancompress.evaluation.measures.image_errors import ImageErrors, ValidationErrors
from lightning_gancompress.evaluation.measures.set_distances import Reals, SetDistances
from lightning_gancompress.evaluation.metrics import register
from lightning_gancompress.evaluation.results import NetworkResults, Tested, TestResults
from lightning_gancompress.evaluation.session import Session
from lightning_gancompress.evaluation.table import figures, write_results_and_table
from lightning_gancompress.files import require_writable
from lightning_gancompress.loggers import log_table
from lightning_gancompress.metrics import Feature, Resize
from lightning_gancompress.options import Count, Items, Threads, checked
from lightning_gancompress.training.phase import SEARCH


class Evaluation(Callback):
    """Measures how close generated images are to their targets, and what the generators cost.

    Validation logs `val/l1` (of pixels in [-1, 1]), `val/psnr` and `val/ssim` of the trained generator,
    where there are pairs, and `val/teacher_l1`, the student's distance to the teacher; in a search, whose
    student is masked, `search/val/l1` and so on. Test measures every generator: also FID, KID, density,
    coverage, precision and recall against the real images, the student's local density against the
    teacher's, MACs, parameters, file size, memory, latency, and the figures of every `Measure` in
    `trainer.callbacks`. It writes `<default_root_dir>/test/results.json` and `table.md` (`test_best/` for
    `best.ckpt`), and gives loggers that take tables the figures as `test/table`.
    For CycleGAN all figures are per direction: `val/AtoB/teacher_l1`, `results_AtoB.json`. Each image counts
    once, also if several processes share the images and pad their shares.

    Args:
        fid_weights: torch-fidelity's Inception weight file; None downloads it when it is needed.
        fid_feature: Inception's layer for FID and KID: 2048 is the usual FID, 64, 192 and 768 are earlier
            layers; None measures neither.
        fid_reals: Real images of FID and KID: those of the test split, or all, as in papers on CycleGAN
            compression.
        fid_resize: How images are resized to Inception's 299 pixels; most papers use `pytorch-fid`.
        density_encoder: Feature space of density, coverage, precision, recall and neighbourhood ISE; None is
            Inception's, where `fid_feature` is set.
        lpips_weights: File of torchvision's AlexNet or VGG-16, to measure LPIPS as well.
        cache_dir: Folder where Inception's features of the real images are cached; None is
            `<default_root_dir>/cache`.
        exported: Exported files to measure beside the networks, with the same figures, and with the latency
            of the file itself in its runtime: ONNX files, OpenVINO's `.xml`. For CycleGAN their names have
            the direction (`generator_AtoB.int8.onnx`).
        latency: Whether to time the generators, one image at a time.
        latency_runtimes: Runtimes to time: torch, torch after `torch.compile`, ONNX Runtime, OpenVINO;
            those of exported files are timed as well.
        latency_device: Device of torch's timings.
        latency_threads: CPU threads while timing.
        latency_repetitions: Timed calls per generator.
    """

    @checked
    def __init__(
        self,
        fid_weights: str | None = None,
        fid_feature: Feature | None = None,
        fid_reals: Reals = "test",
        fid_resize: Resize = "torch-fidelity",
        density_encoder: Encoder | None = None,
        lpips_weights: str | None = None,
        cache_dir: str | None = None,
        exported: list[str] | None = None,
        latency: bool = True,
        latency_runtimes: Annotated[list[Runtime], Items()] | None = None,
        latency_device: Device = "cpu",
        latency_threads: Threads = 1,
        latency_repetitions: Count = 20,
    ) -> None:
        if fid_weights is not None and fid_feature is None:
            raise UserError(
                f"fid_weights is {fid_weights}, but fid_feature is not set: set it to 64, 192, 768 or 2048."
            )
        runtimes = latency_runtimes or ["torch"]
        self.exported = ExportedFiles(exported or [])
        measures: list[Measure] = [
            Costs(latency, runtimes, latency_device, latency_threads, latency_repetitions, self.exported),
            ImageErrors(lpips_weights),
        ]
        if fid_feature is not None:
            local = density_encoder is None
            measures.append(SetDistances(fid_feature, fid_weights, fid_resize, fid_reals, cache_dir, local))
        if density_encoder is not None:
            measures.append(LocalDensity(density_encoder))
        self.measures, self._validation = measures, ValidationErrors()
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The current validation or test."""
        assert self._session is not None
        return self._session

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the networks of measures before a test, and check before a fit that a test will find them."""
        if stage == "test":
            self.exported.open(evaluable(pl_module).task.compressed)
        for measure in self.measures if stage in ("fit", "test") else ():
            measure.setup(trainer, pl_module, stage)
        if stage == "test" and trainer.is_global_zero:
            require_writable(output_folder(trainer, "test"), "trainer.default_root_dir")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the networks of measures."""
        self._session = None
        self.exported.close()
        for measure in self.measures:
            measure.teardown(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a session of validation."""
        self._session = Session(trainer, pl_module, [self._validation])

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
            self.session.add(outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means over all images of all ranks."""
        for role in self.session.roles:
            _, findings = self.session.findings(role)
            log(pl_module, f"{phase_prefix(pl_module)}val/{role.log_prefix}", findings)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a session of the test, with the user's measures after the built-in ones."""
        users = [c for c in trainer.callbacks if isinstance(c, Measure)]  # type: ignore[attr-defined]
        self._session = Session(trainer, pl_module, [*self.measures, *users], self.exported)
        for measure in self._session.measures:
            register(*measure.metrics)
        for measure in self.measures:  # the hooks of the user's are called by Lightning
            measure.on_test_epoch_start(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure every generator's images, and the real ones."""
        self.session.add(outputs, batch)
        self.session.add_real(batch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures and write results and tables."""
        for role in self.session.roles:
            seen, findings = self.session.findings(role)
            log(pl_module, f"test/{role.log_prefix}", findings)
            if trainer.is_global_zero:
                weights = tested(trainer, pl_module)
                files = tuple(self.exported.of(role))
                results = results_of(phase_of(pl_module), weights, seen, findings, files)
                write_results_and_table(output_folder(trainer, "test"), results, role.suffix)
                log_table(trainer, f"test/table{role.suffix}", *figures(results))


def log(module: LightningModule, prefix: str, findings: Findings) -> None:
    """Log the figures that are floats."""
    for name, figure in findings.logged():
        module.log(prefix + name, figure, sync_dist=True)


def phase_prefix(module: LightningModule) -> str:
    """What comes before the names of validation figures: `search/` in a search, else nothing."""
    return SEARCH if phase_of(module) == "search" else ""


def results_of(
    phase: str, weights: Tested, seen: Seen, findings: Findings, exported: tuple[str, ...] = ()
) -> TestResults:
    """The content of `results.json`."""
    _, _, height, width = seen.sample.shape
    return TestResults(
        phase=phase,
        images=seen.count,
        size=(height, width),
        networks={name: NetworkResults.of(figures) for name, figures in findings.networks.items()},
        comparison=findings.comparison,
        latency=findings.latency,
        facts=findings.facts,
        checkpoint=weights,
        exported=exported,
    )
