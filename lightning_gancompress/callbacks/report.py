"""What the generators cost, and the table that says so."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gancompress.export import compare_latency, torch_latency, torch_run, torch_threads
from lightning_gancompress.export.program import inference_copy
from lightning_gancompress.files import write_files
from lightning_gancompress.pruning import count_macs, count_params


def measure_costs(network: nn.Module, sample: Tensor) -> dict[str, Any]:
    """MACs of one image like `sample` in both conventions, parameters, and bytes of the saved state dict."""
    inputs = (sample.to(next(network.parameters())),)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return {
        "macs_exact": count_macs(network, inputs, "exact"),
        "macs_literature": count_macs(network, inputs, "literature"),
        "params": count_params(network),
        "bytes": file.getbuffer().nbytes,
    }


def measure_latencies(
    networks: dict[str, nn.Module], sample: Tensor, threads: int, repetitions: int
) -> dict[str, Any]:
    """Latency of each network on the CPU, and how many times faster the second of two is.

    Returns:
        `runtime`, `threads`, `networks` (name -> median_ms and percentiles), and `speedup` for two.
    """
    copies = [inference_copy(network) for network in networks.values()]
    result: dict[str, Any] = {"runtime": "torch, CPU", "threads": threads}
    if len(copies) == 2:
        with torch_threads(threads):
            pair = compare_latency(*(torch_run(net, sample) for net in copies), repetitions=repetitions)
        latencies, result["speedup"] = [pair.a, pair.b], pair.ratio
    else:
        latencies = [torch_latency(net, sample, threads, repetitions=repetitions) for net in copies]
    return result | {"networks": {n: asdict(time) for n, time in zip(networks, latencies, strict=True)}}


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
    height, width = results["size"]
    notes = [f"{results['images']} images; MACs at {height} x {width} pixels; L1 of pixels in [-1, 1]."]
    if results["phase"] == "search":
        notes.append("The search isn't over: the student is the whole network under masks.")
    if "teacher_l1" in results:
        notes.append(f"L1 between student and teacher: {results['teacher_l1']:.4f}.")
    if "fid_reals" in results:
        notes.append(f"FID and KID against the real images of: {results['fid_reals']}.")
    if "teacher_ise" in results:
        notes.append(
            "Student beside teacher, by Inception features: density "
            f"{results['teacher_density']:.3f}, coverage "
            f"{results['teacher_coverage']:.3f}, neighbourhood ISE {results['teacher_ise']:.4f}."
        )
    if "latency" in results:
        latency = results["latency"]
        repetitions = next(iter(results["networks"].values()))["latency_ms"]["repetitions"]
        speedup = f", speed-up {latency['speedup']:.2f}" if "speedup" in latency else ""
        notes.append(
            f"Latency of one image: median of {repetitions} runs, {latency['runtime']}, "
            f"threads: {latency['threads']}{speedup}."
        )
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", *notes, ""])


def _cells(facts: dict[str, Any]) -> dict[str, str]:
    cells = {
        "MACs (exact)": f"{facts['macs_exact'] / 1e9:.4g} G",
        "MACs (literature)": f"{facts['macs_literature'] / 1e9:.4g} G",
        "Parameters": f"{facts['params'] / 1e6:.4g} M",
        "File": f"{facts['bytes'] / 1e6:.4g} MB",
    }
    if "latency_ms" in facts:
        cells["Latency"] = f"{facts['latency_ms']['median_ms']:.4g} ms"
    if "l1" in facts:
        cells |= {
            "L1": f"{facts['l1']:.4f}",
            "PSNR": f"{facts['psnr']:.2f} dB",
            "SSIM": f"{facts['ssim']:.4f}",
        }
    for key, value in facts.items():
        name, _, feature = key.partition("_")
        label = name.upper() + (f"-{feature}" if feature else "")
        if name == "fid":
            cells[label] = f"{value:.3f}"
        elif name == "kid":
            cells[f"{label} x 1000"] = f"{1000 * value:.3f}"
    return cells
