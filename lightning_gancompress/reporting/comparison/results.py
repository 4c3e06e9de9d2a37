"""The results of runs, read from their folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lightning_gancompress.checkpoints.small import read_description
from lightning_gancompress.evaluation.results import TestResults
from lightning_gancompress.leaves import leaves


@dataclass(frozen=True)
class Place:
    """Name, budget and seed of a run, which define its folder: `NAME[/budget_B]/seed_S`.

    Attributes:
        name: Name of the experiment.
        budget: Its budget; empty where an experiment has only one.
        seed: Its seed.
        folder: Folder of a run of several budgets from one search, which is another one; else empty.
    """

    name: str
    budget: str
    seed: int
    folder: str = ""

    @property
    def path(self) -> Path:
        """Folder of the run, relative to that of the comparison."""
        if self.folder:
            return Path(self.folder)
        return Path(self.name, *([f"budget_{self.budget}"] if self.budget else []), f"seed_{self.seed}")

    @classmethod
    def of(cls, path: Path) -> Place | None:
        """The inverse of `path`; None for other folders."""
        match = re.fullmatch(r"(?P<name>.+?)(/budget_(?P<budget>[^/]+))?/seed_(?P<seed>\d+)", path.as_posix())
        return cls(match["name"], match["budget"] or "", int(match["seed"])) if match else None


@dataclass(frozen=True)
class Row:
    """The figures of one network of one run in one direction.

    Attributes:
        values: Figures by name; of a latency the median.
        timings: Medians and percentiles of latencies: `latency_ms.p10_ms` and so on.
        protocol: Settings of the measurement; must agree where figures are compared.
        phase: Phase of the run that was tested.
    """

    name: str
    budget: str
    seed: int | None
    direction: str
    values: dict[str, float]
    timings: dict[str, float] = field(default_factory=dict)
    protocol: dict[str, str] = field(default_factory=dict)
    phase: str = ""

    @property
    def group(self) -> tuple[str, str, str]:
        """Key of rows that differ in the seed only: direction, budget and name."""
        return self.direction, self.budget, self.name

    @property
    def steady(self) -> dict[str, float]:
        """The figures without latencies, which differ between repeated measurements."""
        timed = {key.partition(".")[0] for key in self.timings}
        return {key: value for key, value in self.values.items() if key not in timed}


def found_runs(output: Path) -> list[Place]:
    """All tested runs below `output`, also those that `compare` has not run."""
    folders = {path.parent.parent.relative_to(output) for path in output.glob("**/test/results*.json")}
    roots = {folder.parent for folder in folders if folder.name.startswith("budget_")}
    places = [place for folder in folders - roots if (place := Place.of(folder))]
    for root in roots:
        places += of_one_search(output, root, folders)
    return sorted(places, key=lambda place: (place.name, size_of(place.budget), place.seed))


def of_one_search(output: Path, root: Path, folders: Collection[Path]) -> list[Place]:
    """The runs of several budgets from the search in a folder `root`, the smallest of which lies there.

    Args:
        output: The comparison's folder.
        root: Folder relative to it: itself, or that of a run of an experiment.
        folders: Folders of all tested runs, likewise.
    """
    place = Place.of(root) or (Place(output.resolve().name, "", 0) if root == Path() else None)
    if place is None:
        return []
    inner = {folder: folder.name.removeprefix("budget_") for folder in folders if folder.parent == root}
    inner = {folder: budget for folder, budget in inner.items() if folder.name != budget}
    if root in folders:
        small = next(iter((output / root).glob("generator*.json")), None)
        own = read_description(small)["provenance"].get("budget") if small else None
        inner[root] = "" if own is None else str(own)
    return [Place(place.name, budget, place.seed, str(folder)) for folder, budget in inner.items()]


def size_of(budget: str) -> float:
    """A number to sort budgets by: smaller for larger budgets."""
    number, unit = (budget[:-1], budget[-1]) if budget[-1:] in "KMGkmg" and budget else (budget, "")
    try:
        return -float(number or 0) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}[unit.lower()]
    except ValueError:
        return 0.0


def read_rows(output: Path, places: list[Place]) -> tuple[list[Row], list[Row]]:
    """Rows of the students and of their teachers, in the order of `places`.

    Raises:
        UserError: A file of results can't be read.
    """
    students, teachers = [], []
    for place in places:
        for path in sorted((output / place.path / "test").glob("results*.json")):
            results = TestResults.read(path)
            direction = path.stem.removeprefix("results").removeprefix("_")
            students.append(row(place, direction, results, results.trained, results.comparison))
            if "teacher" in results.networks and results.trained != "teacher":
                teachers.append(row(place, direction, results, "teacher", {}))
    return students, teachers


def row(
    place: Place, direction: str, results: TestResults, network: str, comparison: Mapping[str, float]
) -> Row:
    """The row of one network of a test."""
    measured = results.networks[network]
    timings = dict(leaves({key: asdict(latency) for key, latency in measured.latencies.items()}))
    values = {**measured.figures, **comparison}
    facts = direction, values, timings, results.protocol, results.phase
    return Row(place.name, place.budget, place.seed, *facts)
