"""The costs of generators: MACs, parameters, file size, memory and latency."""

from __future__ import annotations

import importlib.util
import io
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.evaluation.evaluable import evaluable, phase_of
from lightning_gancompress.evaluation.measure import Findings, Measure, Seen
from lightning_gancompress.evaluation.metrics import (
    ACTIVATION_BYTES,
    BYTES,
    LATENCY,
    LATENCY_COMPILE,
    LATENCY_ONNX,
    MACS_EXACT,
    MACS_LITERATURE,
    PARAMS,
)
from lightning_gancompress.evaluation.results import LatencyResult, RuntimeFacts
from lightning_gancompress.export import (
    compare_latency,
    export_onnx,
    measure_latency,
    onnx_run,
    peak_activation_bytes,
    torch_run,
    torch_threads,
)
from lightning_gancompress.export.latency import Latency, Run
from lightning_gancompress.export.program import inference_copy
from lightning_gancompress.pruning import count_macs, count_params

Runtime = Literal["torch", "compile", "onnx"]


class IsDevice:
    """Requires the name of a device that torch knows."""

    def accepts(self, value: str) -> bool:
        """Whether torch knows a device."""
        try:
            torch.device(value)
        except RuntimeError:
            return False
        return True

    def __str__(self) -> str:
        return "that torch knows as a device, such as cpu or cuda:0"


Device = Annotated[str, IsDevice()]
FIGURES: dict[Runtime, str] = {"torch": LATENCY, "compile": LATENCY_COMPILE, "onnx": LATENCY_ONNX}


class Costs(Measure):
    """MACs, parameters, bytes, memory and latency of every generator for one image, on rank 0 alone.

    Args:
        latency: Whether to time the generators.
        runtimes: Runtimes to time: torch, torch after `torch.compile`, ONNX Runtime on the CPU.
        device: Device of torch's timings.
        threads: CPU threads while timing.
        repetitions: Timed calls per generator, after three warm-up calls.
    """

    def __init__(
        self, latency: bool, runtimes: list[Runtime], device: str, threads: int, repetitions: int
    ) -> None:
        self.latency, self.runtimes, self.device = latency, runtimes, device
        self.threads, self.repetitions = threads, repetitions

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before the test that the packages of all runtimes are installed."""
        if self.latency:
            require_runtimes(self.runtimes)

    def findings(self, trainer: Trainer, pl_module: LightningModule, seen: Seen) -> Findings:
        """Costs of translating one image of the shape of the first test image."""
        findings = Findings()
        if not trainer.is_global_zero:
            return findings
        networks = evaluable(pl_module).generators(seen.role)
        findings.networks = {name: {**count_costs(net, seen.sample)} for name, net in networks.items()}
        if phase_of(pl_module) == "search":
            return findings  # a masked network is not smaller yet, and can't be copied
        copies = {name: inference_copy(network) for name, network in networks.items()}
        for name, network in copies.items():
            findings.networks[name][ACTIVATION_BYTES] = peak_activation_bytes(network, seen.sample)
        for runtime in self.runtimes if self.latency else ():
            findings.add(self.time(copies, seen.sample, runtime))
        return findings

    def time(self, networks: Mapping[str, nn.Module], sample: Tensor, runtime: Runtime) -> Findings:
        """Latency of each network in one runtime; the calls of two networks alternate."""
        device = "cpu" if runtime == "onnx" else self.device
        try:
            with tempfile.TemporaryDirectory() as folder, torch_threads(self.threads):
                runs = [
                    make_run(net, sample, runtime, device, self.threads, Path(folder, f"{name}.onnx"))
                    for name, net in networks.items()
                ]
                latencies, speedup = time_runs(runs, self.repetitions)
        except Exception as error:  # a missing compiler or package must not stop the test
            return Findings(latency={runtime: RuntimeFacts(failed=first_line(error))})
        figures = [LatencyResult(**asdict(latency)) for latency in latencies]
        facts = RuntimeFacts(device_name(device), self.threads, version(runtime), speedup)
        return Findings(
            networks={name: {FIGURES[runtime]: f} for name, f in zip(networks, figures, strict=True)},
            latency={runtime: facts},
        )


def count_costs(network: nn.Module, sample: Tensor) -> dict[str, int]:
    """MACs of one image like `sample` in both conventions, parameters, and bytes of the saved state dict."""
    inputs = (sample.to(next(network.parameters())),)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return {
        MACS_EXACT: count_macs(network, inputs, "exact"),
        MACS_LITERATURE: count_macs(network, inputs, "literature"),
        PARAMS: count_params(network),
        BYTES: file.getbuffer().nbytes,
    }


def time_runs(runs: list[Run], repetitions: int) -> tuple[list[Latency], float | None]:
    """Latency of each call; of two calls also the speed-up of the second over the first."""
    if len(runs) != 2:
        return [measure_latency(run, repetitions=repetitions) for run in runs], None
    compared = compare_latency(*runs, repetitions=repetitions)
    return [compared.a, compared.b], compared.ratio


def make_run(
    network: nn.Module, sample: Tensor, runtime: Runtime, device: str, threads: int, path: Path
) -> Run:
    """A function that runs a network in a runtime once, to be timed."""
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

    run()  # compiles
    return run


def require_runtimes(runtimes: Sequence[Runtime]) -> None:
    """Raise a `UserError` where a runtime's package is missing."""
    if "onnx" in runtimes and importlib.util.find_spec("onnxruntime") is None:
        raise UserError(
            "latency_runtimes: onnx needs a package that isn't installed: pip install "
            "'lightning_gancompress[export]', or leave it out."
        )


def version(runtime: Runtime) -> str:
    """Name and version of a runtime."""
    if runtime == "onnx":
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}"
    return f"torch {torch.__version__}" + (" compiled" if runtime == "compile" else "")


def device_name(device: str) -> str:
    """Model name of the GPU or CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
