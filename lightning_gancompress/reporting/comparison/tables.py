"""The files of a comparison: CSV, Markdown and plots."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from lightning_gancompress.files import write_files
from lightning_gancompress.reporting.comparison.plot import plots, search_curves
from lightning_gancompress.reporting.comparison.results import Place, Row, read_rows, size_of
from lightning_gancompress.reporting.comparison.statistics import SIGNIFICANCE, Sample, pooled_std, winner

METRICS = ("fid_*", "kid_*", "miou", "lpips", "teacher_lpips", "teacher_l1", "teacher_coverage")
LOWER = ("fid_*", "kid_*", "*lpips*", "*l1", "*ise", "latency*", "macs_*", "params", "bytes")
HIGHER = ("*miou", "psnr", "ssim", "*coverage", "*precision", "*recall", "*accuracy")
COST = "macs_exact"
SAME = 1e-3  # relative; a teacher that is measured twice differs by rounding alone

Group = tuple[str, str, str]


def write_comparison(output: Path, places: list[Place], metrics: Sequence[str] = METRICS) -> list[str]:
    """Write tables and plots of the runs at `places` into `output`.

    They are `results.csv`, `table.md`, `plot` (quality against MACs) and, where there were searches, `search`
    (their curves), each as `.png` and `.svg`.

    Args:
        output: The comparison's folder.
        places: Runs that have been tested, in the order of the table.
        metrics: Names of the metrics in table and plot, or patterns such as `fid_*`.

    Returns:
        What the reader should know before comparing: runs measured in different ways, or no metric found.

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
        output / "table.md": markdown(students, means, chosen, warnings).encode(),
    }
    drawn = plots(students, means, chosen, x_axis=COST) if students and chosen else {}
    drawn |= search_curves(output, places)
    files |= {output / name: content for name, content in drawn.items()}
    write_files(files)
    return warnings


def select(patterns: Sequence[str], rows: list[Row]) -> list[str]:
    """The metrics that match, in the order of the patterns."""
    known = dict.fromkeys(key for row in rows for key in row.values)
    return list(dict.fromkeys(key for p in patterns for key in known if fnmatch(key, p)))


def grouped(rows: list[Row]) -> dict[Group, list[Row]]:
    """Rows that differ in their seed alone, together."""
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
    return {group: Sample.of(found) for group, found in values.items() if found}


def mean_teachers(teachers: list[Row]) -> list[Row]:
    """One row per direction: every run measures its teacher again."""
    rows = []
    for direction in dict.fromkeys(row.direction for row in teachers):
        own = [row for row in teachers if row.direction == direction]
        values = {
            key: Sample.of([r.values[key] for r in own if key in r.values]).mean
            for key in dict.fromkeys(key for row in own for key in row.values)
        }
        rows.append(Row("teacher", "", None, direction, values))
    return rows


def differences(students: list[Row], teachers: list[Row]) -> list[str]:
    """What is wrong with comparing these: other protocols, other teachers, or seeds without effect."""
    found = []
    for direction in dict.fromkeys(row.direction for row in students):
        own = [row for row in students if row.direction == direction]
        for key in dict.fromkeys(key for row in own for key in row.protocol):
            kinds: dict[str, list[Row]] = {}
            for row in own:
                kinds.setdefault(row.protocol.get(key, "nothing"), []).append(row)
            if len(kinds) > 1:
                said = ", ".join(f"{short(value)} in {names(rows)}" for value, rows in kinds.items())
                found.append(f"The runs were measured in different ways, {key}: {said}. Test them again.")
        measured = [row for row in teachers if row.direction == direction]
        for key in dict.fromkeys(k for row in measured for k in row.values if not k.startswith("latency")):
            values = [row.values[key] for row in measured if key in row.values]
            if max(values) - min(values) > SAME * max(map(abs, values)):
                found.append(
                    f"The runs' teachers differ, {key} from {min(values):.6g} to {max(values):.6g}: "
                    "another teacher, other test images, or test noise."
                )
                break  # the other metrics will differ too
    for (_, _, name), rows in grouped(students).items():
        fixed = [{k: v for k, v in row.values.items() if not k.startswith("latency")} for row in rows]
        if len(rows) > 1 and all(values == fixed[0] for values in fixed):
            found.append(f"The seeds of {name} made no difference at all: see seed_options.")
    return found


def names(rows: list[Row]) -> str:
    """Some of the runs, by name."""
    listed = list(dict.fromkeys(Place(r.name, r.budget, r.seed or 0).path.as_posix() for r in rows))
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def csv_file(students: list[Row], teachers: list[Row]) -> str:
    """One line per run and direction, and one per teacher; every number in full."""
    rows = [*students, *teachers]
    columns = list(dict.fromkeys(key for row in rows for key in row.values))
    protocol = list(dict.fromkeys(key for row in students for key in row.protocol))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["experiment", "budget", "seed", "direction", *columns, *(f"protocol.{k}" for k in protocol)]
    )
    for row in rows:
        seed = "" if row.seed is None else row.seed
        values = [row.values.get(key, "") for key in columns]
        writer.writerow(
            [row.name, row.budget, seed, row.direction, *values, *(row.protocol.get(k, "") for k in protocol)]
        )
    return file.getvalue()


