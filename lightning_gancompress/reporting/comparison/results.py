"""What runs have measured, read from their folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_gancompress.errors import UserError

PROTOCOL = ("images", "size", "fid_reals", "fid", "miou", "density", "lpips")


@dataclass(frozen=True)
class Place:
    """Where a run belongs, which is also where it lies: `NAME[/budget_B]/seed_S`."""

    name: str
    budget: str
    seed: int

    @property
    def path(self) -> Path:
        """Its folder, relative to the comparison's."""
        return Path(self.name, *([f"budget_{self.budget}"] if self.budget else []), f"seed_{self.seed}")

    @classmethod
    def of(cls, path: Path) -> Place | None:
        """The inverse of `path`; None for other folders."""
        match = re.fullmatch(r"(?P<name>.+?)(/budget_(?P<budget>[^/]+))?/seed_(?P<seed>\d+)", path.as_posix())
        return cls(match["name"], match["budget"] or "", int(match["seed"])) if match else None


@dataclass(frozen=True)
class Row:
    """One network that one run has measured in one direction."""

    name: str
    budget: str
    seed: int | None
    direction: str
    values: dict[str, float]
    protocol: dict[str, str] = field(default_factory=dict)

    @property
    def group(self) -> tuple[str, str, str]:
        """What rows of different seeds share."""
        return self.direction, self.budget, self.name


def found_runs(output: Path) -> list[Place]:
    """Runs below `output` that have been tested, however they were made."""
    folders = {path.parent.parent.relative_to(output) for path in output.glob("**/test/results*.json")}
    places = [place for place in map(Place.of, folders) if place]
    return sorted(places, key=lambda place: (place.name, size_of(place.budget), place.seed))


def size_of(budget: str) -> float:
    """A budget as a number to sort by, large ones first."""
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
            direction = path.stem.removeprefix("results").removeprefix("_")
            try:
                results = json.loads(path.read_bytes())
                networks = dict(results["networks"])
                own = networks.pop("student", None) or networks.pop(list(networks)[-1])
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                raise UserError(f"{path} holds no results of a test: remove it, or test again.") from error
            beside = {key: value for key, value in results.items() if key.startswith("teacher_")}
            protocol = {
                key: str(value)
                for key, value in leaves({key: results[key] for key in PROTOCOL if key in results})
            }
            common = (place.name, place.budget, place.seed, direction)
            students.append(Row(*common, dict(numbers(own | beside)), protocol))
            if "teacher" in networks:
                teachers.append(Row(*common, dict(numbers(networks["teacher"])), protocol))
    return students, teachers


def numbers(tree: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers among the leaves of nested dictionaries."""
    for key, value in leaves(tree):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield key, value


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries with their dotted names."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
