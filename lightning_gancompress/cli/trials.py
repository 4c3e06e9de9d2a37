"""The trials that find the smallest network which keeps a quality."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.quality import Quality
from lightning_gancompress.files import replacing
from lightning_gancompress.run_folder import QUALITY_HEADER

Budget = float | str


class Trials:
    """A bisection over budgets, which takes it that larger networks are no worse.

    The smallest budget comes first: its network is trained in any case, and if it will do there is no other
    trial. Of `2^n` budgets at most `n + 1` are tried.

    Args:
        quality: What the network has to keep.
        folders: Folders of the runs by budget, the smallest first and then from the largest on.
        measure: Trains and measures the network of a budget.
    """

    def __init__(
        self,
        quality: Quality,
        folders: Mapping[Budget, Path],
        measure: Callable[[Budget, Quality], float],
    ) -> None:
        self.quality, self.folders, self.measure = quality, folders, measure
        smallest, *larger = folders
        self.budgets = [smallest, *reversed(larger)]
        self.figures: dict[Budget, float] = {}

    def run(self) -> None:
        """Measure the networks of those budgets that are needed to decide."""
        if self._keeps(self.budgets[0]):
            return
        low, high = 1, len(self.budgets)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._keeps(self.budgets[middle]) else (middle + 1, high)

    def _keeps(self, budget: Budget) -> bool:
        figure = self.figures[budget] = self.measure(budget, self.quality)
        keeps = self.quality.kept_by(figure)
        words = "keeps" if keeps else "does not keep"
        rank_zero_info(f"Budget {budget}: {self.quality.metric} {figure:.4g} {words} {self.quality}.")
        return keeps

    @property
    def found(self) -> Budget | None:
        """The smallest budget whose network keeps the quality; None if none does."""
        kept = (b for b in self.budgets if b in self.figures and self.quality.kept_by(self.figures[b]))
        return next(kept, None)

    def write(self, path: Path) -> None:
        """Write the table of the trials, and which network was found."""
        lines = [
            f"{QUALITY_HEADER}with {self.quality}.",
            "",
            f"| budget | {self.quality.metric} | keeps it | folder |",
            "|---|---|---|---|",
        ]
        for budget in (b for b in self.budgets if b in self.figures):
            figure = self.figures[budget]
            keeps = "yes" if self.quality.kept_by(figure) else "no"
            lines.append(f"| {budget} | {figure:.4g} | {keeps} | {self._name(budget)} |")
        lines += ["", self._conclusion(), ""]
        with replacing(path) as draft:
            draft.write_text("\n".join(lines))

    def _conclusion(self) -> str:
        if self.found is None:
            return "None keeps it."
        smaller = "" if self.found != self.budgets[0] else " Lower model.budget to look for a smaller one."
        return (
            f"Smallest that keeps it: budget {self.found}, {self._name(self.found)}/generator.pth.{smaller}"
        )

    def _name(self, budget: Budget) -> str:
        """The folder of a budget's run, seen from that of the smallest."""
        return os.path.relpath(self.folders[budget], self.folders[self.budgets[0]])

    def require_found(self) -> None:
        """Check that a network was found.

        Raises:
            UserError: None of those that were tried keeps the quality.
        """
        if self.found is None:
            best = (max if self.quality.higher else min)(self.figures.values())
            raise UserError(
                f"model.quality: no network has {self.quality}, the best of those tried has {best:.4g}: "
                "fine-tune longer (model.epochs), distil, or accept less; what was trained is kept."
            )
