"""Lightning's trainer with the default callbacks of this project."""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.plugins import MixedPrecision, TorchCheckpointIO
from lightning.pytorch.plugins import Precision as Single
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_gancompress.callbacks import (
    BestCheckpoint,
    Evaluation,
    FoundChannels,
    HtmlReport,
    ImageGrid,
    LastCheckpoint,
    Monitors,
    PredictionWriter,
    ProgressBars,
    ProgressLines,
    SmallModel,
)
from lightning_gancompress.callbacks.earlier_run import EarlierRun
from lightning_gancompress.callbacks.monitors import of_search
from lightning_gancompress.callbacks.refused import refuse
from lightning_gancompress.callbacks.wandb_run import WandbRun, folder_of_sweep_run
from lightning_gancompress.checkpoint_io import AtomicCheckpointIO
from lightning_gancompress.devices import computes_bfloat16
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import require_writable, user_path
from lightning_gancompress.lightning_internals import (
    Precision,
    ResumableTrainer,
    look_for_unused_parameters,
    print_figures_once,
)
from lightning_gancompress.modules.supported import (
    require_address,
    require_available,
    require_known_precision,
    require_whole_networks,
)
from lightning_gancompress.run_folder import CHECKPOINTS, training_in
from lightning_gancompress.run_index import write_index
from lightning_gancompress.stop_signals import handlers_restored


