"""What the generators cost, and the table that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_gancompress.evaluation.results import TestResults
from lightning_gancompress.files import write_files

LATENCIES = {
    "latency_ms": "Latency",
    "latency_compile_ms": "Latency, compiled",
    "latency_onnx_ms": "Latency, ONNX",
}


def write_report(folder: Path, results: dict[str, Any], suffix: str = "") -> None:
    """Write `results.json` and `table.md` into `folder`; `suffix` goes before the extensions."""
    files = {
        f"results{suffix}.json": json.dumps(results, indent=2) + "\n",
        f"table{suffix}.md": table(results),
    }
    write_files({folder / name: text.encode() for name, text in files.items()})


def table(results: dict[str, Any]) -> str:
    """The results as Markdown: one row per generator, then how they were measured."""
    rows = [{"": name, **_cells(facts)} for name, facts in results["networks"].items()]
    columns = list(rows[0])
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *([row[c] for c in columns] for row in rows)]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", *_notes(results), ""])


def notes(results: TestResults) -> list[str]:
    """What stands below the table: how its figures were measured, and the student beside the teacher."""
    return _notes(results.to_json())


def _notes(results: Mapping[str, Any]) -> list[str]:
    height, width = results["size"]
    told = [f"{results['images']} images; MACs at {height} x {width} pixels; L1 of pixels in [-1, 1]."]
    if results["phase"] == "search":
        told.append("The search isn't over: the student is the whole network under masks.")
    return told + protocol(results) + comparison(results)


def protocol(results: Mapping[str, Any]) -> list[str]:
    """How the figures of the table were measured."""
    notes = []
    if "fid" in results:
        fid = results["fid"]
        notes.append(
            f"FID and KID: Inception's layer {fid['feature']} (weights {fid['weights_sha256']}), resize of "
            f"{fid['resize']}, {fid['n_fake']} generated against {fid['n_real']} real images of: "
            f"{fid['reals']}."
        )
    if "miou" in results:
        miou = results["miou"]
        notes.append(
            f"mIoU: {miou['network']}, protocol {miou['protocol']}, {miou['classes']} classes; on the real "
            f"photos it is {miou['ceiling']:.4f}."
        )
    repetitions = next(iter(results["networks"].values())).get("latency_ms", {}).get("repetitions")
    for facts in results.get("latency", {}).values():
        if "failed" in facts:
            notes.append(f"No latency: {facts['failed']}")
            continue
        speedup = f", speed-up {facts['speedup']:.2f}" if "speedup" in facts else ""
        notes.append(
            f"Latency of one image: median of {repetitions} runs, {facts['version']}, {facts['device']}, "
            f"threads: {facts['threads']}{speedup}."
        )
    return notes


def comparison(results: Mapping[str, Any]) -> list[str]:
    """The student beside the teacher."""
    labels = {"l1": "L1", "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
    near = [
        f"{label} {results[f'teacher_{key}']:.4f}"
        for key, label in labels.items()
        if f"teacher_{key}" in results
    ]
    notes = [f"Student to teacher: {', '.join(near)}."] if near else []
    if "teacher_ise" in results:
        names = ("density", "coverage", "precision", "recall", "ise")
        figures = ", ".join(f"{name} {results[f'teacher_{name}']:.4f}" for name in names)
        encoder, k = results["density"]["encoder"], results["density"]["k"]
        notes.append(f"Student beside teacher, {k} neighbours in features of {encoder}: {figures}.")
    return notes


def _cells(facts: dict[str, Any]) -> dict[str, str]:
    cells = {
        "MACs (exact)": f"{facts['macs_exact'] / 1e9:.4g} G",
        "MACs (literature)": f"{facts['macs_literature'] / 1e9:.4g} G",
        "Parameters": f"{facts['params'] / 1e6:.4g} M",
        "File": f"{facts['bytes'] / 1e6:.4g} MB",
    }
    if "activation_bytes" in facts:
        cells["Feature maps"] = f"{facts['activation_bytes'] / 1e6:.4g} MB"
    for key, label in LATENCIES.items():
        if key in facts:
            times = facts[key]
            cells[label] = f"{times['median_ms']:.4g} ms ({times['p10_ms']:.4g} to {times['p90_ms']:.4g})"
    if "l1" in facts:
        cells |= {
            "L1": f"{facts['l1']:.4f}",
            "PSNR": f"{facts['psnr']:.2f} dB",
            "SSIM": f"{facts['ssim']:.4f}",
        }
    labels = {"lpips": "LPIPS", "miou": "mIoU", "pixel_accuracy": "Pixel accuracy"}
    cells |= {label: f"{facts[key]:.4f}" for key, label in labels.items() if key in facts}
    for key, value in facts.items():
        name, _, feature = key.partition("_")
        label = name.upper() + (f"-{feature}" if feature else "")
        if name == "fid":
            cells[label] = f"{value:.3f}"
        elif name == "kid":
            cells[f"{label} x 1000"] = f"{1000 * value:.3f}"
    return cells