def markdown(students: list[Row], teachers: list[Row], metrics: list[str], warnings: list[str]) -> str:
    """A table per direction: experiments below each other, each number with its spread over seeds."""
    lines = [f"**Warning.** {warning}\n" for warning in warnings]
    for direction in dict.fromkeys(row.direction for row in students):
        own = [row for row in students if row.direction == direction]
        lines += [f"## {direction}\n"] if direction else []
        lines += _table(own, [row for row in teachers if row.direction == direction], metrics)
        protocol = "; ".join(f"{key} {short(value)}" for key, value in own[0].protocol.items())
        lines += ["", f"Measured with: {protocol}.", ""] if protocol else [""]
    if not students:
        return "No run has been tested yet.\n"
    lines.append(
        "Mean ± sample standard deviation over seeds (n). Bold is the best of a budget, where it differs "
        f"from each of the others by Welch's t-test with p < {SIGNIFICANCE}, not corrected for the number of "
        "comparisons; without two seeds each nothing can be said, and nothing is bold. The last row is the "
        "spread of seeds, pooled over experiments: smaller differences are noise."
    )
    return "\n".join([*lines, ""])


def _table(students: list[Row], teachers: list[Row], metrics: list[str]) -> list[str]:
    summaries = {metric: samples(students, metric) for metric in (COST, *metrics)}
    best = {metric: _best(summaries[metric], metric) for metric in metrics}
    groups = grouped(students)
    table = [["experiment", "budget", "seeds", "MACs (exact)", *map(label, metrics)]]
    for row in teachers:
        values = (number(row.values[m], m) if m in row.values else "" for m in (COST, *metrics))
        table.append(["teacher", "", "", *values])
    for group in sorted(groups, key=lambda group: size_of(group[1])):
        cells = [
            cell(summaries[m].get(group), m, bold=best.get(m, {}).get(group[1]) == group)
            for m in (COST, *metrics)
        ]
        table.append([group[2], group[1], str(len(groups[group])), *cells])
    spreads = [pooled_std(list(summaries[metric].values())) for metric in metrics]
    if not all(map(math.isnan, spreads)):
        noise = [number(s, m) if math.isfinite(s) else "" for s, m in zip(spreads, metrics, strict=True)]
        table.append(["*spread of seeds*", "", "", "", *noise])
    table.insert(1, ["---", *["---:"] * (len(table[0]) - 1)])
    return ["| " + " | ".join(line) + " |" for line in table]


def _best(found: dict[Group, Sample], metric: str) -> dict[str, Group | None]:
    """The group that wins, by budget; none for metrics of which nobody knows which way is better."""
    if not any(fnmatch(metric, pattern) for pattern in (*LOWER, *HIGHER)):
        return {}
    lower = any(fnmatch(metric, pattern) for pattern in LOWER)
    wins: dict[str, Group | None] = {}
    for budget in dict.fromkeys(group[1] for group in found):
        rivals = {group[2]: sample for group, sample in found.items() if group[1] == budget}
        name = winner(rivals, lower)
        wins[budget] = next((g for g in found if g[1:] == (budget, name)), None)
    return wins


# -- words -------------------------------------------------------------------------------------------------


def label(metric: str) -> str:
    """Head of a column."""
    arrow = " ↓" if any(fnmatch(metric, p) for p in LOWER) else ""
    arrow = " ↑" if any(fnmatch(metric, p) for p in HIGHER) else arrow
    if metric.startswith("kid_"):
        metric += " x 1000"
    return metric + arrow


def cell(sample: Sample | None, metric: str, bold: bool = False) -> str:
    """A mean with its spread; the number of seeds stands in a column of its own."""
    if sample is None:
        return ""
    text = number(sample.mean, metric)
    text = f"**{text}**" if bold else text
    if metric == COST or sample.n < 2:
        return text
    return f"{text} ± {number(sample.std, metric)} ({sample.n})"


def number(value: float, metric: str) -> str:
    """A value in the unit of its column."""
    if metric.startswith("macs_"):
        return f"{value / 1e9:.4g} G" if value >= 1e9 else f"{value / 1e6:.4g} M"
    if metric in ("params", "bytes"):
        return f"{value / 1e6:.4g} M"
    value *= 1000 if metric.startswith("kid_") else 1
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def short(value: str) -> str:
    """Hashes need not be read in full."""
    return value[:12] if len(value) == 64 and value.isalnum() else value
