"""The output files of a comparison: CSV, Markdown and plots."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from lightning_gancompress.errors import UserError
from lightning_gancompress.evaluation.metrics import COMPARED, MACS_EXACT, Metric, in_order, metric
from lightning_gancompress.files import write_files
from lightning_gancompress.reporting.comparison.plot import head, plots, search_curves
from lightning_gancompress.reporting.comparison.results import (
    Place,
    Row,
    differing_settings,
    read_rows,
    size_of,
)
from lightning_gancompress.reporting.comparison.statistics import SIGNIFICANCE, Sample, pooled_std, winner
from lightning_gancompress.run_folder import COMPARISON, is_comparison

SAME = 1e-3  # relative tolerance; repeated measurements of a teacher differ by rounding alone

COLUMNS = ("experiment", "budget", "seed", "direction")

Group = tuple[str, str, str]


def write_comparison(output: Path, places: list[Place], metrics: Sequence[str] = COMPARED) -> list[str]:
    """Write tables and plots of the runs at `places` into `output`.

    They are `results.csv`, `table.md`, `plot` (quality against MACs) and, where there were searches, `search`
    (their curves), each as `.png` and `.svg`.

    Args:
        output: The comparison's folder.
        places: Runs that have been tested, in the order of the table.
        metrics: Names of the metrics in table and plot, or patterns such as `fid_*`.

    Returns:
        Warnings for the reader: runs measured in different ways, or none of the metrics measured.

    Raises:
        UserError: A file can't be read or written.
    """
    students, teachers = read_rows(output, places)
    means = mean_teachers(teachers)
    chosen = select(metrics, students)
    warnings = differences(students, teachers)
    if students and not chosen:
        known = ", ".join(dict.fromkeys(key for row in students for key in row.values))
        warnings.append(f"None of the metrics {', '.join(metrics)} has been measured; there are {known}.")
    files = {
        output / "results.csv": csv_file(students, means).encode(),
        output / "table.md": (
            markdown(students, means, chosen, warnings) + settings(output, places)
        ).encode(),
    }
    drawn = plots(students, means, chosen, x_axis=MACS_EXACT) if students and chosen else {}
    drawn |= search_curves(output, places)
    files |= {output / name: content for name, content in drawn.items()}
    write_files(files)
    return warnings


def require_own(output: Path) -> None:
    """Raise a UserError if tables or plots would replace files that no comparison has written."""
    strangers = [path for name in COMPARISON if os.path.lexists(path := output / name)]
    if strangers and not is_comparison(output):
        raise UserError(f"{strangers[0]} is of no comparison and would be replaced: choose another output.")


def select(patterns: Sequence[str], rows: list[Row]) -> list[str]:
    """The metrics that match, in the order of the patterns."""
    known = dict.fromkeys(key for row in rows for key in row.values)
    plain = [pattern.removesuffix(".median_ms") for pattern in patterns]  # as results.csv calls a latency
    return list(dict.fromkeys(key for pattern in plain for key in known if fnmatch(key, pattern)))


def grouped(rows: list[Row]) -> dict[Group, list[Row]]:
    """Rows by group; the rows of a group differ in the seed only."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return groups


def samples(rows: list[Row], metric: str) -> dict[Group, Sample]:
    """Mean and spread of a metric in every group that has it."""
    values = {
        group: [row.values[metric] for row in members if math.isfinite(row.values.get(metric, math.nan))]
        for group, members in grouped(rows).items()
    }
    return {group: Sample.of(finite) for group, finite in values.items() if finite}


def mean_teachers(teachers: list[Row]) -> list[Row]:
    """One row per direction with the mean figures of the teacher, which every run measures again."""
    rows = []
    for direction in dict.fromkeys(row.direction for row in teachers):
        own = [row for row in teachers if row.direction == direction]
        values, timings = mean([row.values for row in own]), mean([row.timings for row in own])
        rows.append(Row("teacher", "", None, direction, values, timings))
    return rows


def mean(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the tables that have it."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return {key: Sample.of([table[key] for table in tables if key in table]).mean for key in keys}


def differences(students: list[Row], teachers: list[Row]) -> list[str]:
    """Warnings about rows that can't be compared: searches, other protocols or teachers, idle seeds."""
    warnings = list(searches(students))
    for direction in dict.fromkeys(row.direction for row in students):
        warnings += other_protocols([row for row in students if row.direction == direction])
        warnings += other_teachers([row for row in teachers if row.direction == direction])
    return warnings + idle_seeds(students)


def searches(students: list[Row]) -> Iterator[str]:
    """A warning about runs that were tested before their search was over."""
    if rows := [row for row in students if row.phase == "search"]:
        yield f"{names(rows)}: tested in the search, with masks. Finish the runs and test them again."


def other_protocols(students: list[Row]) -> Iterator[str]:
    """One warning per setting of the measurement that differs between rows."""
    for key in dict.fromkeys(key for row in students for key in row.protocol):
        kinds: dict[str, list[Row]] = {}
        for row in students:
            kinds.setdefault(row.protocol.get(key, "nothing"), []).append(row)
        if len(kinds) > 1:
            values = ", ".join(f"{short(value)} in {names(rows)}" for value, rows in kinds.items())
            yield f"The runs were measured in different ways, {key}: {values}. Test them again."


def other_teachers(teachers: list[Row]) -> list[str]:
    """A warning about the first figure in which teachers differ, if any."""
    for key in dict.fromkeys(key for row in teachers for key in row.steady):
        values = [row.values[key] for row in teachers if key in row.values]
        if max(values) - min(values) > SAME * max(map(abs, values)):
            return [
                f"The runs' teachers differ, {key} from {min(values):.6g} to {max(values):.6g}: "
                "another teacher, other test images, or test noise."
            ]
    return []


def idle_seeds(students: list[Row]) -> list[str]:
    """Warnings about experiments whose seeds all give the same result."""
    return [
        f"The seeds of {name} made no difference at all: leave data.seed out, or see seed_options."
        for (_, _, name), rows in grouped(students).items()
        if len(rows) > 1 and all(row.steady == rows[0].steady for row in rows)
    ]


def names(rows: list[Row]) -> str:
    """Names of up to three runs, and the number of further ones."""
    listed = list(dict.fromkeys(Place(r.name, r.budget, r.seed).path.as_posix() for r in rows))
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def csv_file(students: list[Row], teachers: list[Row]) -> str:
    """The CSV: one line per run and direction, and one per teacher, with all digits."""
    rows = [*students, *teachers]
    columns = list(dict.fromkeys(key for row in rows for key in {**row.values, **row.timings}))
    protocol = list(dict.fromkeys(key for row in students for key in row.protocol))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, *columns, *(f"protocol.{k}" for k in protocol)])
    for row in rows:
        seed = "" if row.seed is None else row.seed
        values = [{**row.values, **row.timings}.get(key, "") for key in columns]
        writer.writerow(
            [row.name, row.budget, seed, row.direction, *values, *(row.protocol.get(k, "") for k in protocol)]
        )
    return file.getvalue()