class Trainer(ResumableTrainer):
    """Lightning's trainer, with all files of a run in one folder and runs that can be resumed.

    Unless `callbacks` has one of its kind, it adds `LastCheckpoint`, `BestCheckpoint`, `ImageGrid`,
    `Evaluation`, `PredictionWriter`, `FoundChannels`, `SmallModel`, `HtmlReport`, and `ProgressBars` in a
    terminal or `ProgressLines` elsewhere. A
    `ModelCheckpoint` or `EarlyStopping` acts in the phase whose figures it monitors: see `Monitors`.
    Checkpoints are written atomically. One run trains in a folder at a time, and a new one sets the results
    of an earlier one aside, in `previous-1`, `previous-2`, and so on. DDP looks for unused parameters, since
    each backward pass of a GAN reaches one network only.

    With `fast_dev_run` every phase takes one epoch of a batch or of the given number of batches, and what is
    written goes to a temporary folder.

    Steps, as of `max_steps`, `min_steps` and of checkpoints, are batches. A run that is stopped by
    `max_steps`, `max_time`, `max_epochs` or a callback can be resumed where it was.

    Args:
        default_root_dir: Folder of the run: checkpoints, images, logs, predictions. Of a run that an agent of
            a W&B sweep starts, the folder that the run's number names within it.
        logger: Loggers beside `CSVLogger` in `logs` of the run's folder, which the report reads; False for
            none. `WandbLogger` writes to the run's folder too.
        callbacks: Further callbacks, or others in place of the default ones.
        enable_checkpointing: Whether to add `LastCheckpoint` and `BestCheckpoint`.
        enable_progress_bar: Whether to show progress.
        enable_model_summary: Whether to print Lightning's summary; `profile` prints more.
        max_epochs: Epoch at which to stop before the module's own schedule ends; -1 for the whole schedule.
        max_steps: Batches of the whole run, not of one resume, after which to stop; -1 for no limit.
        max_time: Time of the whole run, not of one resume, after which to stop, such as `00:08:00:00` for
            eight hours; a run that is resumed without it counts anew.
        fast_dev_run: True or a number of batches: try all phases with so few, and keep nothing.
        reload_dataloaders_every_n_epochs: 1, since search and fine-tuning have different batches.
        precision: As Lightning's, or `auto`: bf16-mixed where the device computes in bfloat16 natively, else
            32-true.
        channels_last: Whether images and filters lie in memory with the channels last; `auto`: in 16 bits,
            where the device computes in these natively and no network has instance norms.
        barebones: Lightning's switch for measuring its overhead; adds no callbacks.
    """

    def __init__(
        self,
        *,
        default_root_dir: str | Path | None = "runs/default",
        logger: Logger | Iterable[Logger] | bool | None = None,
        callbacks: list[Callback] | Callback | None = None,
        enable_checkpointing: bool | None = None,
        enable_progress_bar: bool | None = None,
        enable_model_summary: bool = False,
        max_epochs: int | None = -1,
        max_steps: int = -1,
        max_time: str | timedelta | dict[str, int] | None = None,
        fast_dev_run: int | bool = False,
        reload_dataloaders_every_n_epochs: int = 1,
        precision: Precision | None = None,
        channels_last: bool | Literal["auto"] = "auto",
        barebones: bool = False,
        **kwargs: Any,
    ) -> None:
        require_available(kwargs.get("accelerator", "auto"))
        require_whole_networks(kwargs.get("strategy", "auto"))
        require_known_precision(precision)
        self.channels_last = channels_last
        root = folder_of_sweep_run(user_path(default_root_dir or "."))
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        if not barebones:
            logger = with_csv(logger, root)
            callbacks += missing_callbacks(callbacks, enable_checkpointing, enable_progress_bar)
            if not fast_dev_run:  # which has no loggers
                wandb = (one for one in logger if isinstance(one, WandbLogger))
                callbacks += [WandbRun(one, root) for one in wandb]
            callbacks.sort(key=place)
            callbacks.insert(0, EarlierRun())  # before anything is written
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(root / CHECKPOINTS)
            if isinstance(callback, BestCheckpoint):
                callback.find()
        if fast_dev_run:
            root = Path(tempfile.mkdtemp(prefix="gancompress-"))
            weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)  # at the latest when Python ends
        super().__init__(
            default_root_dir=root,
            logger=logger,
            callbacks=callbacks,
            enable_checkpointing=enable_checkpointing,
            enable_progress_bar=enable_progress_bar,
            enable_model_summary=enable_model_summary,
            max_epochs=-1 if max_epochs is None else max_epochs,
            max_steps=max_steps,
            max_time=max_time,
            fast_dev_run=fast_dev_run,
            reload_dataloaders_every_n_epochs=reload_dataloaders_every_n_epochs,
            precision=None if precision == "auto" else precision,
            barebones=barebones,
            **kwargs,
        )
        if precision == "auto":
            self._choose_precision()
        require_address(self)
        look_for_unused_parameters(self)
        print_figures_once(self)
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = AtomicCheckpointIO()

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train a teacher, or search and fine-tune.

        Raises:
            UserError: A callback can't work here, the run's folder can't be written to, or another run trains
                there.
        """
        refuse(self.callbacks)  # type: ignore[attr-defined]
        folder = Path(self.default_root_dir)
        with ExitStack() as stack:
            if self.is_global_zero:
                require_writable(folder, "trainer.default_root_dir")
                if not self.fast_dev_run:  # type: ignore[attr-defined]
                    self._take(folder, stack)
                    stack.callback(write_index, folder)
            stack.enter_context(handlers_restored())
            super().fit(*args, **kwargs)
        if self.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_info("All phases ran (fast_dev_run); the files written are removed at the end.")

    def validate(self, *args: Any, **kwargs: Any) -> Any:
        """Measure on the validation images."""
        found = super().validate(*args, **kwargs)
        self._write_index()
        return found

    def test(self, *args: Any, **kwargs: Any) -> Any:
        """Measure teacher and student on the test images: quality, MACs, latency."""
        found = super().test(*args, **kwargs)
        self._write_index()
        return found

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Translate pictures with the networks of a checkpoint."""
        found = super().predict(*args, **kwargs)
        self._write_index()
        return found

    def _write_index(self) -> None:
        if self.is_global_zero and not self.fast_dev_run:  # type: ignore[attr-defined]
            write_index(Path(self.default_root_dir))

    def going_on_from(self, ckpt_path: str | None) -> str | None:
        """The checkpoint that an earlier start of this job of Slurm has saved, if any: it comes first."""
        if self.state.fn == TrainerFn.FITTING and not self.fast_dev_run:  # type: ignore[attr-defined]
            for callback in self.checkpoint_callbacks:
                if isinstance(callback, LastCheckpoint) and callback.of_earlier_start():
                    return str(callback.path)
        return ckpt_path

    def before_loggers(self, ckpt_path: str | None) -> None:
        """Have runs of W&B go on where this run does."""
        for callback in self.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WandbRun) and self.is_global_zero:
                callback.go_on(ckpt_path)

    def _choose_precision(self) -> None:
        """Compute in bfloat16 where the device does so natively, and say what it is."""
        strategy, device = self.strategy, self.strategy.root_device
        # what asks a GPU initialises CUDA, after which no process could be forked
        forks = strategy.launcher is not None and strategy.launcher.is_interactive_compatible
        asked = type(strategy.precision_plugin) is Single and not (forks and device.type == "cuda")
        if asked and computes_bfloat16(device):
            strategy.precision_plugin = MixedPrecision("bf16-mixed", device.type)
        rank_zero_info(f"trainer.precision: auto is {self.precision} on this {device.type}.")

    @property
    def checkpoint_callback(self) -> Checkpoint | None:
        """The callback whose best checkpoint `ckpt_path="best"` means: the first that has one."""
        found = self.checkpoint_callbacks
        saved = (c for c in found if isinstance(c, ModelCheckpoint) and c.best_model_path)
        return next(saved, found[0] if found else None)

    def _take(self, folder: Path, stack: ExitStack) -> None:
        """Keep other runs out of the folder; a run without checkpoints may be one of several at once."""
        try:
            stack.enter_context(training_in(folder))
        except UserError as error:
            if self.checkpoint_callbacks:
                raise
            rank_zero_warn(f"{error} This run goes on beside it, since it saves no checkpoints.")


