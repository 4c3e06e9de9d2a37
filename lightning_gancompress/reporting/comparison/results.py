"""The results of runs, read from their folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_gancompress.checkpoints.small import read_description
from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.evaluation.results import TestResults
from lightning_gancompress.leaves import leaves
from lightning_gancompress.run_folder import is_aside

BUDGET = re.compile(r"budget_(\d.*)")  # folder of one of several budgets from one search


@dataclass(frozen=True)
class Place:
    """Name, budget and seed of a run, which define its folder: `NAME[/budget_B][/seed_S]`.

    Runs of `compare` have a seed. Those without, such as the runs of a sweep, are named after their folder.

    Attributes:
        name: Name of the experiment.
        budget: Its budget; empty where an experiment has only one.
        seed: Its seed, or None.
        folder: Folder of a run of several budgets from one search, which is another one; else empty.
    """

    name: str
    budget: str
    seed: int | None
    folder: str = ""

    @property
    def path(self) -> Path:
        """Folder of the run, relative to that of the comparison."""
        if self.folder:
            return Path(self.folder)
        budget = [f"budget_{self.budget}"] if self.budget else []
        return Path(self.name, *budget, *([] if self.seed is None else [f"seed_{self.seed}"]))

    @classmethod
    def of(cls, path: Path) -> Place:
        """The inverse of `path`."""
        match = re.fullmatch(r"(?P<name>.+?)(/budget_(?P<budget>[^/]+))?/seed_(?P<seed>\d+)", path.as_posix())
        if match is None:
            return cls(path.as_posix(), "", None)
        return cls(match["name"], match["budget"] or "", int(match["seed"]))


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
    """All tested runs below `output`, also those that `compare` has not run; not what new ones set aside."""
    folders = {path.parent.parent.relative_to(output) for path in output.glob("**/test/results*.json")}
    folders = {path for path in folders if not is_aside(path)}
    roots = {path.parent for path in folders if BUDGET.fullmatch(path.name)}
    inner = {path for path in folders if path.parent in roots and BUDGET.fullmatch(path.name)}
    places = [Place.of(path) for path in folders - roots - inner if path.parts]
    for root in roots:
        places += of_one_search(output, root, folders)
    return sorted(places, key=lambda place: (place.name, size_of(place.budget), place.seed or 0))


def of_one_search(output: Path, root: Path, folders: Collection[Path]) -> list[Place]:
    """The runs of several budgets from the search in a folder `root`, the smallest of which lies there.

    Args:
        output: The comparison's folder.
        root: Folder relative to it: itself, or that of a run.
        folders: Folders of all tested runs, likewise.
    """
    place = Place.of(root) if root.parts else Place(output.resolve().name, "", None)
    inner = {
        path: match[1] for path in folders if path.parent == root and (match := BUDGET.fullmatch(path.name))
    }
    if root in folders:
        small = next(iter((output / root).glob("generator*.json")), None)
        inner[root] = str(read_description(small)["provenance"].get("budget", "")) if small else ""
    return [Place(place.name, budget, place.seed, str(folder)) for folder, budget in inner.items()]


def with_larger_budgets(output: Path, places: Sequence[Place]) -> list[Place]:
    """The runs at `places`, with those of the larger budgets of each that has searched for several."""
    several = [place for place in found_runs(output) if place.folder]
    found = []
    for place in places:
        found += [run for run in several if place.path in (run.path, run.path.parent)] or [place]
    return found


def differing_settings(output: Path, places: list[Place]) -> dict[str, dict[str, str]]:
    """By name, the settings that runs without a seed do not all share: what a sweep has varied.

    Raises:
        UserError: A file of settings can't be read.
    """
    alone = [place for place in places if place.seed is None and place.path == Path(place.name)]
    found = {place.name: settings_at(output / place.path) for place in alone}
    values: dict[str, set[str | None]] = {}
    for key in {key for settings in found.values() for key in settings}:
        values[key] = {settings.get(key) for settings in found.values()}
    return {
        name: {key: value for key, value in settings.items() if len(values[key]) > 1}
        for name, settings in found.items()
    }


def settings_at(folder: Path) -> dict[str, str]:
    """The settings in the `config.yaml` of a run, by key, but for paths in its folder."""
    path = folder / "config.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} can't be read ({first_line(error)}): remove it, or mend it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings: remove it, or mend it.")
    settings = {k.replace(".init_args.", "."): str(value) for k, value in leaves(by_class(content))}
    return {key: value for key, value in settings.items() if folder.name not in Path(value).parts}


def by_class(tree: Any) -> Any:
    """Nested settings in which lists of objects, such as callbacks, are mappings by the names of classes."""
    if (
        isinstance(tree, list)
        and tree
        and all(isinstance(item, dict) and "class_path" in item for item in tree)
    ):
        return {
            str(item["class_path"]).rpartition(".")[2]: by_class(item.get("init_args") or {}) for item in tree
        }
    return {key: by_class(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


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