def markdown(students: list[Row], teachers: list[Row], metrics: list[str], warnings: list[str]) -> str:
    """The Markdown: one row per experiment and budget, with deviations over seeds.

    Per direction a table of the chosen metrics, and one of all others.
    """
    lines = [f"**Warning.** {warning}\n" for warning in warnings]
    for direction in dict.fromkeys(row.direction for row in students):
        own = [row for row in students if row.direction == direction]
        lines += [f"## {direction}\n"] if direction else []
        theirs = [row for row in teachers if row.direction == direction]
        lines += _table(own, theirs, metrics)
        measured = in_order(name for row in [*own, *theirs] for name in row.values)
        if others := [name for name in measured if name not in (MACS_EXACT, *metrics)]:
            lines += ["", "All other figures:", "", *_table(own, theirs, others)]
        protocol = "; ".join(f"{key} {short(value)}" for key, value in own[0].protocol.items())
        lines += ["", f"Measured with: {protocol}.", ""] if protocol else [""]
    if not students:
        return "No run has been tested yet.\n"
    lines.append(
        "Mean ± sample standard deviation over seeds (n). Bold is the best of a budget, where it differs "
        f"from each of the others by Welch's t-test with p < {SIGNIFICANCE}, after Holm's correction for the "
        "number of others; without two seeds each nothing can be said, and nothing is bold. The last row is "
        "the spread of seeds, pooled over experiments: smaller differences are noise."
    )
    return "\n".join([*lines, ""])


def settings(output: Path, places: list[Place]) -> str:
    """What tells apart the runs of no comparison, such as those of a sweep, as a list; empty without any."""
    differing = differing_settings(output, places)
    if not any(differing.values()):
        return ""
    lines = [
        f"- {name}: {', '.join(f'{key} {value}' for key, value in sorted(values.items()))}"
        for name, values in differing.items()
    ]
    return "\n".join(["", "Settings that differ:", "", *lines, ""])


def _table(students: list[Row], teachers: list[Row], metrics: list[str]) -> list[str]:
    shown = [metric(name) for name in (MACS_EXACT, *metrics)]
    summaries = {m.name: samples(students, m.name) for m in shown}
    groups = grouped(students)
    table = [["experiment", "budget", "seeds", *map(head, shown)]]
    for row in teachers:
        cells = [m.number(row.values[m.name]) if m.name in row.values else "" for m in shown]
        table.append(["teacher", "", "", *cells])
    best = {m.name: _best(summaries[m.name], m) for m in shown[1:]}
    for group in sorted(groups, key=lambda group: size_of(group[1])):
        cells = [cell(summaries[m.name].get(group), m, group in best.get(m.name, ())) for m in shown]
        table.append([group[2], group[1], str(len(groups[group])), *cells])
    spreads = [pooled_std(list(summaries[m.name].values())) for m in shown[1:]]
    if not all(map(math.isnan, spreads)):
        noise = ["" if math.isnan(s) else m.number(s) for s, m in zip(spreads, shown[1:], strict=True)]
        table.append(["*spread of seeds*", "", "", "", *noise])
    table.insert(1, ["---", *["---:"] * (len(table[0]) - 1)])
    return ["| " + " | ".join(line) + " |" for line in table]


def _best(summaries: dict[Group, Sample], shown: Metric) -> set[Group]:
    """The significantly best group of each budget; none for a metric without a better direction."""
    if shown.better is None:
        return set()
    by_budget: dict[str, dict[str, Sample]] = {}
    for (_, budget, name), sample in summaries.items():
        by_budget.setdefault(budget, {})[name] = sample
    best = {(budget, winner(samples, shown.better)) for budget, samples in by_budget.items()}
    return {group for group in summaries if group[1:] in best}


# -- formatting --------------------------------------------------------------------------------------------


def cell(sample: Sample | None, shown: Metric, bold: bool) -> str:
    """A mean, its standard deviation over seeds, and the number of seeds in parentheses."""
    if sample is None:
        return ""
    text = f"**{shown.number(sample.mean)}**" if bold else shown.number(sample.mean)
    if shown.name == MACS_EXACT or sample.n < 2:
        return text
    return f"{text} ± {shown.number(sample.std)} ({sample.n})"


def short(value: str) -> str:
    """Shorten a hash to 12 characters; other values are unchanged."""
    return value[:12] if len(value) == 64 and value.isalnum() else value