def with_csv(given: Logger | Iterable[Logger] | bool | None, folder: Path) -> list[Logger]:
    """The given loggers and, unless there are to be none, a `CSVLogger`, whose curves the report shows."""
    if given is False:
        return []
    loggers = [] if given is None or given is True else [given] if isinstance(given, Logger) else [*given]
    has_one = any(isinstance(logger, CSVLogger) for logger in loggers)
    return loggers if has_one else [*loggers, CSVLogger(folder, name="logs")]


def missing_callbacks(
    given: list[Callback], checkpointing: bool | None, progress_bar: bool | None
) -> list[Callback]:
    """The default callbacks for which the user has `given` none of the same kind."""
    defaults: list[Callback] = [ImageGrid(), Evaluation(), PredictionWriter(), FoundChannels(), SmallModel()]
    defaults += [HtmlReport(), Monitors()]
    checkpoints = [callback for callback in given if isinstance(callback, ModelCheckpoint)]
    if checkpointing is not False:
        if not any(c.save_last and c.monitor is None for c in checkpoints):
            defaults.append(LastCheckpoint(dirpath_of_last(checkpoints)))
        if not any(c.monitor is not None and not of_search(c.monitor) for c in checkpoints):
            defaults.append(BestCheckpoint())
    if progress_bar is not False:
        defaults.append(ProgressBars() if sys.stdout.isatty() else ProgressLines())
    return [default for default in defaults if not any(isinstance(c, kind(default)) for c in given)]


def kind(callback: Callback) -> type[Callback]:
    """The class by which a default callback is replaced: any progress bar, else the same class."""
    return ProgressBar if isinstance(callback, ProgressBar) else type(callback)


def dirpath_of_last(checkpoints: list[ModelCheckpoint]) -> str | None:
    """Take `save_last` away from checkpoints of best epochs, and return the folder that they name, if any.

    They would save `last.ckpt` in epochs that are among the best only, and none during a search.
    """
    dirpath = None
    for callback in checkpoints:
        if callback.save_last:
            callback.save_last, dirpath = False, callback.dirpath
    return None if dirpath is None else str(dirpath)


def place(callback: Callback) -> int:
    """Order of the callbacks: `Monitors`, then as given; at the end `last.ckpt`, which holds their states.

    Lightning takes `ckpt_path="best"` from the first checkpoint callback: one that chooses an epoch to use.
    """
    if isinstance(callback, LastCheckpoint):
        return 4
    if isinstance(callback, BestCheckpoint):
        return 2
    if isinstance(callback, ModelCheckpoint):
        return 3 if callback.monitor is None or of_search(callback.monitor) else 1
    return -1 if isinstance(callback, Monitors) else 0
