"""What generators cost: MACs, parameters, bytes, memory, and time."""

from __future__ import annotations

import importlib.util
import io
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.export import (
    compare_latency,
    export_onnx,
    measure_latency,
    onnx_run,
    peak_activation_bytes,
    torch_run,
    torch_threads,
)
from lightning_gancompress.export.latency import Run
from lightning_gancompress.export.program import inference_copy
from lightning_gancompress.pruning import count_macs, count_params

Runtime = Literal["torch", "compile", "onnx"]
KEYS = {"torch": "latency_ms", "compile": "latency_compile_ms", "onnx": "latency_onnx_ms"}


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


def measure_memory(network: nn.Module, sample: Tensor) -> int:
    """Most bytes of feature maps at once while one image like `sample` is translated."""
    return peak_activation_bytes(inference_copy(network), sample.cpu())


def measure_latencies(
    networks: Mapping[str, nn.Module],
    sample: Tensor,
    runtimes: Sequence[Runtime],
    device: str,
    threads: int,
    repetitions: int,
) -> dict[str, Any]:
    """Latency of each network in each runtime; two networks are timed in turn.

    Args:
        networks: By name.
        sample: One image, `(1, C, H, W)`.
        runtimes: torch as it is, after `torch.compile`, and ONNX Runtime, which runs on the CPU.
        device: Where torch runs.
        threads: Of the CPU.
        repetitions: Timed calls of each, after three for warming up.

    Returns:
        `networks` (name -> key of the runtime -> median_ms and percentiles) and `latency` (runtime ->
        `device`, `threads`, `version`, `speedup` of the second of two; or `failed`, a reason).
    """
    times: dict[str, Any] = {name: {} for name in networks}
    facts: dict[str, Any] = {}
    copies = {name: inference_copy(network) for name, network in networks.items()}
    for runtime in runtimes:
        where = "cpu" if runtime == "onnx" else device
        with tempfile.TemporaryDirectory() as folder, torch_threads(threads):
            try:
                runs = [
                    make_run(net, sample, runtime, where, threads, Path(folder, f"{name}.onnx"))
                    for name, net in copies.items()
                ]
                if len(runs) == 2:
                    pair = compare_latency(*runs, repetitions=repetitions)
                    found, speed = [pair.a, pair.b], {"speedup": pair.ratio}
                else:
                    found, speed = [measure_latency(run, repetitions=repetitions) for run in runs], {}
            except Exception as error:  # a compiler or package that isn't here must not cost the results
                facts[runtime] = {"failed": first_line(error)}
                continue
        facts[runtime] = {"device": device_name(where), "threads": threads, "version": version(runtime)}
        facts[runtime] |= speed
        for name, latency in zip(copies, found, strict=True):
            times[name][KEYS[runtime]] = asdict(latency)
    return {"networks": times, "latency": facts}


def make_run(
    network: nn.Module, sample: Tensor, runtime: Runtime, device: str, threads: int, path: Path
) -> Run:
    """One call of a network in a runtime, to be timed."""
    if runtime == "onnx":
        export_onnx(network, path, sample.cpu())
        return onnx_run(path, sample.cpu(), threads)
    network, sample = network.to(device), sample.to(device)
    if runtime == "torch":
        return torch_run(network, sample)
    compiled = torch.compile(network)

    def run() -> None:
        with torch.inference_mode():
            compiled(sample)
        if sample.is_cuda:
            torch.cuda.synchronize(sample.device)

    run()  # compiles, and fails here if it must
    return run


def require_runtimes(runtimes: Sequence[Runtime]) -> None:
    """Raise a `UserError` where a runtime's package is missing."""
    if "onnx" in runtimes and importlib.util.find_spec("onnxruntime") is None:
        raise UserError(
            "latency_runtimes: onnx needs a package that isn't installed: pip install "
            "'lightning_gancompress[export]', or leave it out."
        )


def version(runtime: Runtime) -> str:
    """Name and release of what runs."""
    if runtime == "onnx":
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}"
    return f"torch {torch.__version__}" + (" compiled" if runtime == "compile" else "")


def device_name(device: str) -> str:
    """What the maker calls it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
