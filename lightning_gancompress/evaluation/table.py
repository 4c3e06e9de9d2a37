"""The table of a test: what generators cost and how good their images are, in Markdown."""

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
TOLD_ELSEWHERE = ("fid_reals", DENSITY)  # beside FID, and beside the density itself


def write_report(folder: Path, results: TestResults, suffix: str = "") -> None:
    """Write `results.json` and `table.md` into `folder`; `suffix` goes before the extensions."""
    files = {f"results{suffix}.json": results.to_bytes(), f"table{suffix}.md": table(results).encode()}
    write_files({folder / name: content for name, content in files.items()})


def table(results: TestResults) -> str:
    """The results as Markdown: one row per generator, then how they were measured."""
    columns = in_order(name for network in results.networks.values() for name in network.figures)
    lines = [
        ["", *(metric(name).heading for name in columns)],
        ["---", *["---:"] * len(columns)],
        *([name, *(cell(network, c) for c in columns)] for name, network in results.networks.items()),
    ]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", *notes(results), ""])


def notes(results: TestResults) -> list[str]:
    """What stands below the table: how its figures were measured, and the student beside the teacher."""
    height, width = results.size
    told = [f"{results.images} images; MACs at {height} x {width} pixels; L1 of pixels in [-1, 1]."]
    if results.phase == "search":
        told.append("The search isn't over: the student is the whole network under masks.")
    return told + protocol(results) + comparison(results)


def cell(network: NetworkResults, name: str) -> str:
    """A figure, a latency with its percentiles, or nothing where it was not measured."""
    if name not in network.figures:
        return ""
    text = metric(name).format(network.figures[name])
    if name not in network.latencies:
        return text
    latency = network.latencies[name]
    return f"{text} ({metric(name).number(latency.p10_ms)} to {metric(name).number(latency.p90_ms)})"


def protocol(results: TestResults) -> list[str]:
    """How the figures were measured, a sentence for each measure."""
    told = {name: facts for name, facts in results.facts.items() if name not in TOLD_ELSEWHERE}
    latencies = (latency for network in results.networks.values() for latency in network.latencies.values())
    repetitions = next((latency.repetitions for latency in latencies), 0)
    notes = [sentence(name, facts) for name, facts in told.items()]
    return notes + [runtime(facts, repetitions) for facts in results.latency.values()]


def sentence(name: str, facts: Any) -> str:
    """What a measure says of itself: in its own words, or one fact after the other."""
    try:
        return SENTENCES[name].format(**facts)
    except (KeyError, TypeError, ValueError):  # a user's measure, or facts of another release
        facts = leaves(facts) if isinstance(facts, Mapping) else [("", facts)]
        return f"{name}: {', '.join(f'{key} {value}'.strip() for key, value in facts)}."


def runtime(facts: RuntimeFacts, repetitions: int) -> str:
    """Where latencies were measured, or why not."""
    if facts.failed is not None:
        return f"No latency: {facts.failed}"
    speedup = "" if facts.speedup is None else f", speed-up {facts.speedup:.2f}"
    return (
        f"Latency of one image: median of {repetitions} runs, {facts.version}, {facts.device}, "
        f"threads: {facts.threads}{speedup}."
    )


def comparison(results: TestResults) -> list[str]:
    """The student beside the teacher."""
    figures = {name.removeprefix(TEACHER): value for name, value in results.comparison.items()}
    near = {name: value for name, value in figures.items() if name not in OF_DENSITY}
    beside = {name: value for name, value in figures.items() if name in OF_DENSITY}
    notes = [f"Student to teacher: {listed(near)}."] if near else []
    if beside:
        facts = results.facts.get(DENSITY, {})
        notes.append(
            f"Student beside teacher, {facts.get('k')} neighbours in features of {facts.get('encoder')}: "
            f"{listed(beside).lower()}."
        )
    return notes


def listed(figures: Mapping[str, float]) -> str:
    """Figures with their labels."""
    return ", ".join(f"{metric(n).label} {metric(n).format(figures[n])}" for n in in_order(figures))
