"""Several budgets from one search: what follows a `fit` whose `model.budget` is a list."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_gancompress.callbacks.monitors import of_search
from lightning_gancompress.callbacks.wandb_run import run_of_sweep
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.checkpoints.header import Header
from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.results import TestResults
from lightning_gancompress.lightning_internals import epochs_in
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.reporting.comparison import found_runs, require_own, write_comparison
from lightning_gancompress.run_folder import BORDER, CHECKPOINTS, folder_of_budget, training_in
from lightning_gancompress.run_index import write_index
from lightning_gancompress.search.policy import PruningPolicy

LAST = f"{CHECKPOINTS}/last.ckpt"
Command = Callable[[list[str]], object]


def require_own_folders(trainer: Trainer, model: LightningModule) -> None:
    """Check before a `fit` that the run of each budget can keep its files in a folder of its own.

    Raises:
        UserError: It can't.
    """
    if not isinstance(model, CompressionModule) or not model.pruning.passes:
        return
    if run_of_sweep():
        raise UserError(
            "model.budget: a run of a sweep reports one network, and a list makes several: give one budget, "
            "and let the sweep vary it."
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


class BudgetRuns:
    """The runs of the budgets of a list, one after the other, each with its test; then their comparison.

    Args:
        trainer: The trainer of the `fit` that has ended.
        model: Its module.
        args: Its arguments, without the name of the program.
        command: Executes the command line.
    """

    def __init__(self, trainer: Trainer, model: CompressionModule, args: list[str], command: Command) -> None:
        self.root, self.first_rank = Path(trainer.default_root_dir), trainer.is_global_zero
        self.budgets = list(model.pruning.passes)
        self.epochs = model.phases.schedule.length
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self.stops_early = any(isinstance(c, EarlyStopping) and not of_search(c.monitor) for c in callbacks)
        self.searches = any(c.search_epochs for c in callbacks if isinstance(c, PruningPolicy))
        self.args, self.command = args, command

    def run(self) -> None:
        """Train and test what is due, and write and print the table.

        Raises:
            UserError: A run can't begin.
        """
        if not self._trained(self.root):
            rank_zero_info("The other budgets follow when this run has come to its end.")
            return
        due = [b for b in self.budgets if not self._tested(folder_of_budget(self.root, b))]
        with ExitStack() as stack:
            if self.first_rank:
                stack.enter_context(training_in(self.root))  # a new run would set all aside
            if not self._tested(self.root):
                self.command(self._arguments("test", self.root))
            for budget in due:
                folder = folder_of_budget(self.root, budget)
                rank_zero_info(f"Budget {budget}: {folder}")
                self.command([*self._arguments("fit", folder), f"--model.budget={budget}"])
                self.command([*self._arguments("test", folder), f"--model.budget={budget}"])
        if self.first_rank:
            self._compare()

    def _arguments(self, command: str, folder: Path) -> list[str]:
        """Arguments of the run in a folder: those given, and the checkpoint from which it goes on."""
        place = self.args.index("fit")
        before, after = self.args[:place], self.args[place + 1 :]
        files = [folder / LAST, *([folder / BORDER] if command == "fit" else [])]
        start = next((file for file in files if file.is_file()), None)
        if start is None and (command == "test" or self.searches):
            raise UserError(
                f"{files[-1]} is gone, and the run of this budget can't go on without it: begin anew."
            )
        # a policy without a search cuts each network by itself
        config = [f"--config={self.root / 'config.yaml'}"] if start is None else []
        own = [f"--ckpt_path={start or 'null'}", f"--trainer.default_root_dir={folder}"]
        return [*before, command, *config, *after, *own]

    def _trained(self, folder: Path) -> bool:
        """Whether the fine-tuning in a folder has come to its end."""
        progress = finetuned(folder / LAST)
        return progress is not None and (self.stops_early or progress[1] >= self.epochs)

    def _tested(self, folder: Path) -> bool:
        """Whether the last checkpoint in a folder is of a finished fine-tuning, and was tested."""
        progress, files = finetuned(folder / LAST), list((folder / "test").glob("results*.json"))
        tests = [TestResults.read(file).checkpoint for file in files] if self._trained(folder) else []
        return bool(tests) and all(
            (t.file, t.epochs) == ("last.ckpt", progress and progress[0]) for t in tests
        )

    def _compare(self) -> None:
        for warning in write_comparison(self.root, found_runs(self.root)):
            rank_zero_warn(warning)
        write_index(self.root)
        print((self.root / "table.md").read_text())
        rank_zero_info(f"Quality against MACs: {self.root / 'plot.png'}")


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
