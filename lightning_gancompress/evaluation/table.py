"""The results of a test as a Markdown table with notes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_gancompress.evaluation.metrics import (
    DENSITY,
    FID,
    MIOU,
    OF_DENSITY,
    TEACHER,
    in_order,
    metric,
)
from lightning_gancompress.evaluation.results import NetworkResults, RuntimeFacts, TestResults
from lightning_gancompress.files import write_files
from lightning_gancompress.leaves import leaves

SENTENCES = {
    FID: "FID and KID: Inception's layer {feature} (weights {weights_sha256}), resize of {resize}, {n_fake} "
    "generated against {n_real} real images of: {reals}.",
    MIOU: "mIoU: {network}, protocol {protocol}, {classes} classes; on the real photos it is {ceiling:.4f}.",
}
IN_OTHER_SENTENCES = ("fid_reals", DENSITY)  # part of FID's sentence and of the comparison


def write_results_and_table(folder: Path, results: TestResults, suffix: str = "") -> None:
    """Write `results.json` and `table.md` into `folder`; `suffix` goes before the extensions."""
    files = {f"results{suffix}.json": results.to_bytes(), f"table{suffix}.md": table(results).encode()}
    write_files({folder / name: content for name, content in files.items()})


def figures(results: TestResults) -> tuple[list[str], list[list[Any]]]:
    """The figures of all generators as columns and rows: a row each, by name; None where not measured."""
    columns = _columns(results)
    rows = [[name, *(network.figures.get(c) for c in columns)] for name, network in results.shown.items()]
    return ["network", *columns], rows


def _columns(results: TestResults) -> list[str]:
    return in_order(name for network in results.shown.values() for name in network.figures)


def table(results: TestResults) -> str:
    """The results as Markdown: a table with one row per generator, then notes."""
    networks, columns = results.shown, _columns(results)
    lines = [
        ["", *(metric(name).heading for name in columns)],
        ["---", *["---:"] * len(columns)],
        *([name, *(cell(network, c) for c in columns)] for name, network in networks.items()),
    ]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", *notes(results), ""])


def notes(results: TestResults) -> list[str]:
    """Lines below the table: how figures were measured, and the comparison of student and teacher."""
    height, width = results.size
    lines = [f"{results.images} images; MACs at {height} x {width} pixels; L1 of pixels in [-1, 1]."]
    if str(results.checkpoint):
        lines.append(f"Weights: {results.checkpoint}.")
    if results.phase == "search":
        lines.append("The search isn't over: the student is under masks, with all channels in reach.")
    return lines + protocol(results) + comparison(results)


def cell(network: NetworkResults, name: str) -> str:
    """The text of a cell: a figure, a latency with its percentiles, or empty if not measured."""
    if name not in network.figures:
        return ""
    text = metric(name).format(network.figures[name])
    if name not in network.latencies:
        return text
    latency = network.latencies[name]
    return f"{text} ({metric(name).number(latency.p10_ms)} to {metric(name).number(latency.p90_ms)})"


def protocol(results: TestResults) -> list[str]:
    """How the figures were measured, one sentence per metric and per runtime."""
    facts = {name: values for name, values in results.facts.items() if name not in IN_OTHER_SENTENCES}
    latencies = (latency for network in results.networks.values() for latency in network.latencies.values())
    repetitions = next((latency.repetitions for latency in latencies), 0)
    sentences = [sentence(name, values) for name, values in facts.items()]
    return sentences + [runtime(measured, repetitions) for measured in results.latency.values()]


def sentence(name: str, facts: Any) -> str:
    """The facts of a metric as a sentence: from `SENTENCES`, else a list of names and values."""
    try:
        return SENTENCES[name].format(**facts)
    except (KeyError, TypeError, ValueError):  # a user's measure, or facts of another release
        facts = leaves(facts) if isinstance(facts, Mapping) else [("", facts)]
        return f"{name}: {', '.join(f'{key} {value}'.strip() for key, value in facts)}."


def runtime(facts: RuntimeFacts, repetitions: int) -> str:
    """Device, threads and speed-up of a runtime, or why latency was not measured, as a sentence."""
    if facts.failed is not None:
        return f"No latency: {facts.failed}"
    speedup = "" if facts.speedup is None else f", speed-up {facts.speedup:.2f}"
    return (
        f"Latency of one image: median of {repetitions} runs, {facts.version}, {facts.device}, "
        f"threads: {facts.threads}{speedup}."
    )


def comparison(results: TestResults) -> list[str]:
    """Image errors and local density of the student against the teacher, as sentences."""
    figures = {name.removeprefix(TEACHER): value for name, value in results.comparison.items()}
    errors = {name: value for name, value in figures.items() if name not in OF_DENSITY}
    densities = {name: value for name, value in figures.items() if name in OF_DENSITY}
    notes = [f"Student to teacher: {listed(errors)}."] if errors else []
    if densities:
        facts = results.facts.get(DENSITY, {})
        notes.append(
            f"Student beside teacher, {facts.get('k')} neighbours in features of {facts.get('encoder')}: "
            f"{listed(densities).lower()}."
        )
    return notes


def listed(figures: Mapping[str, float]) -> str:
    """Labels and figures as text, in the order of tables."""
    return ", ".join(f"{metric(n).label} {metric(n).format(figures[n])}" for n in in_order(figures))
