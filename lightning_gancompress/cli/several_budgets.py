"""Several budgets from one search: what follows a `fit` with a list of budgets, or a quality to keep."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeGuard

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_gancompress.callbacks.monitors import of_search
from lightning_gancompress.callbacks.wandb_run import run_of_sweep
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.header import Header
from lightning_gancompress.cli.trials import Trials
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.quality import Quality
from lightning_gancompress.evaluation.results import TestResults
from lightning_gancompress.lightning_internals import epochs_in
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.reporting.comparison import found_runs, require_own, write_comparison
from lightning_gancompress.run_folder import BORDER, CHECKPOINTS, QUALITY, folder_of_budget, training_in
from lightning_gancompress.run_index import write_index
from lightning_gancompress.search.policy import PruningPolicy
from lightning_gancompress.tasks import Side

LAST = f"{CHECKPOINTS}/last.ckpt"
Command = Callable[[list[str]], LightningCLI]


def require_own_folders(trainer: Trainer, model: LightningModule) -> None:
    """Check before a `fit` that the run of each budget can keep its files in a folder of its own.

    Raises:
        UserError: It can't.
    """
    if not isinstance(model, CompressionModule) or not makes_several(model):
        return
    if run_of_sweep():
        raise UserError(
            "model.budget: a run of a sweep reports one network, and a list or model.quality makes several: "
            "give one budget, and let the sweep vary it."
        )
    root = Path(trainer.default_root_dir)
    callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    if not any((c.dirpath and Path(c.dirpath, "last.ckpt") == root / LAST) for c in callbacks):
        raise UserError(
            "model.budget: each of several budgets is fine-tuned from a checkpoint, and this run keeps none "
            "in its folder: leave trainer.enable_checkpointing and LastCheckpoint.dirpath out, or give one."
        )
    for callback in callbacks:
        if Path(str(callback.dirpath)).resolve() != (root / CHECKPOINTS).resolve():
            raise UserError(
                f"trainer.callbacks: {type(callback).__name__}.dirpath is {callback.dirpath}, where the runs "
                "of several budgets would replace each other's checkpoints: leave it out."
            )
    require_own(root)
    if model.quality is not None:
        rank_zero_info(
            f"Looking for the smallest network with {model.quality}, at budgets of "
            f"{', '.join(str(b) for b in all_budgets(model))}."
        )


def makes_several(model: CompressionModule) -> bool:
    """Whether runs of other budgets may follow a `fit`."""
    return bool(model.pruning.passes) or model.quality is not None


def all_budgets(model: CompressionModule) -> list[float | str]:
    """The budgets of the generators, the largest first; the last one is that of the run itself."""
    return [*model.pruning.passes, model.pruning.budgets[Side.GENERATOR]]


class BudgetRuns:
    """The runs of several budgets, one after the other, each with its test; then their comparison.

    Of a list all are run; for a quality only those that a bisection asks for.

    Args:
        trainer: The trainer of the `fit` that has ended.
        model: Its module.
        args: Its arguments, without the name of the program.
        command: Executes the command line.
    """

    def __init__(self, trainer: Trainer, model: CompressionModule, args: list[str], command: Command) -> None:
        self.root, self.first_rank = Path(trainer.default_root_dir), trainer.is_global_zero
        *larger, smallest = all_budgets(model)
        self.folders = {smallest: self.root} | {b: folder_of_budget(self.root, b) for b in larger}
        self.quality = model.quality
        self.epochs = model.phases.schedule.length
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self.stops_early = any(isinstance(c, EarlyStopping) and not of_search(c.monitor) for c in callbacks)
        self.searches = any(c.search_epochs for c in callbacks if isinstance(c, PruningPolicy))
        self.args, self.command = args, command

    def run(self) -> None:
        """Train and test what is due, and write and print the tables.

        Raises:
            UserError: A run can't begin, or no network keeps the quality.
        """
        if not self._trained(self.root):
            rank_zero_info("The other budgets follow when this run has come to its end.")
            return
        trials = None
        with ExitStack() as stack:
            if self.first_rank:
                stack.enter_context(training_in(self.root))  # a new run would set all aside
            if self.quality is not None:
                trials = Trials(self.quality, self.folders, self._figure)
                trials.run()
            else:
                for budget in self.folders:
                    self._complete(budget)
        if self.first_rank:
            self._compare(trials)
        if trials is not None:
            trials.require_found()

    def _complete(self, budget: float | str) -> Path:
        """Train and test the network of a budget, as far as that is due; returns the folder of its run."""
        folder = self.folders[budget]
        if not self._tested(folder):
            if folder != self.root:
                rank_zero_info(f"Budget {budget}: {folder}")
                self.command(self._arguments("fit", budget))
            self.command(self._arguments("test", budget))
        return folder

    def _figure(self, budget: float | str, quality: Quality) -> float:
        """The figure of the trained network of a budget, by a validation or its test."""
        folder = self._complete(budget)
        trainer = self.command(self._arguments("validate", budget)).trainer
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        return quality.figure(logged, map(TestResults.read, (folder / "test").glob("results*.json")))

    def _arguments(self, command: str, budget: float | str) -> list[str]:
        """Arguments of the run of a budget: those given, and the checkpoint from which it goes on."""
        folder = self.folders[budget]
        place = self.args.index("fit")
        before, after = self.args[:place], self.args[place + 1 :]
        files = [folder / LAST, *([folder / BORDER] if command == "fit" else [])]
        start = next((file for file in files if file.is_file()), None)
        if start is None and (command != "fit" or self.searches):
            raise UserError(
                f"{files[-1]} is gone, and the run of this budget can't go on without it: begin anew."
            )
        # a policy without a search cuts each network by itself
        config = [f"--config={self.root / 'config.yaml'}"] if start is None else []
        own = [f"--ckpt_path={start or 'null'}", f"--trainer.default_root_dir={folder}"]
        if folder != self.root:
            own += [f"--model.budget={budget}", "--model.quality=null"]
        return [*before, command, *config, *after, *own]

    def _trained(self, folder: Path) -> bool:
        """Whether the fine-tuning in a folder has come to its end."""
        return self._ended(finetuned(folder / LAST))

    def _ended(self, progress: tuple[int, int] | None) -> TypeGuard[tuple[int, int]]:
        return progress is not None and (self.stops_early or progress[1] >= self.epochs)

    def _tested(self, folder: Path) -> bool:
        """Whether the last checkpoint in a folder is of a finished fine-tuning, and was tested."""
        files, progress = list((folder / "test").glob("results*.json")), finetuned(folder / LAST)
        if not files or not self._ended(progress):
            return False
        tests = [TestResults.read(file).checkpoint for file in files]
        return all((test.file, test.epochs) == ("last.ckpt", progress[0]) for test in tests)

    def _compare(self, trials: Trials | None) -> None:
        for warning in write_comparison(self.root, found_runs(self.root)):
            rank_zero_warn(warning)
        if trials is not None:
            trials.write(self.root / QUALITY)
        write_index(self.root)
        print((self.root / "table.md").read_text())
        rank_zero_info(f"Quality against MACs: {self.root / 'plot.png'}")
        if trials is not None:
            print(f"\n{(self.root / QUALITY).read_text()}")


def finetuned(path: Path) -> tuple[int, int] | None:
    """Finished epochs of the run of a checkpoint, and those of its fine-tuning; None before that."""
    if not path.is_file():
        return None
    content = read_torch(path)
    header = Header.of(content, path)
    if header.phase != "finetune" or header.search is None:
        return None
    done = epochs_in(content)[1]
    return done, done - (header.search.epochs if header.began is None else header.began)
